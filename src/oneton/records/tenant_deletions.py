"""Tenants that were deleted: what is left of them, and how much there was."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.errors import NotFoundError, UnavailableError
from oneton.domain.model import TenantId
from oneton.records.database import Database

DELETE_TENANT = "delete_tenant"
LATE_DAYS = 7


class TenantDeletion(msgspec.Struct, frozen=True):
    """How far a tenant's deletion is.

    Attributes:
        rows: deleted so far, by table.
        objects: likewise, by kind.
    """

    tenant_id: TenantId
    asked_by: str
    asked_at: datetime
    ended_at: datetime | None
    rows: dict[str, int]
    objects: dict[str, int]


class TenantDeletions:
    """Every step may be done again, by any process; which tables there are the catalogue says."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, tenant: TenantId, actor: str) -> None:
        """Refuse all calls of a tenant, hide its galleries, and put down the job of the rest.

        Raises:
            NotFoundError: there is no such tenant.
        """
        rows = await self._database.fetch(
            "select oneton_delete_tenant($1, $2, $3) as job_id", tenant, uuid7(), actor
        )
        if rows[0]["job_id"] is None:
            raise NotFoundError("tenant", tenant)

    async def read(self, tenant: TenantId) -> TenantDeletion:
        """How far it is, also once it is over.

        Raises:
            NotFoundError: it was not asked for.
        """
        rows = await self._database.fetch(
            "select * from tenant_deletion where former_id = $1", tenant
        )
        if not rows:
            raise NotFoundError("deleted tenant", tenant)
        row = rows[0]
        return TenantDeletion(
            tenant_id=TenantId(row["former_id"]),
            asked_by=row["asked_by"],
            asked_at=row["asked_at"],
            ended_at=row["ended_at"],
            rows=msgspec.json.decode(row["rows"], type=dict[str, int]),
            objects=msgspec.json.decode(row["objects"], type=dict[str, int]),
        )

    async def asked_ago_s(self, tenant: TenantId) -> float:
        """How long ago it was asked for, by the clock of Postgres."""
        rows = await self._database.fetch(
            """select extract(epoch from clock_timestamp() - asked_at)::float8 as ago_s
               from tenant_deletion where former_id = $1""",
            tenant,
        )
        return float(rows[0]["ago_s"])

    async def count_objects(self, tenant: TenantId, objects: Mapping[str, int]) -> None:
        """Add objects that were deleted."""
        await self._database.fetch(
            """update tenant_deletion d set objects = (
                 select coalesce(jsonb_object_agg(name, n), '{}') from (
                   select key as name, sum(value::bigint) as n from (
                     select * from jsonb_each_text(d.objects)
                     union all select * from jsonb_each_text($2::jsonb)) as each
                   group by key) as counted)
               where former_id = $1""",
            tenant,
            msgspec.json.encode(dict(objects)).decode(),
        )

    async def erase(self, tenant: TenantId, at_most: int) -> bool:
        """Delete some rows and count them; False when only the tenant's own are left.

        Raises:
            UnavailableError: something was written meanwhile; try again.
        """
        try:
            rows = await self._database.fetch(
                "select oneton_erase_tenant($1, $2) as gone", tenant, at_most
            )
        except asyncpg.ForeignKeyViolationError as error:
            raise UnavailableError(f"tenant {tenant} is still being written to") from error
        return rows[0]["gone"] is not None

    async def end(self, tenant: TenantId) -> bool:
        """Delete the last rows, and note for operators how much there was; again is no error.

        Raises:
            UnavailableError: something was written meanwhile; try again.
        """
        try:
            rows = await self._database.fetch("select oneton_end_tenant($1) as ended", tenant)
        except (asyncpg.ForeignKeyViolationError, asyncpg.RaiseError) as error:
            raise UnavailableError(f"tenant {tenant} is still being written to") from error
        return bool(rows[0]["ended"])

    async def left(self, tenant: TenantId) -> dict[str, int]:
        """Rows that there are, in every table that has tenants' rows."""
        rows = await self._database.fetch("select * from oneton_tenant_rows($1)", tenant)
        return {row["name"]: int(row["rows"]) for row in rows}

    async def lately(self) -> list[TenantId]:
        """Those of the last days, of which something may still come in late."""
        rows = await self._database.fetch(
            """select former_id from tenant_deletion
               where ended_at > now() - make_interval(days => $1) order by ended_at""",
            LATE_DAYS,
        )
        return [TenantId(row["former_id"]) for row in rows]

    async def forget_late(self) -> int:
        """Delete audit events that were on their way when their tenant went."""
        rows = await self._database.fetch("select oneton_forget_tenants() as late")
        return int(rows[0]["late"])
