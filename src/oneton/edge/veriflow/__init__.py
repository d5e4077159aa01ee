"""The veriflow dialect."""

from __future__ import annotations

from litestar import Router

from oneton.edge.platform import Platform

__all__ = ["make_router"]


def make_router(platform: Platform) -> Router:
    """The dialect's routes."""
    return Router("/", route_handlers=[])
