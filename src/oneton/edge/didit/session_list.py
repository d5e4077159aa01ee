"""Saved calls, a page at a time."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from oneton.domain.model import Permission
from oneton.domain.requests import RequestFilter, RequestState, SavedRequest
from oneton.edge.didit.answers import STATUSES, microseconds
from oneton.edge.didit.bodies import PAGE, read_window, refusals
from oneton.edge.didit.calls import DIALECT, Caller

_STATES = {status: state for state, status in STATUSES.items()}


class Session(msgspec.Struct, frozen=True):
    """A saved call, without what it found; the decision has that.

    Attributes:
        features: the one that was asked for, such as `FACE_MATCH`.
    """

    session_id: UUID
    session_number: int
    session_kind: str
    status: str
    features: tuple[str, ...]
    vendor_data: str | None
    metadata: msgspec.Raw | None
    created_at: str
    expires_at: str | None
    workflow_id: None = None


class SessionPage(msgspec.Struct, frozen=True):
    """Some of the saved calls, the newest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[Session]


@get(
    "/v3/sessions",
    operation_id="diditShowSessions",
    summary="Show saved calls",
    responses=refusals(400),
    permissions=(Permission.READ,),
)
async def show_sessions(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    limit: FromQuery[int] = PAGE,
    offset: FromQuery[int] = 0,
    status: FromQuery[Literal["Approved", "Declined", "In Review"] | None] = None,
    of_user: Annotated[str, QueryParameter(name="vendor_data", max_length=500)] = "",
) -> SessionPage:
    """Show saved calls, all or those of a status or a user; a sandbox key has none."""
    window = read_window(request, caller, limit, offset, status=status or "", vendor_data=of_user)
    if caller.principal.sandbox:
        return SessionPage(0, None, None, [])
    state: RequestState | None = None if status is None else _STATES[status]
    which = RequestFilter(dialect=DIALECT, state=state, external_id=of_user or None)
    tenant, saved = caller.principal.tenant_id, caller.verbs.saved_requests
    count = await saved.count(tenant, which)
    found = await saved.page(tenant, which, limit=window.limit, offset=window.offset)
    return SessionPage(
        count, window.next(count), window.previous(), [_session(each) for each in found]
    )


def _session(saved: SavedRequest) -> Session:
    return Session(
        session_id=saved.request_id,
        session_number=saved.number,
        session_kind="api",
        status=STATUSES[saved.state],
        features=(saved.kind.upper(),),
        vendor_data=saved.external_id,
        metadata=saved.metadata,
        created_at=microseconds(saved.created_at),
        expires_at=None if saved.due_at is None else microseconds(saved.due_at),
    )
