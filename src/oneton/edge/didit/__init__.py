"""The Didit dialect: face match, face search, passive liveness, sessions, lists, webhooks."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router
from litestar.di import Provide

from oneton.edge.didit.calls import Caller, make_caller, make_limited_guard
from oneton.edge.didit.refusals import BODY_LIMIT_BYTES, reply_error
from oneton.edge.platform import Platform

__all__ = ["make_router", "reply_error"]

HANDLERS = ()


def make_router(platform: Platform) -> Router:
    """The dialect's routes."""

    # A closure, for Litestar copies a partial with all that it holds.
    def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return make_caller(platform, request)

    return Router(
        "/",
        route_handlers=[*HANDLERS],
        guards=[make_limited_guard(platform)],
        dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
        exception_handlers={Exception: reply_error},
        request_max_body_size=BODY_LIMIT_BYTES,
        tags=["didit"],
    )
