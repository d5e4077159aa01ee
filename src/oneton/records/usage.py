"""What tenants call, by day, dialect and kind of call; and what they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec

from oneton.domain.audit import Act
from oneton.domain.model import TenantId
from oneton.records.audit import note_act
from oneton.records.database import Database, one_row


class Tally(msgspec.Struct, frozen=True):
    """What calls are counted by; days are of UTC."""

    tenant_id: TenantId
    day: date
    dialect: str
    kind: str


class DayUsage(msgspec.Struct, frozen=True):
    """Calls of a tenant on a day of UTC.

    Attributes:
        kind: match, search, enroll, erase, purge, read, admin or other.
    """

    day: date
    dialect: str
    kind: str
    calls: int


class Holdings(msgspec.Struct, frozen=True):
    """What a tenant has now, and may have.

    Attributes:
        faces: face records in all galleries, also those whose image was erased.
        pictures: of saved calls, sessions and uploads; not those of face records.
        most_faces: None is without end.
    """

    faces: int
    pictures: int
    most_faces: int | None


class Usage:
    """Counts are added for all tenants at once, and read by one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, counts: Mapping[Tally, int]) -> None:
        """Add calls; those of tenants that are gone are left out."""
        tallies = list(counts)
        await self._database.fetch(
            "select oneton_count_usage($1, $2, $3, $4, $5)",
            [each.tenant_id for each in tallies],
            [each.day for each in tallies],
            [each.dialect for each in tallies],
            [each.kind for each in tallies],
            [counts[each] for each in tallies],
        )

    async def calls_on(self, tenants: Sequence[TenantId], day: date) -> dict[TenantId, int]:
        """How many calls tenants made on a day, as far as it was added; of all replicas."""
        rows = await self._database.fetch(
            "select * from oneton_calls_on($1, $2)", list(tenants), day
        )
        found = {TenantId(row["tenant_id"]): int(row["calls"]) for row in rows}
        return {tenant: found.get(tenant, 0) for tenant in tenants}

    async def days(self, tenant: TenantId, since: date, until: date) -> list[DayUsage]:
        """A tenant's calls from one day to another, both included; the oldest day first."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select day, dialect, kind, calls from usage_day
                   where tenant_id = $1 and day between $2 and $3 order by day, dialect, kind""",
                tenant,
                since,
                until,
            )
        return [DayUsage(**dict(row)) for row in rows]

    async def holdings(self, tenant: TenantId) -> Holdings:
        """What a tenant has now; a pass over its rows where there is no limit."""
        async with self._database.transaction(tenant) as connection:
            row = await one_row(
                connection,
                """select most, coalesce(q.faces, (
                     select count(*) from face join gallery using (gallery_no)
                     where face_id is not null)) as faces,
                     (select count(*) from picture) as pictures
                   from (select 1) as one left join face_quota q on true""",
            )
        return Holdings(row["faces"], row["pictures"], row["most"])

    async def limit(
        self, tenant: TenantId, *, faces: int | None, requests_a_day: int | None
    ) -> None:
        """Set what a tenant may have and do; None is without end."""
        details = {"faces": faces, "requests_a_day": requests_a_day}
        async with self._database.transaction(tenant) as connection:
            await connection.execute("select oneton_limit_faces($1, $2)", tenant, faces)
            await connection.execute("update tenant set most_requests_a_day = $1", requests_a_day)
            await note_act(connection, tenant, Act("tenant quota", details=details))
