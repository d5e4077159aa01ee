"""The audit trail: who did what, when; ids, names and counts, and nothing of a face."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from oneton.domain.acting import actor as acting
from oneton.domain.audit import EVERY, Act, AuditEvent, AuditFilter
from oneton.domain.model import FaceId, GalleryId, TenantId
from oneton.records.database import Connection, Database, read_json

CHUNK = 1000
"""Events of an export that are read at once."""


async def note(
    connection: Connection,
    tenant: TenantId | None,
    actor: str,
    action: str,
    details: Mapping[str, object],
) -> None:
    """Write an event within the transaction of what it tells of.

    Args:
        tenant: whose transaction it is; None is an operator's, outside of any tenant.
    """
    await connection.execute(_INSERT, *_arguments(tenant, Act(action, details=details), actor))


async def note_act(connection: Connection, tenant: TenantId, act: Act) -> None:
    """The same of whoever acts."""
    await connection.execute(_INSERT, *_arguments(tenant, act, None))


async def note_acts(connection: Connection, tenant: TenantId, acts: Sequence[Act]) -> None:
    """The same of several acts, in one statement."""
    rows = [event_row(tenant, None, each) for each in acts]
    await connection.execute(INSERT_MANY, *map(list, zip(*rows, strict=True)))


INSERT_MANY = "select oneton_note_events($1, $2, $3, $4, $5, $6, $7, $8, $9)"
EventRow = tuple[TenantId, datetime | None, str, str | None, str | None, str, str | None, str, str]


def event_row(tenant: TenantId, at: datetime | None, act: Act) -> EventRow:
    """One event of whoever acts, as `INSERT_MANY` takes them by columns; None is now."""
    who = acting()
    return (
        tenant,
        at,
        who.name,
        who.address,
        who.request_id,
        str(act.action),
        act.gallery_id,
        ",".join(map(str, act.face_ids)),
        msgspec.json.encode(dict(act.details)).decode(),
    )


class Audit:
    """Events of one tenant at a time, or those that belong to none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(
        self, tenant: TenantId | None, actor: str, action: str, details: Mapping[str, object]
    ) -> None:
        """Write an event; None is an operator's that belongs to no tenant."""
        await self._note(tenant, Act(action, details=details), actor)

    async def note_act(self, tenant: TenantId | None, act: Act) -> None:
        """The same of whoever acts."""
        await self._note(tenant, act, None)

    async def _note(self, tenant: TenantId | None, act: Act, name: str | None) -> None:
        arguments = _arguments(tenant, act, name)
        if tenant is None:
            await self._database.fetch(_INSERT, *arguments)
            return
        async with self._database.transaction(tenant) as connection:
            await connection.execute(_INSERT, *arguments)

    async def page(
        self,
        tenant: TenantId | None,
        *,
        limit: int,
        before: int | None = None,
        which: AuditFilter = EVERY,
    ) -> list[AuditEvent]:
        """Some events, the newest first.

        Args:
            tenant: whose; None is operators' events that belong to no tenant.
            before: only those of a smaller number.
        """
        return await self._read(tenant, which, "desc", limit, before=before)

    async def every(
        self, tenant: TenantId | None, which: AuditFilter = EVERY
    ) -> AsyncIterator[AuditEvent]:
        """All events that there are at the start, the oldest first."""
        newest = await self.page(tenant, limit=1)
        if not newest:
            return
        until, after = newest[0].event_no + 1, 0
        while chunk := await self._read(tenant, which, "asc", CHUNK, after=after, before=until):
            for event in chunk:
                yield event
            after = chunk[-1].event_no

    async def _read(
        self,
        tenant: TenantId | None,
        which: AuditFilter,
        order: Literal["asc", "desc"],
        limit: int,
        *,
        after: int | None = None,
        before: int | None = None,
    ) -> list[AuditEvent]:
        # One condition for each thing that is asked for, or no index would be used.
        asked: list[tuple[str, object]] = [
            ("tenant_id = {}", tenant),
            ("actor = {}", which.actor),
            ("action = {}", which.action),
            ("at >= {}", which.since),
            ("at < {}", which.until),
            ("event_no > {}", after),
            ("event_no < {}", before),
        ]
        given = [each for each in asked if each[1] is not None]
        conditions = [text.format(f"${at}") for at, (text, _) in enumerate(given, start=1)]
        if tenant is None:
            conditions.append("tenant_id is null")
        arguments = [value for _, value in given]
        rows_of = "audit_event"
        if which.face_id is not None:
            # The planner cannot use the index on faces through the table's policy.
            arguments.append(which.face_id)
            rows_of = f"oneton_events_of_face(${len(arguments)})"
        sql = (
            f"select * from {rows_of} where {' and '.join(conditions)} "  # noqa: S608 - texts of ours
            f"order by event_no {order} limit {limit:d}"
        )
        if tenant is None:
            return [_event(row) for row in await self._database.fetch(sql, *arguments)]
        async with self._database.transaction(tenant) as connection:
            return [_event(row) for row in await connection.fetch(sql, *arguments)]


_INSERT = """
insert into audit_event
  (tenant_id, actor, address, request_id, action, face_ids, gallery_id, details)
values ($1, $2, $3, $4, $5, $6, $7, $8)"""


def _arguments(tenant: TenantId | None, act: Act, name: str | None) -> tuple[object, ...]:
    """The arguments of `_INSERT`; the name is that of whoever acts when it is None."""
    who = acting()
    # Commands that give a bare login are named as all others.
    is_acting = name is None or who.name == f"operator {name}"
    return (
        tenant,
        who.name if is_acting else name,
        who.address,
        who.request_id,
        str(act.action),
        list(act.face_ids),
        act.gallery_id,
        msgspec.json.encode(dict(act.details)).decode(),
    )


def _event(row: asyncpg.Record) -> AuditEvent:
    tenant, gallery = row["tenant_id"], row["gallery_id"]
    return AuditEvent(
        event_no=row["event_no"],
        at=row["at"],
        tenant_id=None if tenant is None else TenantId(tenant),
        actor=row["actor"],
        action=row["action"],
        face_ids=tuple(FaceId(each) for each in row["face_ids"]),
        gallery_id=None if gallery is None else GalleryId(gallery),
        address=row["address"],
        request_id=row["request_id"],
        details=read_json(row["details"]) or msgspec.Raw(b"{}"),
    )
