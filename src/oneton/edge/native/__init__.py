"""The native API under /v1, for what no other dialect has."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router
from litestar.di import Provide
from litestar.types import ASGIApp

from oneton.edge.guards import by_token_or_secret, make_guard
from oneton.edge.native import (
    audit,
    faces,
    galleries,
    identify,
    jobs,
    reindex_runs,
    requests,
    usage,
    verify,
)
from oneton.edge.native.bodies import BODY_LIMIT_BYTES
from oneton.edge.native.callers import Caller, guard_sandbox
from oneton.edge.native.problems import reply_problem
from oneton.edge.native.repeats import DIALECT, AnswerRepeats
from oneton.edge.platform import Platform

__all__ = ["make_router", "reply_problem"]

HANDLERS = (
    galleries.create_gallery,
    galleries.list_galleries,
    galleries.show_gallery,
    galleries.change_gallery,
    galleries.delete_gallery,
    faces.enroll_face,
    faces.list_faces,
    faces.show_face,
    faces.change_face,
    faces.link_image,
    faces.erase_image,
    faces.purge_face,
    identify.identify_face,
    verify.verify_faces,
    requests.list_requests,
    requests.show_request,
    requests.review_request,
    jobs.list_jobs,
    jobs.show_job,
    reindex_runs.list_reindex_runs,
    reindex_runs.show_reindex_run,
    audit.list_audit,
    usage.show_usage,
)


def make_router(verbs: Platform) -> Router:
    """The API's routes."""
    check = by_token_or_secret(verbs.authenticate)

    def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return Caller(request.state.principal, verbs)

    # A function, for Litestar copies whatever else it is given here.
    def answer_repeats(app: ASGIApp) -> ASGIApp:
        return AnswerRepeats(app, check, verbs)

    return Router(
        "/v1",
        route_handlers=HANDLERS,
        guards=[make_guard(check, verbs, DIALECT), guard_sandbox],
        middleware=[answer_repeats],
        dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
        exception_handlers={Exception: reply_problem},
        request_max_body_size=BODY_LIMIT_BYTES,
        security=[{"token": list[str]()}],
        tags=["native"],
    )
