"""Webhooks on the wire: where they may go, how they are signed, how they are sent."""
