"""A deleted tenant is refused at once, and soon nothing of it is left, which is proved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import msgspec
import numpy as np
import pytest

from oneton.domain.acting import Actor, acting_as
from oneton.domain.errors import NotFoundError, StoreDownError
from oneton.domain.model import (
    DEFAULT_GALLERY,
    DEFAULT_NEW_GALLERY,
    FaceId,
    GalleryId,
    TenantId,
    image_key,
)
from oneton.images.files import FileStore
from oneton.records.audit import Audit
from oneton.records.database import Database
from oneton.records.deletion import Deletion
from oneton.records.galleries import insert_gallery
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.locks import Locks
from oneton.records.tenant_deletions import TenantDeletions
from oneton.records.tenants import Keys, Tenants
from oneton.records.usage import Tally, Usage
from oneton.verbs import delete_tenant
from oneton.verbs.authenticate import CreateKey
from oneton.verbs.delete_tenant import DeleteTenant, EraseTenant, ForgetTenants
from oneton.verbs.do_jobs import DoJobs
from tests.fixtures.postgres import Dsns
from tests.records.conftest import House, add, unit_rows

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff picture"
OPERATOR = Actor("operator ada")

# A row of nearly every table: $1 is the tenant.
ROWS = """
insert into request (request_id, tenant_id, public_id, dialect, kind, state)
  values ($2, $1, $2::text, 'native', 'identify', 'approved');
insert into request_review (tenant_id, request_id, state_before, state, actor)
  values ($1, $2, 'approved', 'declined', 'x');
insert into picture (picture_id, tenant_id, content_type, request_id)
  values ($2, $1, 'image/jpeg', $2);
insert into webhook_endpoint (endpoint_id, tenant_id, dialect, url, secret)
  values ($2, $1, 'native', 'https://example.org', 's');
insert into outbox (delivery_id, tenant_id, endpoint_id, event_id, request_id, event_type, body)
  values ($2, $1, $2, $2, $2, 'x', '{}');
insert into idempotency (tenant_id, key, fingerprint) values ($1, 'k', '');
insert into face_expiry (face_id, tenant_id, due_at) values ($2, $1, now());
insert into face_session (session_id, tenant_id, key_id, picture_id, created_at, expires_at)
  values ($2, $1, $2, $2, now(), now());
insert into session_image (picture_id, tenant_id, key_id, session_id, jti, expires_at)
  values ($2, $1, $2, $2, $2, now());
insert into list (list_id, tenant_id, name, list_type, entry_type)
  values ($2, $1, 'l', 'blocklist', 'email');
insert into list_entry (entry_id, tenant_id, list_id, value, added_by)
  values ($2, $1, $2, 'v', 'x');
insert into vendor_user (user_id, tenant_id, vendor_data) values ($2, $1, 'v');
insert into merchant_user (user_id, tenant_id) values ($2::text, $1);
insert into upload (upload_id, tenant_id, user_id, purpose, image_name, content_type, expires_at)
  values ($2, $1, $2::text, 'upload', 'a', 'image/jpeg', now());
insert into liveness_session (session_id, tenant_id, user_id, created_at, expires_at)
  values ($2, $1, $2::text, now(), now());
insert into job (job_id, tenant_id, kind, subject, state, ended_at)
  values ($2, $1, 'delete_gallery', 'gone', 'done', now());
insert into reindex_run (run_id, to_pack_no, state, rate, on_failure, keep_old, started_by)
  select $2, model_pack_no, 'running', 100, 'stop', '1 day', 'x' from model_pack;
insert into reindex_gallery
    (run_id, tenant_id, gallery_no, from_pack_no, state, start_head, to_embed, to_drop)
  select $2, $1, gallery_no, model_pack_no, 'filling', 0, 1, 0 from gallery where tenant_id = $1;
insert into reindex_failure (run_id, tenant_id, gallery_no, face_no, reason)
  select $2, $1, gallery_no, face_no, 'x' from face where tenant_id = $1 order by 4 limit 1;
