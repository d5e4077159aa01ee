"""Runs that seal everything of a tenant anew, and the end of its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.errors import ConflictError, KeyDestroyedError
from oneton.domain.model import FaceNo, TenantId
from oneton.records.audit import note
from oneton.records.database import Connection, Database, one_row
from oneton.records.locks import BACKUP, CHANGING_KEYS
from oneton.records.news import CLOSED
from oneton.records.templates import head_of_key
from oneton.records.tenant_keys import TenantKeys, Wrapping

LOCK = 7_316_009
"""With the tenant's hash, as `oneton_key_in_force` takes it."""


class Run(msgspec.Struct, frozen=True):
    """One that is under way, or was.

    Attributes:
        phase: `templates`, `objects`, `copies`, `check` or `done`.
        reached: where the phase is.
        unreadable: what no key opened, which stays as it is.
    """

    run_id: UUID
    tenant_id: TenantId
    key_no: int
    phase: str
    reached: str
    templates: int
    objects: int
    copies: int
    unreadable: int
    why: str
    started_by: str
    started_at: datetime
    ended_at: datetime | None


class StoredTemplate(msgspec.Struct, frozen=True):
    """A template as its row has it."""

    model_pack_no: int
    face_no: FaceNo
    stored: bytes


class Counted(msgspec.Struct, frozen=True):
    """Templates of a tenant, and how many of them are sealed, and with the key in force."""

    templates: int
    sealed: int
    current: int


class KeyState(msgspec.Struct, frozen=True):
    """A tenant's keys, without the keys.

    Attributes:
        number: of the one in force; None when there is none, or all were destroyed.
        made_at: when that was made, at the last rotation.
        older: keys that are retired, and still needed.
        destroyed_at: when all were destroyed.
        wrapped_by_newest: whether the newest master key wraps them all.
    """

    number: int | None
    made_at: datetime | None
    older: int
    destroyed_at: datetime | None
    wrapped_by_newest: bool


