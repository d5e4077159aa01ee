"""The whole database as its owner sees it: for a backup, and to be filled from one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import asyncpg
import msgspec

from oneton.domain.backups import GalleryCount, RestoreMark, RowCounts, TableCount, TenantCount
from oneton.domain.errors import ConflictError, OnetonError, StoreDownError
from oneton.domain.requests import PICTURES
from oneton.records.database import APP_ROLE, store_errors
from oneton.records.dumps import RESTORE_TABLE
from oneton.records.locks import BACKUP
from oneton.records.migrate import MIGRATIONS

_LOCK = 7_316_005
_PAGE = 10_000

NAMED = f"""
select f.tenant_id::text || '/' || g.gallery_id || '/' || f.face_id::text as key
from face f join gallery g using (gallery_no)
where f.face_id is not null and f.image_erased_at is null and g.deleted_at is null
union all
select p.tenant_id::text || '/{PICTURES}/' || p.picture_id::text from picture p"""  # noqa: S608
"""The keys that rows name. Those of deleted galleries are being erased, and are none."""


class OwnedDatabase:
    """A connection of the role that owns the schema, which no policy holds back."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, owner_dsn: str) -> AsyncIterator[OwnedDatabase]:
        """Connect until the block ends.

        Raises:
            StoreDownError: nothing answers, or it refuses the login.
            OnetonError: it refuses a statement.
        """
        try:
            with store_errors():
                connection = await asyncpg.connect(
                    owner_dsn,
                    timeout=10,
                    server_settings={
                        "application_name": "oneton backup",
                        "timezone": "UTC",
                        "idle_in_transaction_session_timeout": "0",
                        "statement_timeout": "0",
                        # One that holds a lock says nothing for hours.
                        "tcp_keepalives_idle": "60",
                    },
                )
        except asyncpg.PostgresError as error:
            raise StoreDownError(f"Postgres: {error}") from error
        try:
            with store_errors():
                yield cls(connection)
        except asyncpg.PostgresError as error:
            raise OnetonError(f"Postgres: {error}") from error
        finally:
            # What was done is done, whether or not Postgres hears the goodbye.
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=10)

    async def hold_keys(self) -> None:
        """Let nobody begin to encrypt anew until this connection closes."""
        await self._connection.execute("select pg_advisory_lock_shared($1)", BACKUP)

    async def keys(self) -> dict[tuple[UUID, int], bool]:
        """Tenant and number of every key there ever was; whether objects are sealed anew with it.

        Objects that were there before a key are sealed with it by a run only.
        """
        if await self._connection.fetchval("select to_regclass('tenant_key')") is None:
            return {}
        rows = await self._connection.fetch(
            """select k.tenant_id, k.key_no, exists (
                 select from encryption_run r
                 where r.tenant_id = k.tenant_id and r.key_no = k.key_no) as anew
               from tenant_key k"""
        )
        return {(row["tenant_id"], row["key_no"]): row["anew"] for row in rows}

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[str]:
        """See the database as it is now until the block ends; yields the name to share it by."""
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            name = await self._connection.fetchval("select pg_export_snapshot()")
            yield str(name)

    async def version(self) -> str:
        """Of the server."""
        return str(await self._connection.fetchval("select current_setting('server_version')"))

    async def migrations(self) -> list[str]:
        """Versions that were applied."""
        rows = await self._connection.fetch("select version from schema_migrations order by 1")
        return [row["version"] for row in rows]

    async def counts(self) -> RowCounts:
        """Count and sum up every row."""
        tables, by_tenant = {}, {}
        for name, of_tenants in await self._tables():
            row = await self._connection.fetchrow(
                f"""select count(*) as rows, mod(coalesce(sum(('x' || left(encode(sha256(
                      convert_to(t::text, 'UTF8')), 'hex'), 15))::bit(60)::bigint), 0),
                      9223372036854775807)::bigint as digest from "{name}" t"""  # noqa: S608 - a table of ours
            )
            assert row is not None
            tables[name] = TableCount(row["rows"], row["digest"])
            if of_tenants:
                by_tenant[name] = await self._rows_of_tenants(name)
        tenants = await self._connection.fetch("select tenant_id, name from tenant order by 1")
        return RowCounts(
            tables=tables,
            tenants=[
                TenantCount(
                    row["tenant_id"],
                    row["name"],
                    {
                        name: found[row["tenant_id"]]
                        for name, found in by_tenant.items()
                        if row["tenant_id"] in found
                    },
                )
                for row in tenants
            ],
            galleries=await self.galleries(),
        )

    async def galleries(self) -> list[GalleryCount]:
        """The heads and the faces of every gallery."""
        rows = await self._connection.fetch(
            """select g.tenant_id, g.gallery_id, g.gallery_no, g.head,
                 g.deleted_at is not null as deleted, count(f.face_id) as faces,
                 count(f.face_id) filter (where f.image_erased_at is null) as with_image
               from gallery g left join face f using (gallery_no)
               group by g.gallery_no order by g.gallery_no"""
        )
        return [GalleryCount(**dict(row)) for row in rows]

    async def named_objects(self) -> AsyncIterator[str]:
        """Every key that a row names; within `snapshot`, and never all in memory."""
        async for row in self._connection.cursor(NAMED, prefetch=_PAGE):
            yield row["key"]

    async def still_named(self, keys: Sequence[str]) -> set[str]:
        """Those of these keys that rows name now."""
        rows = await self._connection.fetch(
            f"select key from ({NAMED}) named where key = any ($1)",  # noqa: S608
            list(keys),
        )
        return {row["key"] for row in rows}

    async def read_mark(self) -> RestoreMark | None:
        """Of a restore that did not end."""
        if await self._connection.fetchval("select to_regclass($1)", RESTORE_TABLE) is None:
            return None
        text = await self._connection.fetchval(f"select mark from {RESTORE_TABLE}")  # noqa: S608
        return None if text is None else msgspec.json.decode(text, type=RestoreMark)

    async def write_mark(self, mark: RestoreMark) -> None:
        """Say that a restore is under way."""
        async with self._connection.transaction():
            await self.remove_mark()
            await self._connection.execute(f"create table {RESTORE_TABLE} (mark text not null)")
            await self._connection.execute(
                f"insert into {RESTORE_TABLE} values ($1)",  # noqa: S608
                msgspec.json.encode(mark).decode(),
            )

    async def remove_mark(self) -> None:
        """Say that it is over."""
        await self._connection.execute(f"drop table if exists {RESTORE_TABLE}")

    async def alone(self) -> None:
        """Keep other restores away until this connection closes.

        Raises:
            ConflictError: one is under way, or anybody else is connected.
        """
        if not await self._connection.fetchval("select pg_try_advisory_lock($1)", _LOCK):
            raise ConflictError("another restore into this database is under way")
        others = await self._connection.fetchval(
            """select count(*) from pg_stat_activity where datname = current_database()
               and pid <> pg_backend_pid() and usesysid is not null
               and coalesce(backend_type, 'client backend') = 'client backend'"""
        )
        if others:
            raise ConflictError(
                f"{others} other connections to this database: stop servers and workers first"
            )

    async def occupants(self) -> str:
        """What is in the way of a restore; empty when nothing is."""
        relations = [
            row["relname"]
            for row in await self._connection.fetch(_RELATIONS)
            if row["relname"] != RESTORE_TABLE
        ]
        if relations and "schema_migrations" not in relations:
            return f"a table that is not oneton's: {relations[0]}"
        if "tenant" in relations and (
            found := await self._connection.fetchval("select count(*) from tenant")
        ):
            return f"{found} tenants"
        return ""

    async def clear(self) -> None:
        """Drop everything in the schema except extensions and the mark; make the app's role."""
        async with self._connection.transaction():
            for row in await self._connection.fetch(_RELATIONS):
                if row["relname"] != RESTORE_TABLE:
                    await self._connection.execute(
                        f'drop {_KINDS[row["kind"]]} if exists public."{row["relname"]}" cascade'
                    )
            for row in await self._connection.fetch(_OTHERS):
                await self._connection.execute(
                    f"drop {row['what']} if exists {row['name']} cascade"
                )
            await self._connection.execute(_ROLE)

    async def note_erased(self, keys: Iterable[str]) -> int:
        """Make rows say that their images are gone; returns how many did not yet."""
        faces: list[UUID] = []
        pictures: list[UUID] = []
        for key in keys:
            _, gallery, name = key.split("/")
            (pictures if gallery == PICTURES else faces).append(UUID(name))
        changed = 0
        async with self._connection.transaction():
            for sql, ids in (
                (
                    """update face set image_erased_at = now()
                       where face_id = any ($1) and image_erased_at is null""",
                    faces,
                ),
                ("delete from picture where picture_id = any ($1)", pictures),
            ):
                status = await self._connection.execute(sql, ids)
                changed += int(status.rpartition(" ")[2])
        return changed

    async def note(self, actor: str, action: str, details: object) -> None:
        """Write an operator's audit event that is of no tenant."""
        await self._connection.execute(
            "insert into audit_event (actor, action, details) values ($1, $2, $3)",
            actor,
            action,
            msgspec.json.encode(details).decode(),
        )

    async def sample(self, count: int) -> list[tuple[UUID, str, UUID]]:
        """Tenant, gallery and id of face records with an image, drawn at random."""
        rows = await self._connection.fetch(
            """select f.tenant_id, g.gallery_id, f.face_id
               from face f join gallery g using (gallery_no)
               where f.face_id is not null and f.image_erased_at is null and g.deleted_at is null
                 and exists (select from template t where t.face_no = f.face_no
                             and t.model_pack_no = g.model_pack_no)
               order by random() limit $1""",
            count,
        )
        return [(row["tenant_id"], row["gallery_id"], row["face_id"]) for row in rows]

    async def _tables(self) -> list[tuple[str, bool]]:
        """Names of the tables that a backup has, and whether their rows are tenants'."""
        rows = await self._connection.fetch(
            """select c.relname, exists (
                 select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id'
                   and not a.attisdropped) as of_tenants
               from pg_class c where c.relkind = 'r' and c.relpersistence = 'p'
                 and c.relnamespace = 'public'::regnamespace and c.relname <> $1
                 and not exists (select from pg_depend d where d.objid = c.oid
                   and d.classid = 'pg_class'::regclass and d.deptype = 'e')
               order by 1""",
            RESTORE_TABLE,
        )
        return [(row["relname"], row["of_tenants"]) for row in rows]

    async def _rows_of_tenants(self, table: str) -> dict[UUID, int]:
        rows = await self._connection.fetch(
            f"""select tenant_id, count(*) as rows from "{table}"
                where tenant_id is not null group by 1"""  # noqa: S608 - a table of ours
        )
        return {row["tenant_id"]: row["rows"] for row in rows}


