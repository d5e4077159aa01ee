"""The VeriFlow dialect: face match, face search, passive liveness, and requests."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router
from litestar.di import Provide

from oneton.edge.guards import by_token_or_secret, make_guard
from oneton.edge.platform import Platform
from oneton.edge.veriflow.absent import make_refusers
from oneton.edge.veriflow.calls import DIALECT, Caller, make_caller
from oneton.edge.veriflow.refusals import BODY_LIMIT_BYTES, reply_error
from oneton.edge.veriflow.requests import (
    create_request,
    get_request,
    list_requests,
    review_request,
    show_session,
)
from oneton.edge.veriflow.standalone import check_liveness, match_two, search_face

__all__ = ["make_router", "reply_error"]

HANDLERS = (
    match_two,
    search_face,
    check_liveness,
    get_request,
    list_requests,
    create_request,
    review_request,
)


def make_router(platform: Platform) -> Router:
    """The dialect's routes."""

    # A closure, for Litestar copies a partial with all that it holds.
    def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return make_caller(platform, request)

    return Router(
        "/v2",
        route_handlers=[
            show_session,
            Router(
                "/",
                route_handlers=[*HANDLERS, *make_refusers()],
                guards=[make_guard(by_token_or_secret(platform.authenticate), platform, DIALECT)],
                dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
            ),
        ],
        exception_handlers={Exception: reply_error},
        request_max_body_size=BODY_LIMIT_BYTES,
        tags=["veriflow"],
    )
