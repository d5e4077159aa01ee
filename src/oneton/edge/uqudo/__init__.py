"""The uqudo dialect: token, 1:1 match, 1:N search, insert and delete, face sessions."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router
from litestar.di import Provide

from oneton.edge.platform import Platform
from oneton.edge.uqudo.calls import Caller, make_limited_guard
from oneton.edge.uqudo.documents import show_json, show_yaml
from oneton.edge.uqudo.faces import delete_photo, insert_face, match_faces, search_face
from oneton.edge.uqudo.info import (
    purge_session,
    show_image,
    show_keys,
    show_result,
    show_result_by_header,
)
from oneton.edge.uqudo.refusals import BODY_LIMIT_BYTES, reply_error
from oneton.edge.uqudo.sessions import create_session, take_selfie
from oneton.edge.uqudo.tokens import issue_token
from oneton.verbs.authenticate import Authenticate
from oneton.verbs.sign_results import SignResults

__all__ = ["make_router", "reply_error"]

GUARDED = (
    match_faces,
    search_face,
    insert_face,
    delete_photo,
    create_session,
    take_selfie,
    show_result,
    show_result_by_header,
    show_image,
    purge_session,
)


def make_router(verbs: Platform) -> Router:
    """The dialect's routes."""

    def provide_authenticate() -> Authenticate:
        return verbs.authenticate

    def provide_sign_results() -> SignResults:
        return verbs.sign_results

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
                route_handlers=[show_keys, show_json, show_yaml],
                dependencies={"sign_results": Provide(provide_sign_results, sync_to_thread=False)},
            ),
            Router(
                "/",
                route_handlers=GUARDED,
                guards=[make_limited_guard(verbs)],
                dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
            ),
        ],
        exception_handlers={Exception: reply_error},
        request_max_body_size=BODY_LIMIT_BYTES,
    )
