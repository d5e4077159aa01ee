"""The audit trail: who did what, when; ids, names and counts, and nothing of a face."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import asyncpg
import msgspec

from oneton.domain.model import TenantId
from oneton.records.database import Connection, Database, read_json


class AuditEvent(msgspec.Struct, frozen=True):
    """Something that was done.

    Attributes:
        event_no: rises with time.
        actor: an operator's name, `key <id>`, or the part of oneton that did it by itself.
        details: JSON object.
    """

    event_no: int
    at: datetime
    actor: str
    action: str
    details: msgspec.Raw


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
    await connection.execute(_INSERT, tenant, actor, action, _json(details))


class Audit:
    """Events of one tenant at a time, or those that belong to none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(
        self, tenant: TenantId | None, actor: str, action: str, details: Mapping[str, object]
    ) -> None:
        """Write an event; None is an operator's that belongs to no tenant."""
        if tenant is None:
            await self._database.fetch(_INSERT, None, actor, action, _json(details))
            return
        async with self._database.transaction(tenant) as connection:
            await note(connection, tenant, actor, action, details)

    async def page(
        self, tenant: TenantId, *, limit: int, before: int | None = None
    ) -> list[AuditEvent]:
        """A tenant's events, the newest first.

        Args:
            before: only those of a smaller number.
        """
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select * from audit_event
                   where tenant_id = $1 and ($2::bigint is null or event_no < $2)
                   order by event_no desc limit $3""",
                tenant,
                before,
                limit,
            )
        return [_event(row) for row in rows]


_INSERT = "insert into audit_event (tenant_id, actor, action, details) values ($1, $2, $3, $4)"


def _json(details: Mapping[str, object]) -> str:
    return msgspec.json.encode(details).decode()


def _event(row: asyncpg.Record) -> AuditEvent:
    return AuditEvent(
        event_no=row["event_no"],
        at=row["at"],
        actor=row["actor"],
        action=row["action"],
        details=read_json(row["details"]) or msgspec.Raw(b"{}"),
    )
