"""Copies of snapshots in the object store: what new replicas begin with, and need not."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from oneton import indexing
from oneton.domain.errors import StoreDownError
from oneton.domain.model import DEFAULT_GALLERY, Changes, Gallery, StoredObject, TenantId
from oneton.domain.watching import NO_WATCH
from oneton.images import SnapshotCopies
from oneton.images.files import FileStore
from oneton.images.s3 import S3Store
from oneton.index.copies import OUTGOING, copy_folder, manifest_name
from oneton.index.manifest import Identity, Manifest, files_of
from oneton.index.merging import Policy
from oneton.index.snapshot import ANCHORS
from oneton.records.database import Database
from oneton.records.faces import Faces
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.model_packs import ModelPacks
from oneton.records.requests import Pictures
from oneton.records.tenants import Tenants
from oneton.settings import read_settings
from oneton.verbs import catch_up as catch_up_module
from oneton.verbs.catch_up import CatchUp, Loaded, _identity
from oneton.verbs.copy_snapshots import CopySnapshots
from oneton.verbs.keep_up import KeepUp
from oneton.verbs.sweep import Sweep
from oneton.verbs.upload_snapshot import OLDEST, UNNAMED_STAYS
from tests.fixtures.objects import S3Server
from tests.records.conftest import DIMENSION, PACK, Hands, House, add, open_hands, unit_rows

if TYPE_CHECKING:
    from oneton.parts import Parts

pytestmark = pytest.mark.anyio

FACES = 150
"""In two segments and a tail, where `first` saw them come."""
CHANGES = 20
LEAST_FACES = 100


class Replica(msgspec.Struct, frozen=True):
    """What one process holds galleries with, in a folder of its own."""

    house: House
    hands: Hands
    catch_up: CatchUp
    keep_up: KeepUp
    copies: CopySnapshots

    async def load(self, tenant: TenantId | None = None) -> int:
        """The number of faces that the index of the default gallery has."""
        current = await self.catch_up(tenant or self.house.tenant.tenant_id, DEFAULT_GALLERY)
        return len(current.index)

    async def seal(self) -> Loaded:
        """Load the gallery, and seal what can be sealed."""
        await self.load()
        (held,) = self.catch_up.held()
        assert held.index is not None
        while held.index.upkeep():
            pass
        return held

    async def take(self) -> Manifest:
        """Take a snapshot, and wait for its copy."""
        manifest = await self.keep_up.take_snapshot(await self.seal())
        assert manifest is not None
        await self.settle()
        return manifest

    async def settle(self) -> None:
        """Wait for what goes on in the background."""
        await asyncio.gather(*self.copies._tasks.values())


@asynccontextmanager
async def replica(house: House, images: SnapshotCopies, folder: Path) -> AsyncIterator[Replica]:
    with open_hands(folder, Policy(seal_faces=64), LEAST_FACES) as hands:
        copies = CopySnapshots(
            images,
            hands.store,
            hands.cpu,
            hands.upkeep,
            changes=CHANGES,
            least_faces=LEAST_FACES,
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
        keep_up = KeepUp(catch_up, hands.store, hands.upkeep, 1 << 30, 300.0, CHANGES, copies)
        try:
            yield Replica(house, hands, catch_up, keep_up, copies)
        finally:
            await catch_up.close()
            await copies.close()


@pytest.fixture
def images(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "images")


@pytest.fixture
async def first(
    house: House, images: FileStore, tmp_path: Path, rng: np.random.Generator
) -> AsyncIterator[Replica]:
    """A replica that has copied the gallery's first faces."""
    async with replica(house, images, tmp_path / "first") as made:
        for count in (70, 70):
            await enroll(house, rng, count)
            await made.seal()
        await enroll(house, rng, FACES - 140)
        assert len((await made.take()).segments) == 2
        yield made


@pytest.fixture(autouse=True)
def every_load_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up_module, "SAID_FACES", 0)


async def enroll(
    house: House, rng: np.random.Generator, count: int, gallery: Gallery | None = None
) -> None:
    for row in unit_rows(rng, count):
        await add(house.faces, gallery or house.gallery, row)


@contextmanager
def heads_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """After which heads Postgres is asked for changes."""
    asked: list[int] = []
    changes = Faces.changes

    def noted(
        self: Faces, tenant: TenantId, gallery: Gallery, since: int, *args: Any, **more: Any
    ) -> AsyncIterator[Changes]:
        asked.append(since)
        return changes(self, tenant, gallery, since, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Faces, "changes", noted)
        yield asked


