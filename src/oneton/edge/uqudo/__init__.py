"""The uqudo dialect: token, 1:1 match, 1:N search, insert and delete."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router
from litestar.di import Provide

from oneton.edge.guards import by_token, make_guard
from oneton.edge.platform import Platform
from oneton.edge.uqudo.faces import (
    Caller,
    delete_photo,
    insert_face,
    match_faces,
    search_face,
)
from oneton.edge.uqudo.refusals import BODY_LIMIT_BYTES, reply_error
from oneton.edge.uqudo.tokens import issue_token
from oneton.verbs.authenticate import Authenticate

__all__ = ["make_router", "reply_error"]


def make_router(verbs: Platform) -> Router:
    """The dialect's routes."""

    def provide_authenticate() -> Authenticate:
        return verbs.authenticate

    def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return Caller(request.state.principal, verbs)

    return Router(
        "/",
        route_handlers=[
            Router(
                "/",
                route_handlers=[issue_token],
                dependencies={"authenticate": Provide(provide_authenticate, sync_to_thread=False)},
                request_max_body_size=16 * 1024,
            ),
            Router(
                "/",
                route_handlers=[match_faces, search_face, insert_face, delete_photo],
                guards=[make_guard(by_token(verbs.authenticate), verbs.cpu)],
                dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
            ),
        ],
        exception_handlers={Exception: reply_error},
        request_max_body_size=BODY_LIMIT_BYTES,
    )
