"""Questions that only an examination asks of the tables, and what its repairs change there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import msgspec

from oneton.domain.model import Gallery, TenantId
from oneton.records.database import Database, one_row

LONG_S = 1800.0
"""A question may read all faces of a gallery."""
PAGE = 4000
MOST_LISTED = 10_000
STUCK_MINUTES = 15
STUCK_HOURS = 1
CLAIM_HOURS = 24


class Heads(msgspec.Struct, frozen=True):
    """The stamps of a gallery's faces, all of one moment."""

    head: int
    stamps: int
    different: int
    least: int
    most: int

    @property
    def are_in_order(self) -> bool:
        """Whether every number from 1 to the head is used once."""
        return self.stamps == self.different == self.head and (
            not self.head or (self.least, self.most) == (1, self.head)
        )


class Lacking(msgspec.Struct, frozen=True):
    """A face record without the template that its gallery asks for."""

    face_no: int
    face_id: UUID
    has_image: bool


class Enrolled(msgspec.Struct, frozen=True):
    """A gallery's faces under one pack, against a head that an index has.

    Attributes:
        present: were there at that head, and are.
        removed: were there, and have gone since.
    """

    present: list[int]
    removed: list[int]


class Examining:
    """Reads one tenant at a time, as everything does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heads(self, tenant: TenantId, gallery: Gallery) -> Heads:
        """Sum up a gallery's stamps."""
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                """with stamps as (
                     select added_at_head as at from face where gallery_no = $1
                     union all
                     select removed_at_head from face
                     where gallery_no = $1 and removed_at_head is not null)
                   select coalesce((select head from gallery where gallery_no = $1), 0) as head,
                     count(at) as stamps, count(distinct at) as different,
                     coalesce(min(at), 0) as least, coalesce(max(at), 0) as most from stamps""",
                gallery.gallery_no,
                timeout=LONG_S,
            )
        assert row is not None
        return Heads(**dict(row))

    async def lacking(
        self, tenant: TenantId, gallery: Gallery, pack_no: int, *, with_image: bool
    ) -> list[Lacking]:
        """Face records that a pack has no template of, though it found no reason.

        Args:
            with_image: only those that have one.
        """
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select f.face_no, f.face_id, f.image_erased_at is null as has_image
                   from face f left join template t
                     on t.face_no = f.face_no and t.model_pack_no = $2
                   where f.gallery_no = $1 and f.face_id is not null and t.face_no is null
                     and (f.image_erased_at is null or not $3)
                     and not exists (
                       select from reindex_failure r join reindex_run using (run_id)
                       where r.face_no = f.face_no and to_pack_no = $2)
                   order by f.face_no limit $4""",
                gallery.gallery_no,
                pack_no,
                with_image,
                MOST_LISTED,
                timeout=LONG_S,
            )
        return [Lacking(**dict(row)) for row in rows]

    async def leftover_templates(self, tenant: TenantId) -> list[tuple[int, int]]:
        """Number and pack of templates whose face was removed or is none, and not kept aside."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                f"select t.face_no, t.model_pack_no {_LEFTOVER} order by 1, 2 limit $1",
                MOST_LISTED,
                timeout=LONG_S,
            )
        return [(row["face_no"], row["model_pack_no"]) for row in rows]

    async def delete_leftover_template(self, tenant: TenantId, face_no: int) -> int:
        """Delete what is left of a face; returns how many templates that was."""
        async with self._database.transaction(tenant) as connection:
            status = await connection.execute(
                f"""delete from template where (face_no, model_pack_no) in (
                      select t.face_no, t.model_pack_no {_LEFTOVER} and t.face_no = $1)""",  # noqa: S608
                face_no,
            )
        return int(status.rpartition(" ")[2])

    async def face_nos(
        self, tenant: TenantId, gallery: Gallery, pack_no: int
    ) -> AsyncIterator[list[int]]:
        """Faces that have a template of a pack, a page at a time."""
        after = -1
        while True:
            async with self._database.transaction(tenant) as connection:
                rows = await connection.fetch(
                    """select f.face_no from face f join template t using (face_no)
                       where f.gallery_no = $1 and t.model_pack_no = $2 and f.face_no > $3
                         and f.removed_at_head is null
                       order by f.face_no limit $4""",
                    gallery.gallery_no,
                    pack_no,
                    after,
                    PAGE,
                )
            if not rows:
                return
            yield [row["face_no"] for row in rows]
            after = rows[-1]["face_no"]

    async def face_ids(self, tenant: TenantId, face_nos: Sequence[int]) -> dict[int, UUID]:
        """The public names of those that are there."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select face_no, face_id from face
                   where face_no = any ($1) and face_id is not null""",
                list(face_nos),
            )
        return {row["face_no"]: row["face_id"] for row in rows}

    async def enrolled(
        self, tenant: TenantId, gallery: Gallery, pack_no: int, head: int
    ) -> Enrolled:
        """What an index that is at a head has to hold."""
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                """select
                     coalesce(array_agg(f.face_no) filter (
                       where f.removed_at_head is null and t.face_no is not null), '{}') as present,
                     coalesce(array_agg(f.face_no) filter (
                       where f.removed_at_head > $3), '{}') as removed
                   from face f left join template t
                     on t.face_no = f.face_no and t.model_pack_no = $2
                   where f.gallery_no = $1 and f.added_at_head <= $3""",
                gallery.gallery_no,
                pack_no,
                head,
                timeout=LONG_S,
            )
        assert row is not None
        return Enrolled(row["present"], row["removed"])

    async def deliveries_stuck(self, tenant: TenantId) -> int:
        """Deliveries that have been due for long, to endpoints that are on."""
        return await self._count(
            tenant,
            f"""select count(*) as found from outbox join webhook_endpoint using (endpoint_id)
                where enabled and next_at < now() - interval '{STUCK_MINUTES} minutes'""",  # noqa: S608
        )

    async def jobs_stuck(self, tenant: TenantId) -> list[tuple[UUID, str, str]]:
        """Id, kind and what it said last, of jobs that nothing was heard of for long."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                f"""select job_id, kind, why from job where state in ('queued', 'running')
                    and updated_at < now() - interval '{STUCK_HOURS} hours'"""  # noqa: S608
            )
        return [(row["job_id"], row["kind"], row["why"]) for row in rows]

    async def dead_claims(self, tenant: TenantId) -> int:
        """Idempotency keys that were claimed long ago, and have no answer."""
        sql = f"select count(*) as found from idempotency {_DEAD}"  # noqa: S608
        return await self._count(tenant, sql)

    async def clear_dead_claims(self, tenant: TenantId) -> int:
        """Delete them; returns how many."""
        async with self._database.transaction(tenant) as connection:
            status = await connection.execute(f"delete from idempotency {_DEAD}")  # noqa: S608
        return int(status.rpartition(" ")[2])

    async def queue_stuck(self) -> dict[str, int]:
        """Entries of the job queue that nobody took or heard of for long, by kind."""
        rows = await self._database.fetch(
            f"""select entrypoint, count(*) as found from oneton_pgqueuer
                where (status = 'queued' and execute_after < now() - {_LONG})
                   or (status = 'picked' and heartbeat < now() - {_LONG})
                group by 1 order by 1"""  # noqa: S608 - constants
        )
        return {row["entrypoint"]: row["found"] for row in rows}

    async def reindex_stuck(self) -> list[tuple[UUID, str, str, str]]:
        """Tenant, gallery, state and why, of galleries whose re-embedding waits for somebody."""
        rows = await self._database.fetch(
            """select tenant_id, gallery_id, state, why from oneton_reindexing()
               where state = 'stopped' and ended_at is null"""
        )
        return [(row["tenant_id"], row["gallery_id"], row["state"], row["why"]) for row in rows]

    async def halfway(self, tenant: TenantId) -> list[str]:
        """Galleries with a second pack that no run knows of."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select gallery_id from gallery g where second_pack_no is not null
                   and not exists (select from reindex_gallery r
                     where r.gallery_no = g.gallery_no
                       and r.state in ('filling', 'stopped', 'filled', 'kept'))"""
            )
        return [row["gallery_id"] for row in rows]

    async def _count(self, tenant: TenantId, sql: str) -> int:
        async with self._database.transaction(tenant) as connection:
            return int((await one_row(connection, sql))["found"])


_LEFTOVER = """
from template t left join face f using (face_no)
where (f.face_no is null or f.removed_at_head is not null)
  and not exists (select from reindex_drop d where d.face_no = t.face_no)"""
_DEAD = f"where done_at is null and claimed_at < now() - interval '{CLAIM_HOURS} hours'"
_LONG = f"interval '{STUCK_HOURS} hours'"
