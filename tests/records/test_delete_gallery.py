"""A deleted gallery is found by nobody at once, and soon nothing of it is left."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from oneton.domain.audit import AuditFilter
from oneton.domain.errors import NotFoundError, StoreDownError
from oneton.domain.model import DEFAULT_GALLERY, FaceId, Gallery, GalleryId, Job, image_key
from oneton.images.files import FileStore
from oneton.index.manifest import Identity
from oneton.index.merging import Policy
from oneton.records.audit import Audit
from oneton.records.database import Database
from oneton.records.deletion import Deletion
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.locks import Locks
from oneton.records.tenant_deletions import TenantDeletions
from oneton.verbs import do_jobs
from oneton.verbs.catch_up import CatchUp, Loaded
from oneton.verbs.copy_snapshots import CopySnapshots
from oneton.verbs.delete_tenant import EraseTenant
from oneton.verbs.do_jobs import DoJobs
from oneton.verbs.follow_jobs import FollowJobs
from oneton.verbs.keep_up import KeepUp
from tests.fixtures.postgres import Dsns
from tests.records.conftest import House, add, open_hands, unit_rows

pytestmark = pytest.mark.anyio

DELETED = AuditFilter(action="gallery deleted")

JPEG = b"\xff\xd8\xff picture"
FACES = 150
KILLS = 6


class Site(msgspec.Struct, frozen=True):
    """A gallery with images, and what empties it once it is deleted."""

    house: House
    database: Database
    store: FileStore
    work: DoJobs
    follow: FollowJobs
    folder: Path

    async def fill(self, gallery: Gallery, rng: np.random.Generator, faces: int) -> list[FaceId]:
        """Add faces; every tenth has no image any more, and every tenth was purged."""
        tenant, made = gallery.tenant_id, []
        for number, row in enumerate(unit_rows(rng, faces)):
            face_id = await add(self.house.faces, gallery, row)
            key = image_key(tenant, gallery.gallery_id, face_id)
            if number % 10 == 1:
                await self.house.faces.erase_image(tenant, face_id)
            elif number % 10 == 2:
                async with self.house.faces.locked(tenant, gallery) as locked:
                    await locked.purge(face_id)
                continue
            else:
                await self.store.put(key, JPEG, "image/jpeg")
            made.append(face_id)
        return made

    async def delete(self, gallery: Gallery) -> Job:
        return await self.house.galleries.delete(gallery.tenant_id, gallery)

    async def left(self, gallery: Gallery) -> dict[str, int]:
        """Rows that are left of a gallery, and of its tenant's templates."""
        async with self.database.transaction(gallery.tenant_id) as connection:
            return {
                "face": await connection.fetchval(
                    "select count(*) from face where gallery_no = $1", gallery.gallery_no
                ),
                "template": await connection.fetchval("select count(*) from template"),
            }

    async def keys(self) -> set[str]:
        return {each.key async for each in self.store.list()}


@pytest.fixture
def site(house: House, database: Database, tmp_path: Path) -> Site:
    store, jobs = FileStore(tmp_path / "images"), JobsOfTenants(database)
    work = DoJobs(
        jobs,
        Deletion(database, jobs),
        store,
        Locks(database),
        EraseTenant(TenantDeletions(database), store),
    )
    return Site(house, database, store, work, FollowJobs(jobs), tmp_path)


