"""CypherFace's dialect: users, upload links, face match at a payment, liveness sessions."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router
from litestar.di import Provide

from oneton.edge.cypherface.calls import IMAGE_LIMIT_BYTES, Caller, by_merchant_token, make_caller
from oneton.edge.cypherface.liveness import check_session, match_frame, start_session, take_frame
from oneton.edge.cypherface.refusals import reply_error
from oneton.edge.cypherface.tokens import issue_token, make_api_key, renew_token
from oneton.edge.cypherface.uploads import make_upload_link, post_picture, put_picture
from oneton.edge.cypherface.users import delete_user, match_face, register_user
from oneton.edge.guards import make_guard, make_limited_guard
from oneton.edge.platform import Platform
from oneton.verbs.merchants import Merchants

__all__ = ["PREFIXES", "make_router", "reply_error"]

PREFIXES = (
    "/merchant-api-key",
    "/api/access-token",
    "/api/refresh-token",
    "/api/user/",
    "/api/upload/",
    "/upload/",
    "/upload-frame",
    "/api/face/match",
    "/api/face-match",
    "/api/face-liveness",
    "/start-liveness-session",
    "/match-liveness-face",
    "/api/match-liveness-face",
    "/check-liveness",
)
"""Whose unknown paths and wrong methods are this dialect's."""

_FORM_BYTES = 64 * 1024
_JSON_LIMIT_BYTES = 64 * 1024


def make_router(platform: Platform) -> Router:
    """The dialect's routes."""
    guard = make_guard(by_merchant_token(platform.merchants), platform, "cypherface")
    limit = platform.settings.cypherface_calls_a_minute
    guards = [make_limited_guard(guard, platform.limit_rate, "cypherface", limit)]

    def provide_merchants() -> Merchants:
        return platform.merchants

    def provide_platform() -> Platform:
        return platform

    def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return make_caller(platform, request)

    caller = {"caller": Provide(provide_caller, sync_to_thread=False)}
    return Router(
        "/",
        route_handlers=[
            Router(
                "/",
                route_handlers=[make_api_key, issue_token, renew_token],
                dependencies={"merchants": Provide(provide_merchants, sync_to_thread=False)},
                request_max_body_size=_JSON_LIMIT_BYTES,
            ),
            Router(
                "/",
                route_handlers=[put_picture, post_picture],
                dependencies={"platform": Provide(provide_platform, sync_to_thread=False)},
                request_max_body_size=IMAGE_LIMIT_BYTES,
            ),
            Router(
                "/",
                route_handlers=[
                    register_user,
                    delete_user,
                    match_face,
                    make_upload_link,
                    start_session,
                    match_frame,
                    check_session,
                ],
                guards=guards,
                dependencies=caller,
                request_max_body_size=_JSON_LIMIT_BYTES,
            ),
            Router(
                "/",
                route_handlers=[take_frame],
                guards=guards,
                dependencies=caller,
                request_max_body_size=IMAGE_LIMIT_BYTES + _FORM_BYTES,
            ),
        ],
        exception_handlers={Exception: reply_error},
        tags=["cypherface"],
    )