def unknown_migrations(versions: Iterable[str]) -> list[str]:
    """Versions that this code does not have."""
    known = {path.name.split("_")[0] for path in MIGRATIONS.glob("*.sql")}
    return sorted(set(versions) - known)


_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "S": "sequence"}
# What hangs on a table goes with it; what an extension made is the extension's.
_RELATIONS = """
select c.relname, c.relkind::text as kind from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
  and not exists (select from pg_depend d where d.objid = c.oid
    and d.classid = 'pg_class'::regclass and d.deptype = 'e')
order by c.relkind = 'S', 1"""
_OTHERS = """
select 'routine' as what, p.oid::regprocedure::text as name from pg_proc p
where p.pronamespace = 'public'::regnamespace and not exists (
  select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass
    and d.deptype = 'e')
union all
select 'type', t.oid::regtype::text from pg_type t
where t.typnamespace = 'public'::regnamespace and t.typtype in ('e', 'd') and not exists (
  select from pg_depend d where d.objid = t.oid and d.classid = 'pg_type'::regclass
    and d.deptype = 'e')"""
# As the first migration makes it: a dump has grants to the role, and not the role.
_ROLE = f"""
do $$
begin
  if to_regrole('{APP_ROLE}') is null then
    create role {APP_ROLE} login nosuperuser nocreatedb nocreaterole nobypassrls;
  end if;
exception when duplicate_object or unique_violation then null;
end
$$;
do $$
begin
  -- Who was made a member by another may not be one who makes members.
  if not pg_has_role(current_user, '{APP_ROLE}', 'member') then
    grant {APP_ROLE} to current_user;
  end if;
end
$$;"""
