"""What a tenant called, and what it has."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from oneton.domain.model import Permission
from oneton.edge.native.callers import Caller
from oneton.edge.native.problems import InvalidInputError, refusals

DAYS = 30
MOST_DAYS = 366


class DayReply(msgspec.Struct, frozen=True):
    """Calls on a day of UTC.

    Attributes:
        kind: match, search, enroll, erase, purge, read, admin or other, by the permission that the
            call demands.
    """

    day: date
    dialect: str
    kind: str
    calls: int


class UsageReply(msgspec.Struct, frozen=True):
    """Calls by day, dialect and kind, and what there is now.

    Attributes:
        faces: face records in all galleries.
        pictures: of saved calls, sessions and uploads.
        most_faces: that there may be; null is without end.
        most_requests_a_day: likewise.
    """

    since: date
    until: date
    calls: int
    faces: int
    pictures: int
    most_faces: int | None
    most_requests_a_day: int | None
    days: tuple[DayReply, ...]


@get(
    "/usage",
    operation_id="nativeShowUsage",
    summary="Show usage",
    responses=refusals(400, 429),
    permissions=(Permission.READ,),
)
async def show_usage(
    caller: NamedDependency[Caller],
    since: Annotated[date | None, QueryParameter(name="from")] = None,
    until: Annotated[date | None, QueryParameter(name="to")] = None,
) -> UsageReply:
    """Show the tenant's calls from one day to another, both included; days are of UTC.

    Without `to` until today, without `from` the last 30 days; at most 366. Every call that was let
    in is counted, whatever came of it. Those of the last seconds may be missing.
    """
    last = until or datetime.now(UTC).date()
    first = since or last - timedelta(days=DAYS - 1)
    if not 0 <= (last - first).days < MOST_DAYS:
        raise InvalidInputError("from", f"at most {MOST_DAYS} days before `to` is expected")
    found = await caller.verbs.show_usage(caller.tenant, first, last)
    return UsageReply(
        since=first,
        until=last,
        calls=sum(each.calls for each in found.days),
        faces=found.holdings.faces,
        pictures=found.holdings.pictures,
        most_faces=found.holdings.most_faces,
        most_requests_a_day=caller.principal.most_requests_a_day,
        days=tuple(DayReply(each.day, each.dialect, each.kind, each.calls) for each in found.days),
    )
