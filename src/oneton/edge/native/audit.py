"""The audit trail, as the tenant may read it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from oneton.domain import audit
from oneton.domain.audit import AuditFilter
from oneton.domain.model import FaceId, GalleryId, Permission
from oneton.edge.native.callers import Caller
from oneton.edge.native.cursors import PAGE, Cursor, Limit, decode_number, encode_cursor
from oneton.edge.native.problems import InvalidInputError, refusals

_LIST = "audit"
Text = Annotated[str | None, QueryParameter(max_length=100, pattern=r"^[^\x00]*$")]


class AuditEvent(msgspec.Struct, frozen=True):
    """Something that was done with your data.

    Attributes:
        event_no: rises with time; other tenants' events leave gaps.
        actor: `key <id>`, `operator <login>`, `link`, or the part of oneton that did it by itself.
        action: such as search, match, enroll, purge or read image.
        face_ids: those changed or read, or the matches that a search answered with.
        address: the caller's.
        request_id: of the call, as in its X-Request-ID.
        details: ids, names and counts.
    """

    event_no: int
    at: datetime
    actor: str
    action: str
    face_ids: tuple[FaceId, ...]
    gallery: GalleryId | None
    address: str | None
    request_id: str | None
    details: msgspec.Raw


class AuditEvents(msgspec.Struct, frozen=True):
    """A page of events, the newest first; `next_cursor` is null on the last one."""

    items: tuple[AuditEvent, ...]
    next_cursor: str | None


@get(
    "/audit",
    operation_id="nativeListAudit",
    summary="List audit events",
    responses=refusals(),
    permissions=(Permission.ADMIN,),
)
async def list_audit(  # noqa: PLR0913, PLR0917 - the query's own parameters
    caller: NamedDependency[Caller],
    cursor: Cursor = None,
    limit: Limit = PAGE,
    face_id: FromQuery[UUID | None] = None,
    actor: Text = None,
    action: Text = None,
    since: Annotated[datetime | None, QueryParameter(description="At this time or after.")] = None,
    until: Annotated[datetime | None, QueryParameter(description="Before this time.")] = None,
) -> AuditEvents:
    """List who did what to which face, when and from where, the newest first.

    Searches, matches and pictures read appear within a second.
    """
    for name, time in (("since", since), ("until", until)):
        if time is not None and time.tzinfo is None:
            raise InvalidInputError(name, "it has no time zone")
    which = AuditFilter(None if face_id is None else FaceId(face_id), actor, action, since, until)
    found = await caller.verbs.audit.page(
        caller.tenant, limit=limit + 1, before=decode_number(_LIST, cursor), which=which
    )
    page = found[:limit]
    following = encode_cursor(_LIST, page[-1].event_no) if len(found) > limit else None
    return AuditEvents(tuple(_shown(each) for each in page), following)


def _shown(event: audit.AuditEvent) -> AuditEvent:
    return AuditEvent(
        event_no=event.event_no,
        at=event.at,
        actor=event.actor,
        action=event.action,
        face_ids=event.face_ids,
        gallery=event.gallery_id,
        address=event.address,
        request_id=event.request_id,
        details=event.details,
    )
