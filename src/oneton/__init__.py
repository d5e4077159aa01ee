"""Self-hosted, multi-tenant 1:N face search."""

__version__ = "0.1.0"