class Encryption:
    """One tenant at a time."""

    def __init__(self, database: Database, keys: TenantKeys, wrapping: Wrapping) -> None:
        self._database = database
        self._keys = keys
        self._wrapping = wrapping

    async def state(self, tenant: TenantId) -> KeyState:
        """What there is of keys."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch("select * from tenant_key order by key_no")
        live = [row for row in rows if row["wrapped"] is not None]
        in_force = [row for row in live if row["retired_at"] is None]
        newest = all(self._wrapping.is_newest(bytes(row["wrapped"])) for row in live)
        return KeyState(
            number=in_force[0]["key_no"] if in_force else None,
            made_at=in_force[0]["created_at"] if in_force else None,
            older=len(live) - len(in_force),
            destroyed_at=rows[-1]["destroyed_at"] if rows and not live else None,
            wrapped_by_newest=newest,
        )

    async def rewrap(self, tenant: TenantId) -> int:
        """Wrap a tenant's keys with the newest master key; returns how many were not."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                "select * from tenant_key where wrapped is not null for update"
            )
            older = [row for row in rows if not self._wrapping.is_newest(bytes(row["wrapped"]))]
            for row in older:
                number = row["key_no"]
                key = self._wrapping.unwrap(tenant, number, bytes(row["wrapped"]))
                await connection.execute(
                    "update tenant_key set wrapped = $3 where tenant_id = $1 and key_no = $2",
                    tenant,
                    number,
                    self._wrapping.wrap(tenant, number, key),
                )
        return len(older)

    async def begin(self, tenant: TenantId, *, rotate: bool, actor: str) -> Run:
        """Begin to seal everything with the key in force, or with a new one.

        What is under way with the key in force is returned as it is.

        Raises:
            ConflictError: a new key is wanted, and something is under way already; or a backup is
                being created, which would lack the key of objects that are sealed meanwhile.
            KeyDestroyedError: the keys were destroyed.
        """
        await self._keys.ring(tenant, fresh=True)
        async with self._database.transaction(tenant) as connection:
            await _lock(connection, tenant)
            number = await connection.fetchval(
                "select key_no from tenant_key where retired_at is null"
            )
            if number is None:
                raise KeyDestroyedError
            row = await connection.fetchrow("select * from encryption_run where ended_at is null")
            if row is not None and rotate:
                raise ConflictError("the tenant's data is being encrypted anew already")
            if row is not None:
                return _run(row)
            await _keep_backups_away(connection)
            if rotate:
                await connection.execute(
                    "update tenant_key set retired_at = now() where key_no = $1", number
                )
                number += 1
                await connection.execute(
                    "insert into tenant_key (tenant_id, key_no, wrapped) values ($1, $2, $3)",
                    tenant,
                    number,
                    self._keys.new_wrapped(tenant, number),
                )
            row = await one_row(
                connection,
                """insert into encryption_run (run_id, tenant_id, key_no, started_by)
                   values ($1, $2, $3, $4) returning *""",
                uuid7(),
                tenant,
                number,
                actor,
            )
            action = "encryption key rotated" if rotate else "encryption applied"
            await note(connection, tenant, actor, action, {"key": number})
        self._keys.forget(tenant)
        return _run(row)

    async def open_runs(self) -> list[tuple[TenantId, UUID]]:
        """Those of all tenants that are not over, the oldest first."""
        rows = await self._database.fetch("select * from oneton_encryption_runs()")
        return [(TenantId(row["tenant_id"]), row["run_id"]) for row in rows]

    async def newest_run(self, tenant: TenantId) -> Run | None:
        """The last one that was begun."""
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                "select * from encryption_run order by started_at desc limit 1"
            )
        return None if row is None else _run(row)

    async def age_s(self, run: Run) -> float:
        """For how long the run has been going on, by Postgres's clock."""
        async with self._database.transaction(run.tenant_id) as connection:
            return float(
                await connection.fetchval(
                    """select extract(epoch from now() - started_at) from encryption_run
                       where run_id = $1""",
                    run.run_id,
                )
            )

    async def note_progress(
        self, run: Run, *, phase: str, reached: str, objects: int = 0, copies: int = 0
    ) -> None:
        """Keep where a run is."""
        async with self._database.transaction(run.tenant_id) as connection:
            await connection.execute(
                """update encryption_run set phase = $2, reached = $3, objects = objects + $4,
                     copies = copies + $5, why = '', updated_at = now()
                   where run_id = $1 and ended_at is null""",
                run.run_id,
                phase,
                reached,
                objects,
                copies,
            )

    async def note_why(self, run: Run, why: str, *, unreadable: int = 0) -> None:
        """Keep what a run waits for, or what it could not open."""
        async with self._database.transaction(run.tenant_id) as connection:
            await connection.execute(
                """update encryption_run set why = $2, unreadable = unreadable + $3,
                     updated_at = now() where run_id = $1""",
                run.run_id,
                why,
                unreadable,
            )

    async def galleries(self, tenant: TenantId) -> list[tuple[int, int]]:
        """Number and head of each, with those that were deleted and still hold something."""
        rows = await self._database.fetch("select * from oneton_galleries_to_seal($1)", tenant)
        return [(row["gallery_no"], row["head"]) for row in rows]

    async def to_seal(
        self, tenant: TenantId, gallery_no: int, since: int, until: int, key_no: int
    ) -> list[StoredTemplate]:
        """Templates of faces added after one head, up to another, that another key sealed."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select t.model_pack_no, t.face_no, t.embedding
                   from face f join template t using (face_no)
                   where f.gallery_no = $1 and f.added_at_head > $2 and f.added_at_head <= $3
                     and substring(t.embedding from 1 for 8) <> $4""",
                gallery_no,
                since,
                until,
                head_of_key(key_no),
            )
        return [
            StoredTemplate(row["model_pack_no"], FaceNo(row["face_no"]), bytes(row["embedding"]))
            for row in rows
        ]

    async def replace(
        self, run: Run, sealed: Sequence[tuple[StoredTemplate, bytes]], reached: str
    ) -> int:
        """Replace templates, but for those that were deleted meanwhile; returns how many."""
        async with self._database.transaction(run.tenant_id) as connection:
            status = await connection.execute(
                """update template t set embedding = n.sealed
                   from unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])
                     as n (model_pack_no, face_no, stored, sealed)
                   where t.model_pack_no = n.model_pack_no and t.face_no = n.face_no
                     and t.embedding = n.stored""",
                [each.model_pack_no for each, _ in sealed],
                [each.face_no for each, _ in sealed],
                [each.stored for each, _ in sealed],
                [new for _, new in sealed],
            )
            count = int(status.rpartition(" ")[2])
            await connection.execute(
                """update encryption_run set templates = templates + $2, reached = $3, why = '',
                     updated_at = now() where run_id = $1 and ended_at is null""",
                run.run_id,
                count,
                reached,
            )
        return count

    async def count(
        self, tenant: TenantId, gallery_no: int, since: int, until: int, key_no: int | None
    ) -> Counted:
        """Templates of faces added after one head, up to another."""
        async with self._database.transaction(tenant) as connection:
            row = await one_row(
                connection,
                """select count(*) as templates,
                     count(*) filter (where substring(t.embedding from 1 for 4) = $4) as sealed,
                     count(*) filter (where substring(t.embedding from 1 for 8) = $5) as current
                   from face f join template t using (face_no)
                   where f.gallery_no = $1 and f.added_at_head > $2 and f.added_at_head <= $3""",
                gallery_no,
                since,
                until,
                head_of_key(0)[:4],
                head_of_key(key_no or 0),
            )
        return Counted(row["templates"], row["sealed"], row["current"])

    async def named(self, tenant: TenantId, ids: Sequence[UUID]) -> set[UUID]:
        """Those of some objects' ids that a row names now."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select face_id as id from face
                   where face_id = any ($1::uuid[]) and image_erased_at is null
                   union all select picture_id from picture where picture_id = any ($1::uuid[])""",
                list(ids),
            )
        return {row["id"] for row in rows}

    async def wait_for_writers(self, tenant: TenantId) -> None:
        """Until every transaction has ended that was writing templates when this was asked."""
        async with self._database.transaction(tenant) as connection:
            await _lock(connection, tenant)

    async def end(self, run: Run) -> int:
        """End a run, and destroy the keys that nothing needs any more; returns how many."""
        async with self._database.transaction(run.tenant_id) as connection:
            await _lock(connection, run.tenant_id)
            ended = await connection.fetchval(
                """update encryption_run set phase = 'done', reached = '', ended_at = now(),
                     updated_at = now() where run_id = $1 and ended_at is null returning true""",
                run.run_id,
            )
            if not ended:
                return 0
            rows = await connection.fetch(
                """update tenant_key set wrapped = null, destroyed_at = now()
                   where key_no < $1 and retired_at is not null and destroyed_at is null
                   returning key_no""",
                run.key_no,
            )
        self._keys.forget(run.tenant_id)
        return len(rows)

    async def destroy(self, tenant: TenantId, *, actor: str, details: Mapping[str, object]) -> None:
        """Destroy all keys of a tenant, for good, and tell every replica at the commit.

        Raises:
            ConflictError: it has none.
            KeyDestroyedError: they were destroyed before.
        """
        async with self._database.transaction(tenant) as connection:
            await _lock(connection, tenant)
            rows = await connection.fetch(
                """update tenant_key set wrapped = null, destroyed_at = now(),
                     retired_at = coalesce(retired_at, now())
                   where destroyed_at is null returning key_no""",
            )
            if not rows:
                if await connection.fetchval("select true from tenant_key limit 1"):
                    raise KeyDestroyedError
                raise ConflictError("the tenant has no encryption key")
            await connection.execute(
                """update encryption_run set phase = 'done', ended_at = now(),
                     why = 'the keys were destroyed' where ended_at is null"""
            )
            keys = [row["key_no"] for row in rows]
            await note(
                connection, tenant, actor, "encryption keys destroyed", {"keys": keys, **details}
            )
            await connection.execute("select pg_notify($1, $2)", CLOSED, f"{tenant} ")
        self._keys.forget(tenant)


async def _lock(connection: Connection, tenant: TenantId) -> None:
    """Be the only one that changes keys, once nobody is writing templates."""
    await connection.execute("select pg_advisory_xact_lock($1, hashtext($2))", LOCK, str(tenant))


async def _keep_backups_away(connection: Connection) -> None:
    """Until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock($1)", CHANGING_KEYS)
    if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", BACKUP):
        raise ConflictError("a backup is being created: try again when it is done")


def _run(row: asyncpg.Record) -> Run:
    return Run(**{name: row[name] for name in Run.__struct_fields__})