async def test_a_deleted_gallery_is_hidden_at_once(
    site: Site, house: House, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    (face_id,) = await site.fill(house.gallery, rng, 1)
    job = await site.delete(house.gallery)
    assert (job.kind, job.subject, job.state, job.total) == (
        "delete_gallery",
        "default",
        "queued",
        1,
    )
    with pytest.raises(NotFoundError):
        await house.galleries.read(tenant, DEFAULT_GALLERY)
    with pytest.raises(NotFoundError):
        await house.faces.find(tenant, face_id)
    with pytest.raises(NotFoundError):
        await house.faces.erase_image(tenant, face_id)
    with pytest.raises(NotFoundError):
        await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    assert await house.galleries.list(tenant) == []
    assert await house.faces.details(tenant, [face_id]) == {}


async def test_a_job_erases_rows_templates_and_objects_and_nothing_else(
    site: Site, house: House, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(do_jobs, "PAGE", 7)
    tenant = house.tenant.tenant_id
    other = await house.galleries.create(
        tenant, GalleryId("other"), model_pack_no=house.gallery.model_pack_no
    )
    kept = await site.fill(other, rng, 5)
    faces = await site.fill(house.gallery, rng, 40)
    theirs = await site.left(house.other_gallery)
    keys = await site.keys()
    job = await site.delete(house.gallery)
    assert await site.work.has_work()
    await site.work.run()
    assert not await site.work.has_work()
    assert await site.left(house.gallery) == {"face": 0, "template": len(kept)}
    assert await site.left(house.other_gallery) == theirs
    prefix = image_key(tenant, DEFAULT_GALLERY, "")
    assert await site.keys() == {key for key in keys if not key.startswith(prefix)}
    ended = await site.follow.show(tenant, job.job_id)
    assert (ended.state, ended.done, ended.total, ended.why) == ("done", 36, 36, "")
    assert len(faces) == 36
    assert ended.ended_at is not None
    assert await site.follow.list(tenant, limit=10) == [ended]
    assert await site.follow.list(tenant, limit=10, before=ended.job_id) == []
    with pytest.raises(NotFoundError):
        await site.follow.show(house.other.tenant_id, job.job_id)
    (event,) = await Audit(site.database).page(tenant, limit=10, which=DELETED)
    assert (event.actor, event.action) == ("delete_gallery", "gallery deleted")
    assert msgspec.json.decode(event.details) == {
        "gallery": "default",
        "job": str(job.job_id),
        "faces": 36,
    }


async def test_an_empty_gallery_is_deleted_too(site: Site, house: House) -> None:
    job = await site.delete(house.gallery)
    await site.work.run()
    ended = await site.follow.show(house.tenant.tenant_id, job.job_id)
    assert (ended.state, ended.done, ended.total) == ("done", 0, 0)


async def test_a_name_can_be_used_again_while_the_job_is_at_work(
    site: Site, house: House, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    await site.fill(house.gallery, rng, 12)
    await site.delete(house.gallery)
    again = await house.galleries.create(
        tenant, DEFAULT_GALLERY, model_pack_no=house.gallery.model_pack_no
    )
    kept = await site.fill(again, rng, 10)
    second = await site.delete(again)
    third = await house.galleries.create(
        tenant, DEFAULT_GALLERY, model_pack_no=house.gallery.model_pack_no
    )
    stays = await site.fill(third, rng, 1)
    await site.work.run()
    assert (await site.follow.show(tenant, second.job_id)).done == len(kept)
    assert await site.keys() == {image_key(tenant, DEFAULT_GALLERY, each) for each in stays}
    assert await site.left(third) == {"face": 1, "template": 1}
    assert (await house.faces.find(tenant, stays[0])).has_image


async def test_two_workers_at_once_are_harmless(
    site: Site, house: House, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(do_jobs, "PAGE", 3)
    faces = await site.fill(house.gallery, rng, 60)
    job = await site.delete(house.gallery)
    assert await asyncio.gather(*(site.work.drain() for _ in range(3))) == [True] * 3
    ended = await site.follow.show(house.tenant.tenant_id, job.job_id)
    assert (ended.state, ended.done, ended.total) == ("done", len(faces), len(faces))
    assert await site.left(house.gallery) == {"face": 0, "template": 0}
    events = await Audit(site.database).page(house.tenant.tenant_id, limit=10, which=DELETED)
    assert len(events) == 1


async def test_a_job_waits_for_the_object_store_and_says_so(
    site: Site, house: House, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.fill(house.gallery, rng, 3)
    job = await site.delete(house.gallery)

    async def down(_self: FileStore, key: str) -> None:
        raise StoreDownError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "delete", down)
        assert not await site.work.drain()
    waiting = await site.follow.show(house.tenant.tenant_id, job.job_id)
    assert (waiting.state, waiting.done, waiting.why) == ("running", 0, "the store is away")
    assert (await site.left(house.gallery))["face"] == 3
    assert await site.work.drain()
    ended = await site.follow.show(house.tenant.tenant_id, job.job_id)
    assert (ended.state, ended.done, ended.why) == ("done", 2, "")


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_job_survives_kill_9(
    site: Site, house: House, rng: np.random.Generator, dsns: Dsns
) -> None:
    faces = await site.fill(house.gallery, rng, FACES)
    job = await site.delete(house.gallery)
    random = Random(1)
    for _ in range(KILLS):
        await _kill_one(dsns, site.folder / "images", random.randint(1, 25))
        job = await site.follow.show(house.tenant.tenant_id, job.job_id)
        left = await site.left(house.gallery)
        gone = FACES - left["face"]
        assert job.state in ("queued", "running")
        assert 0 <= job.done <= gone
        # What a row names may be gone; what no row names may not be there.
        assert len(await site.keys()) <= left["face"]
    assert 0 < job.done < len(faces)
    await site.work.run()
    ended = await site.follow.show(house.tenant.tenant_id, job.job_id)
    assert (ended.state, ended.done, ended.total) == ("done", len(faces), len(faces))
    assert await site.left(house.gallery) == {"face": 0, "template": 0}
    assert await site.keys() == set()


async def _kill_one(dsns: Dsns, folder: Path, after: int) -> None:
    """Start a process that does jobs, and kill it once it has deleted some objects."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.records.deleting_child", dsns.app, str(folder), stdout=PIPE
    )
    assert child.stdout is not None
    for _ in range(after):
        assert await child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    await child.communicate()


class Replica(msgspec.Struct, frozen=True):
    """What one process holds indexes with."""

    catch_up: CatchUp
    keep_up: KeepUp
    copies: CopySnapshots
    folder: Path

    async def snapshot(self, gallery: Gallery) -> Loaded:
        """Load a gallery, and write and copy a snapshot of it."""
        await self.catch_up(gallery.tenant_id, gallery.gallery_id)
        (held,) = [
            each for each in self.catch_up.held() if each.gallery.gallery_no == gallery.gallery_no
        ]
        assert held.index is not None
        while held.index.upkeep():
            pass
        assert await self.keep_up.take_snapshot(held) is not None
        await self.settle()
        return held

    async def settle(self) -> None:
        await asyncio.gather(*self.copies._tasks.values(), *self.catch_up._tasks.values())

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]


@asynccontextmanager
async def replica(site: Site) -> AsyncIterator[Replica]:
    house = site.house
    with open_hands(site.folder / "snapshots", Policy(seal_faces=64)) as hands:
        copies = CopySnapshots(
            site.store, hands.store, hands.cpu, hands.upkeep, changes=20, least_faces=1
        )
        catch_up = CatchUp(
            house.galleries,
            house.faces,
            hands.cpu,
            hands.upkeep,
            hands.store,
            house.packs,
            copies=copies,
        )
        keep_up = KeepUp(catch_up, hands.store, hands.upkeep, 1 << 30, 300.0, 20, copies)
        assert hands.store.folder is not None
        try:
            yield Replica(catch_up, keep_up, copies, hands.store.folder)
        finally:
            await catch_up.close()
            await copies.close()


async def copies_of(site: Site, gallery: Gallery) -> int:
    return len(await site.store.list_files(f"{gallery.tenant_id}/{gallery.gallery_id}"))


async def test_news_of_a_deletion_end_the_index_its_snapshots_and_their_copies(
    site: Site, house: House, rng: np.random.Generator
) -> None:
    await site.fill(house.gallery, rng, 100)
    async with replica(site) as one:
        await one.snapshot(house.gallery)
        await one.snapshot(house.other_gallery)
        others = await copies_of(site, house.other_gallery)
        assert await copies_of(site, house.gallery)
        await site.delete(house.gallery)
        one.catch_up.hear(house.tenant.tenant_id, DEFAULT_GALLERY)
        await one.settle()
        await one.settle()
        assert [each.gallery.gallery_no for each in one.catch_up.held()] == [
            house.other_gallery.gallery_no
        ]
        assert {path.relative_to(one.folder).parts[0] for path in one.files()} == {
            f"default.{house.other.tenant_id}"
        }
        assert not list(one.folder.glob(f"*.{house.tenant.tenant_id}"))
        assert await copies_of(site, house.gallery) == 0
        assert await copies_of(site, house.other_gallery) == others
        assert one.catch_up.size_bytes == sum(each.size_bytes for each in one.catch_up.held())


async def test_a_snapshot_of_a_gallery_that_is_not_held_goes_too(
    site: Site, house: House, rng: np.random.Generator
) -> None:
    await site.fill(house.gallery, rng, 100)
    async with replica(site) as one:
        one.catch_up.drop(await one.snapshot(house.gallery))
        await site.delete(house.gallery)
        assert one.files()
        await one.catch_up.forget_deleted()
        assert one.files() == []


async def test_a_process_that_was_down_forgets_at_its_start(
    site: Site, house: House, rng: np.random.Generator
) -> None:
    await site.fill(house.gallery, rng, 100)
    async with replica(site) as first, replica(site) as second:
        await first.snapshot(house.gallery)
        await second.snapshot(house.gallery)
        folders = [first.folder, second.folder]
        assert folders[1].parent == folders[0]
    await site.delete(house.gallery)
    # The first process of a machine looks after the folder of the second, which is down.
    async with replica(site) as again:
        running = asyncio.create_task(again.keep_up.run())
        for _ in range(500):
            if not again.files():
                break
            await asyncio.sleep(0.02)
        assert again.files() == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert again.folder == folders[0]


async def test_a_living_process_is_left_to_forget_by_itself(
    site: Site, house: House, rng: np.random.Generator
) -> None:
    await site.fill(house.gallery, rng, 100)
    async with replica(site) as first, replica(site) as second:
        await second.snapshot(house.gallery)
        await site.delete(house.gallery)
        await first.catch_up.forget_deleted()
        assert second.files()
        await second.keep_up.close()
        assert second.files() == []


async def test_the_job_removes_the_copies(
    site: Site, house: House, rng: np.random.Generator
) -> None:
    await site.fill(house.gallery, rng, 100)
    async with replica(site) as one:
        await one.snapshot(house.gallery)
    assert await copies_of(site, house.gallery)
    await site.delete(house.gallery)
    await site.work.run()
    assert await copies_of(site, house.gallery) == 0


async def test_another_gallery_of_the_name_keeps_its_index_and_snapshots(
    site: Site, house: House, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    await site.fill(house.gallery, rng, 100)
    async with replica(site) as one:
        await one.snapshot(house.gallery)
        await site.delete(house.gallery)
        again = await house.galleries.create(
            tenant, DEFAULT_GALLERY, model_pack_no=house.gallery.model_pack_no
        )
        faces = await site.fill(again, rng, 80)
        current = await one.catch_up(tenant, DEFAULT_GALLERY)
        assert len(current.index) == len(faces)
        held = await one.snapshot(again)
        await one.catch_up.forget_deleted()
        await one.settle()
        assert one.catch_up.held() == [held]
        assert {path.relative_to(one.folder).parts[1].split("-")[0] for path in one.files()} == {
            str(again.gallery_no)
        }
        assert one.catch_up.size_bytes == held.size_bytes
        assert await copies_of(site, again)
    async with replica(site) as later:
        current = await later.catch_up(tenant, DEFAULT_GALLERY)
        assert len(current.index) == len(faces)


async def test_files_of_a_tenant_that_is_not_here_are_left_alone(site: Site) -> None:
    identity = Identity(str(uuid4()), "default", 1, "test", "0" * 64, 16)
    async with replica(site) as one:
        kept = one.folder / f"default.{identity.tenant_id}" / "1-test-000000000000"
        kept.mkdir(parents=True)
        (kept / "file").write_bytes(b"another database's")
        await one.catch_up.forget_deleted()
        assert one.files() == [kept / "file"]