insert into reindex_drop (run_id, tenant_id, gallery_no, face_no, face_id)
  select $2, $1, gallery_no, face_no, face_id from face where tenant_id = $1
  order by face_no desc limit 1;
"""


class Site(msgspec.Struct, frozen=True):
    """Two tenants who have something everywhere."""

    house: House
    database: Database
    store: FileStore
    delete: DeleteTenant
    folder: Path
    owner: str

    @property
    def tenant(self) -> TenantId:
        return self.house.tenant.tenant_id

    async def rows(self, tenant: TenantId) -> dict[str, int]:
        return await TenantDeletions(self.database).left(tenant)

    async def keys(self) -> set[str]:
        return {each.key async for each in self.store.list()}

    async def fill(self, rng: np.random.Generator) -> None:
        """Rows, images, pictures and a copy of a snapshot, of both tenants."""
        for gallery in (self.house.gallery, self.house.other_gallery):
            tenant = gallery.tenant_id
            for row in unit_rows(rng, 12):
                face_id = await add(self.house.faces, gallery, row)
                await self.store.put(image_key(tenant, DEFAULT_GALLERY, face_id), JPEG, "x/y")
            name = str(uuid4())
            await self.store.put(f"{tenant}/_pictures/{name}", JPEG, "x/y")
            await CreateKey(Keys(self.database))(tenant, label="", permissions=[])
            await Usage(self.database).add({Tally(tenant, date(2026, 5, 4), "native", "read"): 1})
            await Usage(self.database).limit(tenant, faces=1000, requests_a_day=None)
            file = self.folder / "manifest"
            file.write_bytes(b"m")
            await self.store.put_file(f"{tenant}/default/1-test/7.manifest", file)
            connection = await asyncpg.connect(self.owner, server_settings={"role": "none"})
            for statement in ROWS.split(";\n"):
                if statement.strip():
                    sql = statement.replace("$2::text", f"'{name}'").replace("$2", f"'{name}'")
                    await connection.execute(sql.replace("$1", f"'{tenant}'"))
            await connection.close()


@pytest.fixture
async def site(
    house: House,
    database: Database,
    dsns: Dsns,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    monkeypatch.setattr(delete_tenant, "SETTLE_S", 0.0)
    monkeypatch.setattr(delete_tenant, "ROWS", 5)
    monkeypatch.setattr(delete_tenant, "OBJECTS", 5)
    store, deletions = FileStore(tmp_path / "images"), TenantDeletions(database)
    delete = DeleteTenant(deletions, EraseTenant(deletions, store), Locks(database))
    made = Site(house, database, store, delete, tmp_path, dsns.owner)
    await made.fill(rng)
    return made


async def test_everything_of_a_deleted_tenant_goes_and_nothing_of_another(site: Site) -> None:
    other = site.house.other.tenant_id
    before, theirs = await site.rows(site.tenant), await site.rows(other)
    assert sum(bool(rows) for rows in before.values()) >= 25
    with acting_as(OPERATOR):
        proof = await site.delete(site.tenant)
    assert proof.is_clean
    assert not any(proof.rows_left.values())
    assert proof.deletion.objects == {"face images": 12, "pictures": 1, "snapshot files": 1}
    gone = {name: rows for name, rows in before.items() if rows}
    # The job of the deletion itself.
    gone["job"] += 1
    assert proof.deletion.rows == gone
    assert await site.rows(other) == theirs
    assert {key.partition("/")[0] for key in await site.keys()} == {str(other)}
    with pytest.raises(NotFoundError):
        await Tenants(site.database).named("one")


async def test_one_event_without_a_tenant_says_how_much_was_deleted(site: Site) -> None:
    with acting_as(OPERATOR):
        proof = await site.delete(site.tenant)
    (event,) = [
        each
        for each in await Audit(site.database).page(None, limit=10)
        if each.action == "tenant deleted"
    ]
    details = msgspec.json.decode(event.details)
    assert event.actor == "operator ada"
    assert details == {
        "tenant": str(site.tenant),
        "rows": proof.deletion.rows,
        "objects": proof.deletion.objects,
    }


async def test_a_tenant_is_of_no_use_once_its_deletion_is_asked_for(
    site: Site, rng: np.random.Generator
) -> None:
    await TenantDeletions(site.database).begin(site.tenant, "operator ada")
    with pytest.raises(NotFoundError):
        await site.house.galleries.read(site.tenant, DEFAULT_GALLERY)
    with pytest.raises(NotFoundError):
        await add(site.house.faces, site.house.gallery, unit_rows(rng, 1)[0])
    assert (await Tenants(site.database).read(site.tenant)).deleted_at is not None


async def until_one_waits(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    async with asyncio.timeout(10):
        # Postgres tells nobody who begins to wait.
        while not await connection.fetchval(  # noqa: ASYNC110
            """select exists (select from pg_stat_activity where wait_event_type = 'Lock'
                              and datname = current_database())"""
        ):
            await asyncio.sleep(0.01)


async def test_an_enrolment_under_way_ends_before_its_tenants_deletion_begins(
    site: Site, rng: np.random.Generator
) -> None:
    owner = await asyncpg.connect(site.owner, server_settings={"role": "none"})
    async with site.house.faces.locked(site.tenant, site.house.gallery) as locked:
        begun = asyncio.create_task(TenantDeletions(site.database).begin(site.tenant, "ada"))
        await until_one_waits(owner)
        face_id = FaceId(uuid4())
        await locked.add(face_id, unit_rows(rng, 1)[0], content_type="x/y", idempotency_key=None)
    await begun
    await owner.close()
    assert (await site.delete(site.tenant)).is_clean


async def test_a_gallery_that_is_being_added_is_hidden_by_its_tenants_deletion(site: Site) -> None:
    owner = await asyncpg.connect(site.owner, server_settings={"role": "none"})
    name, pack_no = GalleryId("second"), site.house.gallery.model_pack_no
    async with site.database.transaction(site.tenant) as connection:
        await insert_gallery(connection, site.tenant, name, pack_no, DEFAULT_NEW_GALLERY)
        begun = asyncio.create_task(TenantDeletions(site.database).begin(site.tenant, "ada"))
        await until_one_waits(owner)
    await begun
    assert not await owner.fetchval(
        "select count(*) from gallery where tenant_id = $1 and deleted_at is null", site.tenant
    )
    await owner.close()
    with pytest.raises(NotFoundError):
        await site.house.galleries.create(site.tenant, GalleryId("third"), model_pack_no=pack_no)


async def test_no_step_of_a_deletion_reads_all_tenants_faces_or_templates(site: Site) -> None:
    owner = await asyncpg.connect(site.owner, server_settings={"role": "none"})
    async with owner.transaction():
        # Tables this small are read whole unless there is no other way.
        await owner.execute("set local enable_seqscan = off")
        await owner.fetch("select oneton_delete_tenant($1, $2, 'ada')", site.tenant, uuid4())
        steps = 0
        while await owner.fetchval("select oneton_erase_tenant($1, 5)", site.tenant):
            steps += 1
        assert await owner.fetchval("select oneton_end_tenant($1)", site.tenant)
        left = await owner.fetch("select * from oneton_tenant_rows($1)", site.tenant)
        read = await owner.fetch(
            """select relname, seq_scan from pg_stat_xact_user_tables
               where relname in ('face', 'template', 'audit_event', 'request', 'picture')"""
        )
    await owner.close()
    assert steps > 10
    assert not any(row["rows"] for row in left)
    assert {row["relname"]: row["seq_scan"] for row in read} == dict.fromkeys(
        ("face", "template", "audit_event", "request", "picture"), 0
    )


async def test_others_may_have_their_turn_between_the_steps_of_a_deletion(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, steps = [], EraseTenant.step
    locks_held = Locks.held

    @asynccontextmanager
    async def counted(self: Locks, name: str, *, shared: bool = False) -> AsyncIterator[bool]:
        held.append("lock")
        async with locks_held(self, name, shared=shared) as mine:
            yield mine

    async def step(self: EraseTenant, tenant: TenantId) -> bool:
        held.append("step")
        return await steps(self, tenant)

    monkeypatch.setattr(Locks, "held", counted)
    monkeypatch.setattr(EraseTenant, "step", step)
    monkeypatch.setattr(delete_tenant, "GAP_S", 0.0)
    await site.delete(site.tenant)
    assert held == ["lock", "step"] * (len(held) // 2)


async def test_a_deletion_that_was_cut_off_goes_on_where_it_was(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    before = await site.rows(site.tenant)

    class CutOffError(StoreDownError):
        pass

    while True:
        cut, done = steps + 1, 0
        step = EraseTenant.step

        async def counted(self: EraseTenant, tenant: TenantId) -> bool:
            nonlocal done
            done += 1
            if done > 1:
                raise CutOffError("cut off")
            return await step(self, tenant)  # noqa: B023 - called in this turn only

        with monkeypatch.context() as patch:
            patch.setattr(EraseTenant, "step", counted)
            try:
                proof = await site.delete(site.tenant)
            except CutOffError:
                steps = cut
                continue
        break
    assert steps > 10
    assert proof.is_clean
    assert proof.deletion.rows["face"] == before["face"] == 12
    assert proof.deletion.objects["face images"] == 12


async def test_a_worker_takes_a_deletion_up(site: Site) -> None:
    jobs = JobsOfTenants(site.database)
    work = DoJobs(
        jobs,
        Deletion(site.database, jobs),
        site.store,
        Locks(site.database),
        EraseTenant(TenantDeletions(site.database), site.store),
    )
    await TenantDeletions(site.database).begin(site.tenant, "operator ada")
    await TenantDeletions(site.database).begin(site.tenant, "operator ada")
    assert await work.has_work()
    await work.run()
    assert (await site.delete.prove(site.tenant)).is_clean
    assert not await work.has_work()


async def test_a_table_that_is_new_is_emptied_too(site: Site) -> None:
    connection = await asyncpg.connect(site.owner, server_settings={"role": "none"})
    await connection.execute(
        """create table later (later_id uuid primary key, tenant_id uuid not null references tenant,
             key_id uuid not null references api_key);
           insert into later select gen_random_uuid(), tenant_id, key_id from api_key"""
    )
    proof = await site.delete(site.tenant)
    assert proof.rows_left["later"] == 0
    assert proof.deletion.rows["later"] == 1
    assert await connection.fetchval("select count(*) from later") == 1
    await connection.close()


async def test_what_comes_in_late_is_deleted_later(site: Site) -> None:
    await site.delete(site.tenant)
    key = image_key(site.tenant, DEFAULT_GALLERY, str(uuid4()))
    await site.store.put(key, JPEG, "x/y")
    await Audit(site.database).note(site.tenant, "key x", "search", {})
    assert not (await site.delete.prove(site.tenant)).is_clean
    forget = ForgetTenants(TenantDeletions(site.database), site.delete.erase)
    assert await forget() == 2
    assert (await site.delete.prove(site.tenant)).is_clean
    assert await forget() == 0


async def test_a_suspended_tenants_webhooks_wait_until_it_is_resumed(site: Site) -> None:
    async def due() -> set[TenantId]:
        rows = await site.database.fetch("select tenant_id from oneton_outbox_due(10)")
        return {TenantId(row["tenant_id"]) for row in rows}

    other, tenants = site.house.other.tenant_id, Tenants(site.database)
    assert await due() == {site.tenant, other}
    await tenants.suspend(site.tenant, suspended=True)
    assert await due() == {other}
    await tenants.suspend(site.tenant, suspended=False)
    assert await due() == {site.tenant, other}


async def test_an_unknown_tenant_is_not_deleted(site: Site) -> None:
    with pytest.raises(NotFoundError):
        await site.delete(TenantId(UUID(int=7)))


async def test_every_table_that_refers_to_a_tenants_row_has_the_tenant_itself(
    database: Database,
) -> None:
    rows = await database.fetch(
        """select conrelid::regclass::text as name from pg_constraint
           where contype = 'f'
             and confrelid::regclass::text in (select name from oneton_tenant_tables())
             and conrelid::regclass::text not in (select name from oneton_tenant_tables())"""
    )
    assert rows == []