def copied(tmp_path: Path, pattern: str) -> list[Path]:
    """Files of copies, the newest last."""
    found = [path for path in (tmp_path / "images" / ".snapshots").rglob(pattern) if path.is_file()]
    return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))


def age(path: Path, by: timedelta) -> None:
    then = time.time() - by.total_seconds()
    os.utime(path, (then, then))


def events(logs: list[Any], level: str) -> list[str]:
    return [each["event"] for each in logs if each["log_level"] == level]


async def test_a_new_replica_starts_from_the_copy_and_reads_only_later_faces(
    first: Replica,
    images: FileStore,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await enroll(first.house, rng, 3)
    async with replica(first.house, images, tmp_path / "second") as second:
        with heads_read(monkeypatch) as asked, capture_logs() as logs:
            assert await second.load() == FACES + 3
        assert min(asked) >= FACES - ANCHORS
        (loaded,) = [each for each in logs if each["event"] == "index loaded"]
        assert loaded["from_snapshot"] == FACES
        assert events(logs, "warning") == []
        tenant = first.house.tenant.tenant_id
        probes = unit_rows(rng, 4)
        found = [
            (await each.catch_up(tenant, DEFAULT_GALLERY)).index.search(probes, FACES)
            for each in (first, second)
        ]
        np.testing.assert_array_equal(found[0][1], found[1][1])
        await second.settle()
    assert len(copied(tmp_path, "*.json")) == 1


async def test_a_new_replica_starts_from_a_copy_in_s3(
    house: House, s3_server: S3Server, tmp_path: Path, rng: np.random.Generator
) -> None:
    store = S3Store(
        s3_server.endpoint, s3_server.access_key, s3_server.secret_key, s3_server.bucket
    )
    await enroll(house, rng, FACES)
    async with replica(house, store, tmp_path / "first") as first:
        await first.take()
    async with replica(house, store, tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load() == FACES
        assert [each["from_snapshot"] for each in logs if "from_snapshot" in each] == [FACES]
    await store.close()


async def test_only_segments_that_the_store_lacks_are_sent(
    first: Replica, tmp_path: Path, rng: np.random.Generator
) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied(tmp_path, "*.templates")}
    await enroll(first.house, rng, CHANGES)
    with capture_logs() as logs:
        await first.take()
    assert "snapshot copied" in events(logs, "info")
    after = {path: path.stat().st_mtime_ns for path in copied(tmp_path, "*.templates")}
    assert before.items() <= after.items()
    assert len(copied(tmp_path, "*.json")) == 2


async def test_a_copy_that_is_new_enough_is_left(
    first: Replica, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(first.house, rng, CHANGES - 1)
    await first.take()
    assert len(copied(tmp_path, "*.json")) == 1
    age(copied(tmp_path, "*.json")[0], OLDEST)
    await first.take()
    assert len(copied(tmp_path, "*.json")) == 2


async def test_a_snapshot_from_before_the_setting_is_copied_when_the_gallery_loads(
    house: House, images: FileStore, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, FACES)
    async with replica(house, DeadStore(), tmp_path / "first") as before:
        await before.take()
    async with replica(house, images, tmp_path / "first") as after:
        assert await after.load() == FACES
        await after.settle()
    assert len(copied(tmp_path, "*.json")) == 1


async def test_another_replica_copies_its_own_segments_only_when_the_copy_is_far_behind(
    first: Replica,
    images: FileStore,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with replica(first.house, images, tmp_path / "second") as second:
        # It has read everything from Postgres, as when both were there from the start.
        monkeypatch.setattr(second.copies, "_failed_at_s", time.monotonic())
        await enroll(first.house, rng, CHANGES)
        await second.take()
        assert len(copied(tmp_path, "*.json")) == 1
        await enroll(first.house, rng, CHANGES)
        await second.take()
        assert len(copied(tmp_path, "*.json")) == 2


async def test_a_replica_far_behind_fetches_only_what_it_lacks(
    first: Replica, images: FileStore, tmp_path: Path, rng: np.random.Generator
) -> None:
    async with replica(first.house, images, tmp_path / "second") as second:
        await second.load()
    own = {path.name for path in (tmp_path / "second").rglob("*.codes")}
    await enroll(first.house, rng, 2 * CHANGES)
    manifest = await first.take()
    shared = {f"{meta.name}.codes" for meta in manifest.segments} & own
    assert shared
    for name in shared:
        for path in copied(tmp_path, name):
            path.unlink()
    async with replica(first.house, images, tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load() == FACES + 2 * CHANGES
    assert [each["head"] for each in logs if each["event"] == "snapshot fetched"] == [manifest.head]


async def test_a_small_gallery_never_asks_the_store(
    house: House, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, LEAST_FACES - 1)
    async with replica(house, DeadStore(), tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load() == LEAST_FACES - 1
    assert events(logs, "warning") == []


@pytest.mark.parametrize("pattern", ["*.codes", "*.templates", "*.state"])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "missing"])
async def test_a_damaged_copy_is_said_removed_and_made_again(
    first: Replica,
    images: FileStore,
    tmp_path: Path,
    rng: np.random.Generator,
    pattern: str,
    damage: str,
) -> None:
    path = copied(tmp_path, pattern)[-1]
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(data[:-1])
    else:
        # Of templates a row that is not among the 64 that every opening reads.
        row = min(set(range(70)) - set(np.linspace(0, 69, 64).astype(int)))
        at = row * DIMENSION * 2 if pattern == "*.templates" else len(data) // 2
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    async with replica(first.house, images, tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load() == FACES
        assert events(logs, "warning") == ["a copy of a snapshot is damaged"]
        assert [each["from_snapshot"] for each in logs if "from_snapshot" in each] == [0]
        assert copied(tmp_path, "*.json") == []
        assert not any((tmp_path / "second").rglob("*.incoming/**/*"))
    await enroll(first.house, rng, 1)
    manifest = await first.take()
    async with replica(first.house, images, tmp_path / "third") as third:
        with capture_logs() as logs:
            assert await third.load() == manifest.faces
        assert [each["from_snapshot"] for each in logs if "from_snapshot" in each] == [FACES + 1]


@pytest.mark.parametrize("content", [b"", b'{"format": 99}', b"not JSON at all"])
async def test_a_manifest_that_cannot_be_read_is_left_alone_and_the_one_before_is_used(
    first: Replica, images: FileStore, tmp_path: Path, rng: np.random.Generator, content: bytes
) -> None:
    await enroll(first.house, rng, CHANGES)
    await first.take()
    newest = copied(tmp_path, "*.json")[-1]
    newest.write_bytes(content)
    async with replica(first.house, images, tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load() == FACES + CHANGES
        assert events(logs, "warning") == ["a copy of a snapshot is left alone"]
        assert [each["from_snapshot"] for each in logs if "from_snapshot" in each] == [FACES]
        await second.settle()
    assert newest.read_bytes() == content


async def test_a_copy_without_its_manifest_does_not_count(
    first: Replica, images: FileStore, tmp_path: Path
) -> None:
    for path in copied(tmp_path, "*.json"):
        path.unlink()
    async with replica(first.house, images, tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load() == FACES
    assert [each["from_snapshot"] for each in logs if "from_snapshot" in each] == [0]
    assert events(logs, "warning") == []


class DeadStore:
    """A SnapshotCopies that is down."""

    async def put_file(self, key: str, path: Path) -> None:
        raise StoreDownError(f"no room for {key} of {path}")

    async def get_file(self, key: str, path: Path) -> None:
        raise StoreDownError(f"no {key} for {path}")

    async def delete_file(self, key: str) -> None:
        raise StoreDownError(f"no {key}")

    async def list_files(self, folder: str) -> tuple[StoredObject, ...]:
        raise StoreDownError(f"no {folder}")


class SilentStore(DeadStore):
    """One that never answers."""

    async def list_files(self, folder: str) -> tuple[StoredObject, ...]:
        await asyncio.Event().wait()
        return await super().list_files(folder)


@pytest.mark.parametrize("store", [DeadStore(), SilentStore()], ids=["dead", "silent"])
async def test_a_store_that_is_down_keeps_no_gallery_from_loading_and_is_said_once(
    house: House,
    tmp_path: Path,
    rng: np.random.Generator,
    store: SnapshotCopies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("oneton.verbs.download_snapshot.LOOK_S", 0.1)
    await enroll(house, rng, FACES)
    async with replica(house, store, tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load() == FACES
            (held,) = second.catch_up.held()
            assert await second.keep_up.take_snapshot(held)
            if isinstance(store, SilentStore):
                await second.copies.close()
            else:
                await second.settle()
        assert len(events(logs, "warning")) == 1
        assert "snapshot taken" in events(logs, "info")


async def test_close_gives_up_an_upload_at_once_and_it_does_not_count(
    house: House, images: FileStore, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, FACES)
    slow = SlowStore(images, 2)
    async with replica(house, slow, tmp_path / "first") as first:
        held = await first.seal()
        await first.keep_up.take_snapshot(held)
        async with asyncio.timeout(5):
            await slow.reached.wait()
        # The gallery is answered for meanwhile.
        assert await first.load() == FACES
        await first.copies.close()
        assert await first.keep_up.take_snapshot(held)
        assert first.copies._tasks == {}
        assert not list((tmp_path / "first").rglob(OUTGOING))
    assert copied(tmp_path, "*.json") == []
    assert copied(tmp_path, "*") != []


class SlowStore:
    """A SnapshotCopies that stops at a file, counted from 1, for ever."""

    def __init__(self, images: FileStore, stops_at: int) -> None:
        self._images = images
        self._left = stops_at
        self.reached = asyncio.Event()
        self.get_file = images.get_file
        self.delete_file = images.delete_file
        self.list_files = images.list_files

    async def put_file(self, key: str, path: Path) -> None:
        self._left -= 1
        if self._left == 0:
            self.reached.set()
            await asyncio.Event().wait()
        await self._images.put_file(key, path)


async def test_files_stay_while_they_are_copied(
    house: House, images: FileStore, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, FACES)
    gate = GatedStore(images)
    async with replica(house, gate, tmp_path / "first") as first:
        manifest = await first.keep_up.take_snapshot(await first.seal())
        assert manifest
        async with asyncio.timeout(5):
            await gate.reached.wait()
        gallery = next((tmp_path / "first").rglob("*.json")).parent
        for name in files_of(manifest):
            (gallery / name).unlink()
        gate.open.set()
        await first.settle()
    folder = tmp_path / "images" / ".snapshots" / copy_folder(manifest.identity)
    assert all((folder / name).exists() for name in files_of(manifest))
    assert (folder / manifest_name(manifest)).exists()


class GatedStore:
    """A SnapshotCopies that takes no file until its gate is open."""

    def __init__(self, images: FileStore) -> None:
        self._images = images
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.get_file = images.get_file
        self.delete_file = images.delete_file
        self.list_files = images.list_files

    async def put_file(self, key: str, path: Path) -> None:
        self.reached.set()
        await self.open.wait()
        await self._images.put_file(key, path)


async def test_old_copies_are_removed_and_young_files_without_a_manifest_are_not(
    first: Replica, tmp_path: Path, rng: np.random.Generator
) -> None:
    (oldest,) = copied(tmp_path, "*.json")
    segments = oldest.parent / "segments"
    young, old = segments / "young.codes", segments / "old.codes"
    for path in (young, old):
        path.write_bytes(b"of an upload that goes on, or was given up")
    age(old, UNNAMED_STAYS + timedelta(minutes=1))
    taken = []
    for _ in range(3):
        await enroll(first.house, rng, CHANGES)
        taken.append(await first.take())
        for path in copied(tmp_path, "*"):
            if path != young:
                age(path, timedelta(hours=2 - len(taken) / 2))
    assert {path.name for path in copied(tmp_path, "*.json")} == set(map(manifest_name, taken[1:]))
    assert young.exists()
    assert not old.exists()
    folder = oldest.parent
    for manifest in taken[1:]:
        assert all((folder / name).exists() for name in files_of(manifest))
    assert not (folder / oldest.name.replace(".json", ".state")).exists()


async def test_the_sweeper_neither_removes_nor_counts_copies(
    first: Replica, images: FileStore, database: Database, tmp_path: Path
) -> None:
    before = copied(tmp_path, "*")
    assert before
    for path in before:
        age(path, timedelta(days=365))
    house = first.house
    pictures, jobs = Pictures(database), JobsOfTenants(database)
    sweep = Sweep(Tenants(database), house.galleries, house.faces, pictures, jobs, images)
    report = await sweep(timedelta(0))
    assert (report.objects, report.foreign, report.leftovers, report.deleted) == (0, 0, [], 0)
    assert copied(tmp_path, "*") == before


async def test_a_copy_that_postgres_disagrees_with_is_removed(
    first: Replica, images: FileStore, database: Database, tmp_path: Path
) -> None:
    tenant = first.house.tenant.tenant_id
    async with database.transaction(tenant) as connection:
        # As after a restore: rows are gone, and no head says so.
        await connection.execute("delete from template")
        await connection.execute(
            """update face set removed_at_head = added_at_head, face_id = null,
                 image_content_type = null, created_at = null"""
        )
    async with replica(first.house, images, tmp_path / "second") as second:
        assert await second.load() == 0
        await second.settle()
    assert copied(tmp_path, "*.json") == []


async def test_copies_past_the_head_of_a_restored_postgres_are_neither_used_nor_in_the_way(
    first: Replica, images: FileStore, tmp_path: Path
) -> None:
    (newest,) = copied(tmp_path, "*.json")
    for times in (8, 9):
        ahead = newest.name.replace(f"{FACES:019d}", f"{FACES * times:019d}")
        shutil.copy2(newest, newest.with_name(ahead))
        age(newest.with_name(ahead), timedelta(minutes=1))
    newest.unlink()
    async with replica(first.house, images, tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load() == FACES
        assert [each["from_snapshot"] for each in logs if "from_snapshot" in each] == [0]
        assert events(logs, "warning") == []
        await second.take()
    assert f"{FACES:019d}" in copied(tmp_path, "*.json")[-1].name


async def test_a_tenants_copies_are_its_own(
    first: Replica, images: FileStore, tmp_path: Path, rng: np.random.Generator
) -> None:
    house = first.house
    tenant, other = house.tenant.tenant_id, house.other.tenant_id
    identity = _identity(house.other_gallery, PACK)
    assert all(str(tenant) in str(path) for path in copied(tmp_path, "*"))
    await enroll(house, rng, FACES, house.other_gallery)
    # Even files that were moved are not taken for another tenant's.
    ours = tmp_path / "images" / ".snapshots" / copy_folder(_identity(house.gallery, PACK))
    theirs = tmp_path / "images" / ".snapshots" / copy_folder(identity)
    theirs.parent.mkdir(parents=True)
    os.rename(ours, theirs)
    async with replica(house, images, tmp_path / "second") as second:
        with capture_logs() as logs:
            assert await second.load(other) == FACES + 3
        assert [each["from_snapshot"] for each in logs if "from_snapshot" in each] == [0]
        assert events(logs, "warning") == ["a copy of a snapshot is left alone"]


def test_keys_tell_tenants_galleries_and_packs_apart() -> None:
    one = Identity(str(UUID(int=1)), "default", 1, "buffalo/../sc", "a" * 64, 512)
    others = [
        msgspec.structs.replace(one, **change)
        for change in (
            {"tenant_id": str(UUID(int=2))},
            {"gallery_id": "defaults"},
            {"model_pack": "buffalo_l"},
            {"model_sha256": "b" * 64},
        )
    ]
    folders = [f"{copy_folder(each)}/" for each in (one, *others)]
    assert len(set(folders)) == 5
    for folder in folders:
        assert folder.count("/") == 3
        assert "/." not in folder
        assert not any(folder.startswith(each) for each in folders if each != folder)


async def test_the_setting_turns_copies_on_and_off(
    house: House,
    database: Database,
    images: FileStore,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await enroll(house, rng, FACES)

    async def find_pack(*_: object) -> None:
        """No models here."""

    monkeypatch.setattr(indexing, "open_find_pack", find_pack)
    parts = SimpleNamespace(
        images=images,
        galleries=house.galleries,
        faces=house.faces,
        model_packs=ModelPacks(database),
        watch=NO_WATCH,
    )
    for given, copies in (({}, 0), ({"ONETON_SNAPSHOT_COPY": "true"}, 1)):
        folder = tmp_path / f"index-{copies}"
        settings = read_settings(
            {"ONETON_INDEX_DIR": str(folder), "ONETON_SNAPSHOT_LEAST_FACES": "1", **given}
        )
        async with indexing.open_indexes(settings, cast("Parts", parts)) as opened:
            await opened.catch_up(house.tenant.tenant_id, DEFAULT_GALLERY)
            (held,) = opened.catch_up.held()
            assert await opened.keep_up.take_snapshot(held)
            if opened.keep_up.copies is not None:
                await asyncio.gather(*opened.keep_up.copies._tasks.values())
        assert len(copied(tmp_path, "*.json")) == copies
