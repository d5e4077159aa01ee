"""Trustmatic's dialect: 1:1 comparison of two pictures, and liveness of one."""

from __future__ import annotations

from litestar import Router
from litestar.di import Provide

from oneton.edge.face_verify.calls import Caller, assess_liveness, verify_faces
from oneton.edge.face_verify.refusals import make_reply, reply_error
from oneton.edge.guards import by_basic, make_guard, make_limited_guard
from oneton.edge.platform import Platform

__all__ = ["PREFIXES", "make_router", "reply_error"]

BODY_LIMIT_BYTES = 30 * 1024 * 1024
PREFIXES = ("/api/v1/face/verify", "/api/v1/face/liveness", "/api/v1/id-verifications/")
"""Whose unknown paths and wrong methods are this dialect's."""


def make_router(platform: Platform) -> Router:
    """The dialect's routes."""
    settings = platform.settings
    guard = make_guard(by_basic(platform.authenticate), platform, "face_verify")
    limit = settings.face_verify_calls_a_minute

    def provide_caller() -> Caller:
        return Caller(platform)

    return Router(
        "/",
        route_handlers=[verify_faces, assess_liveness],
        guards=[make_limited_guard(guard, platform.limit_rate, "face_verify", limit)],
        dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
        exception_handlers={Exception: make_reply(as_200=settings.face_verify_500_as_200)},
        request_max_body_size=BODY_LIMIT_BYTES,
        tags=["face_verify"],
    )
