"""The Didit dialect: face match, face search, passive liveness, sessions, lists, webhooks."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router
from litestar.di import Provide

from oneton.edge.didit import (
    blocklist,
    destinations,
    entries,
    face_match,
    face_search,
    lists,
    passive_liveness,
    session_list,
    sessions,
    templates,
    users,
)
from oneton.edge.didit.calls import Caller, make_caller, make_limited_guard
from oneton.edge.didit.refusals import BODY_LIMIT_BYTES, reply_error
from oneton.edge.platform import Platform

__all__ = ["make_router", "reply_error"]

HANDLERS = (
    face_match.match_faces,
    face_search.search_faces,
    passive_liveness.assess_liveness,
    session_list.show_sessions,
    sessions.show_decision,
    sessions.delete_session,
    sessions.delete_sessions,
    lists.show_lists,
    lists.create_list,
    entries.show_entries,
    entries.create_entry,
    entries.upload_face,
    entries.delete_entry,
    blocklist.block_session,
    blocklist.unblock_session,
    blocklist.show_blocklist,
    users.create_user,
    users.show_user,
    users.upload_user_face,
    templates.show_templates,
    templates.count_templates,
    templates.purge_templates,
    templates.show_template,
    templates.purge_template,
    destinations.show_destinations,
    destinations.create_destination,
    destinations.show_destination,
    destinations.change_destination,
    destinations.delete_destination,
)


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
        security=[{"apiKey": list[str]()}],
        tags=["didit"],
    )
