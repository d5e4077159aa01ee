"""Backups of a database and a store that are written to, and what is restored from them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from uuid import uuid4

import asyncpg
import msgspec
import numpy as np
import pytest
from cryptography.fernet import Fernet
from uuid_utils.compat import uuid7

from oneton.domain.backups import Absence, Backup, Restored, RestoreMark
from oneton.domain.errors import ConflictError, NotFoundError, OnetonError, SettingError
from oneton.domain.model import DEFAULT_GALLERY, FaceId, TenantId, image_key
from oneton.domain.requests import PICTURES, PictureId, StoredPicture
from oneton.images import ImageStore
from oneton.images.encrypted import EncryptedStore
from oneton.images.files import FileStore
from oneton.images.s3 import S3Store
from oneton.records.database import Database
from oneton.records.dumps import login_of
from oneton.records.encryption import Encryption
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.idempotency import Idempotency
from oneton.records.migrate import MIGRATIONS
from oneton.records.model_packs import ModelPacks
from oneton.records.reindexing import Reindexing
from oneton.records.requests import Pictures
from oneton.records.tenant_keys import TenantKeys, Wrapping
from oneton.records.tenants import Tenants
from oneton.records.whole_database import OwnedDatabase
from oneton.verbs import create_backup
from oneton.verbs.backup_folder import DUMP, LIST, MANIFEST, BackupFolder, file_sum
from oneton.verbs.create_backup import CreateBackup
from oneton.verbs.erase import Erase
from oneton.verbs.purge import Purge
from oneton.verbs.restore_backup import RestoreBackup
from oneton.verbs.verify_backup import VerifyBackup
from tests.fixtures.objects import S3Server
from tests.fixtures.postgres import Dsns, PostgresServer
from tests.records.conftest import PACK, House, unit_rows
from tests.records.processes import enroll, process

pytestmark = pytest.mark.anyio

FACES = int(os.environ.get("ONETON_TEST_BACKUP_FACES", "60"))
"""How many there are before the backup under load."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Nobody watches."""


class Site(msgspec.Struct, frozen=True):
    """A system that is backed up."""

    house: House
    dsns: Dsns
    database: Database
    store: FileStore
    folder: Path

    async def enroll(self, rng: np.random.Generator) -> FaceId:
        """Add a face with an image: the image first, as everywhere."""
        face_id = FaceId(uuid7())
        await self.store.put(self.key(face_id), photo(str(face_id)), "image/jpeg")
        async with self.house.faces.locked(self.tenant, self.house.gallery) as locked:
            await locked.add(
                face_id, unit_rows(rng, 1)[0], content_type="image/jpeg", idempotency_key=None
            )
        return face_id

    @property
    def tenant(self) -> TenantId:
        return self.house.tenant.tenant_id

    def key(self, face_id: FaceId) -> str:
        return image_key(self.tenant, DEFAULT_GALLERY, face_id)

    async def add_picture(self) -> str:
        """Keep a picture that is of no face."""
        picture = StoredPicture(PictureId(uuid4()), self.tenant, "image/jpeg", "")
        key = f"{self.tenant}/{PICTURES}/{picture.picture_id}"
        await self.store.put(key, photo(key), "image/jpeg")
        await Pictures(self.database).add(picture, None)
        return key

    def erase(self) -> Erase:
        return Erase(self.house.faces, self.store)

    def purge(self) -> Purge:
        house = self.house
        return Purge(
            house.galleries,
            house.faces,
            self.store,
            Reindexing(self.database),
            Idempotency(self.database),
        )

    async def create(
        self, name: str = "backup", store: ImageStore | None = None, **options: object
    ) -> tuple[Path, Backup]:
        path = self.folder / name
        create = CreateBackup(self.dsns.owner, store or self.store, silent)
        return path, await create(path, **options)  # type: ignore[arg-type]  # its own options


def photo(of: str) -> bytes:
    return b"\xff\xd8\xff photo of " + of.encode()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_backup, "SETTLE_S", 0.05)


@pytest.fixture
async def site(
    house: House, dsns: Dsns, database: Database, tmp_path: Path, rng: np.random.Generator
) -> Site:
    """Two tenants; one has twelve faces, one of them erased and one purged, and a picture."""
    store = FileStore(tmp_path / "images")
    for face in await house.faces.page(house.other.tenant_id, house.other_gallery, None, 10):
        await store.put(face.image_key, photo(str(face.face_id)), "image/jpeg")
    made = Site(house, dsns, database, store, tmp_path)
    faces = [await made.enroll(rng) for _ in range(12)]
    await made.erase()(made.tenant, faces[3])
    await made.purge()(made.tenant, faces[5])
    await made.add_picture()
    return made


@pytest.fixture
async def empty(postgres: PostgresServer) -> AsyncIterator[Dsns]:
    """A database without anything in it."""
    name = f"oneton_empty_{uuid4().hex[:8]}"
    await postgres.run(f"create database {name}")
    yield postgres.database(name)
    await postgres.drop(name)


async def restore_into(
    empty: Dsns, path: Path, store: ImageStore, *, again: bool = False
) -> Restored:
    return await RestoreBackup(empty.owner, store, silent)(path, again=again)


async def verify(path: Path) -> list[str]:
    return await VerifyBackup(silent)(path)


async def keys(store: ImageStore) -> set[str]:
    return {each.key async for each in store.list()}


async def test_a_backup_is_restored_as_it_was(site: Site, empty: Dsns, tmp_path: Path) -> None:
    path, made = await site.create()
    assert (made.objects.objects, made.objects.erased, made.objects.missing) == (14, 0, 0)
    assert await verify(path) == []
    store = FileStore(tmp_path / "restored")
    restored = await restore_into(empty, path, store)
    assert restored.wrong == []
    assert (restored.objects, restored.galleries) == (14, 2)
    assert await keys(store) == await keys(site.store)
    database = await Database.connect(empty.app, size=2)
    try:
        tenants = await Tenants(database).list()
        assert [each.name for each in tenants] == ["one", "other"]
        gallery = await Galleries(database).read(site.tenant, DEFAULT_GALLERY)
        assert gallery.head == 13
        assert await database.fetch("select 1 from face") == [], "policies hold"
        assert await ModelPacks(database).number(PACK) == gallery.model_pack_no
        other = site.house.other.tenant_id
        async with database.transaction(other) as connection:
            assert await connection.fetchval("select count(*) from face") == 3
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("drop table face")
    finally:
        await database.close()


async def test_a_restored_database_gives_new_faces_new_numbers(
    site: Site, empty: Dsns, tmp_path: Path, rng: np.random.Generator
) -> None:
    path, _ = await site.create()
    store = FileStore(tmp_path / "restored")
    await restore_into(empty, path, store)
    database = await Database.connect(empty.app, size=2)
    try:
        there = await there_again(site, database, store)
        before = await there.house.galleries.read(site.tenant, DEFAULT_GALLERY)
        added = await there.house.faces.find(site.tenant, await there.enroll(rng))
        after = await there.house.galleries.read(site.tenant, DEFAULT_GALLERY)
        assert after.head == before.head + 1
        rows = await database.fetch("select version from schema_migrations")
        assert sorted(row["version"] for row in rows) == _known()
        assert added.face_no > 15
    finally:
        await database.close()


def _known() -> list[str]:
    return sorted(each.name.split("_")[0] for each in MIGRATIONS.glob("*.sql"))


async def there_again(site: Site, database: Database, store: FileStore) -> Site:
    """The site, over a restored database."""
    galleries = Galleries(database)
    house = msgspec.structs.replace(
        site.house,
        faces=Faces(database),
        galleries=galleries,
        packs=ModelPacks(database),
        gallery=await galleries.read(site.tenant, DEFAULT_GALLERY),
    )
    return msgspec.structs.replace(site, house=house, database=database, store=store)


async def test_a_backup_while_faces_come_and_go_is_of_one_moment(
    site: Site, empty: Dsns, tmp_path: Path, rng: np.random.Generator
) -> None:
    faces = [await site.enroll(rng) for _ in range(FACES)]
    going, done, started = True, 0, asyncio.Event()
    random = Random(1)

    async def change() -> None:
        nonlocal done
        while going:
            await site.enroll(rng)
            face = faces.pop(random.randrange(len(faces)))
            await (site.erase() if done % 2 else site.purge())(site.tenant, face)
            done += 1
            if done == 3:
                started.set()

    changing = asyncio.create_task(change())
    try:
        async with asyncio.timeout(20):
            await started.wait()
        before = done
        path, made = await site.create(store=Slow(tmp_path / "images"))
        assert done > before, "nobody waited for the backup"
    finally:
        going = False
        await changing
    assert made.objects.missing == 0
    assert made.objects.erased > 0
    assert await verify(path) == []
    restored = await restore_into(empty, path, store := FileStore(tmp_path / "restored"))
    assert (restored.wrong, restored.erased) == ([], made.objects.erased)
    listed = {each.key: each for each in BackupFolder(path).listed()}
    named = set[str]()
    async with OwnedDatabase.connect(empty.owner) as owner, owner.snapshot():
        named = {key async for key in owner.named_objects()}
    assert named == await keys(store) == {k for k, each in listed.items() if each.absent is None}


class Slow(FileStore):
    """Gives faces time to go between the rows and their images."""

    async def get(self, key: str) -> tuple[bytes, str]:
        await asyncio.sleep(0.02)
        return await super().get(key)


async def test_a_row_whose_image_is_lost_is_told_from_one_that_was_erased(
    site: Site, rng: np.random.Generator
) -> None:
    lost, erased = await site.enroll(rng), await site.enroll(rng)
    await site.store.delete(site.key(lost))

    class Erasing(FileStore):
        """An image is erased after the rows were read."""

        async def get(self, key: str) -> tuple[bytes, str]:
            if key == site.key(erased):
                await site.erase()(site.tenant, erased)
            return await super().get(key)

    path, made = await site.create(store=Erasing(site.folder / "images"))
    assert (made.objects.erased, made.objects.missing) == (1, 1)
    listed = {each.key: each.absent for each in BackupFolder(path).listed()}
    assert listed[site.key(lost)] is Absence.MISSING
    assert listed[site.key(erased)] is Absence.ERASED
    assert await verify(path) == []


class Changing(FileStore):
    """Keys are changed after the rows were read, and what is there is sealed anew."""

    change: Callable[[], Awaitable[None]] | None = None

    async def get(self, key: str) -> tuple[bytes, str]:
        if (change := self.change) is not None:
            self.change = None
            await change()
        return await super().get(key)


class Sealed(msgspec.Struct, frozen=True):
    """The site's keys, and its store with something that happens during a backup."""

    site: Site
    keys: TenantKeys
    encryption: Encryption
    store: Changing

    async def seal_anew(self) -> None:
        """As a worker does with what is there."""
        images = EncryptedStore(self.store, self.keys)
        for key in await keys(self.store):
            await images.seal_anew(key)

    async def begin(self, rotate: bool) -> None:
        await self.encryption.begin(self.site.tenant, rotate=rotate, actor="test")
        await self.seal_anew()


@pytest.fixture
def sealed(site: Site) -> Sealed:
    wrapping = Wrapping(Fernet.generate_key().decode())
    tenant_keys = TenantKeys(site.database, wrapping)
    encryption = Encryption(site.database, tenant_keys, wrapping)
    return Sealed(site, tenant_keys, encryption, Changing(site.folder / "images"))


@pytest.mark.parametrize("rotate", [True, False])
async def test_nobody_begins_to_encrypt_anew_during_a_backup(
    site: Site, sealed: Sealed, rotate: bool
) -> None:
    async def change() -> None:
        with pytest.raises(ConflictError, match="a backup is being created"):
            await sealed.begin(rotate)
        # That has made a first key, of which nothing is sealed anew. Another backup may be made.
        await site.create("beside")

    sealed.store.change = change
    path, _ = await site.create("backup", sealed.store)

    assert await verify(path) == []
    await sealed.begin(rotate)


@pytest.mark.parametrize("copy_objects", [True, False])
@pytest.mark.parametrize("rotate", [True, False])
async def test_a_backup_whose_keys_changed_all_the_same_fails(
    site: Site, sealed: Sealed, monkeypatch: pytest.MonkeyPatch, rotate: bool, copy_objects: bool
) -> None:
    if rotate:
        await sealed.keys.ring(site.tenant)
    # As when the connection with the lock was lost.
    monkeypatch.setattr(OwnedDatabase, "hold_keys", _nothing)
    sealed.store.change = partial(sealed.begin, rotate)

    with pytest.raises(ConflictError, match="run it again"):
        await site.create("bad", sealed.store, copy_objects=copy_objects)

    assert not list(site.folder.glob("bad*"))
    path, _ = await site.create("again", sealed.store, copy_objects=copy_objects)
    assert await verify(path) == []


async def _nothing(_: OwnedDatabase) -> None:
    """No lock is taken."""


async def test_a_backup_with_an_object_of_a_key_that_it_lacks_fails(
    site: Site, sealed: Sealed
) -> None:
    sealed.store.change = sealed.seal_anew
    with pytest.raises(ConflictError, match="run it again"):
        await site.create("bad", sealed.store)
    assert not list(site.folder.glob("bad*"))


def cut_dump(path: Path) -> None:
    data = (path / DUMP).read_bytes()
    (path / DUMP).write_bytes(data[:-100])


def change_manifest(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    manifest = json.loads((path / MANIFEST).read_bytes())
    change(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


def sum_anew(path: Path) -> None:
    """The list's checksum is right again: somebody who knows the format changed it."""
    said = file_sum(path / LIST)
    change_manifest(
        path,
        lambda each: each["files"].update({LIST: msgspec.to_builtins(said)}),  # type: ignore[attr-defined]
    )


def drop_line(path: Path) -> None:
    lines = (path / LIST).read_bytes().splitlines(keepends=True)
    (path / LIST).write_bytes(b"".join(lines[1:]))
    sum_anew(path)


def an_object(path: Path) -> Path:
    return next(each for each in path.glob("objects/*/*/*"))


def fewer_rows(path: Path) -> None:
    def change(manifest: dict[str, object]) -> None:
        manifest["rows"]["tables"]["face"]["rows"] = 1  # type: ignore[index]

    change_manifest(path, change)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a dump that ends too soon": (cut_dump, "database.dump: not what was written"),
    "no dump": (lambda path: (path / DUMP).unlink(), "database.dump: No such file"),
    "an object of other bytes": (
        lambda path: an_object(path).write_bytes(b"other"),
        "not what was written",
    ),
    "an object that is gone": (lambda path: an_object(path).unlink(), "No such file"),
    "a list that lacks an image": (drop_line, "1 images that rows name are not in"),
    "other counts": (fewer_rows, "table face: 15 rows in the dump, 1 in the manifest"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_verify_finds(site: Site, damage: str) -> None:
    path, _ = await site.create()
    inject, said = DAMAGES[damage]
    inject(path)
    found = await verify(path)
    assert any(said in line for line in found), found
    assert all("\n" not in line for line in found)


async def test_a_damaged_object_is_not_restored_and_the_restore_can_begin_anew(
    site: Site, empty: Dsns, tmp_path: Path
) -> None:
    path, _ = await site.create()
    damaged = an_object(path)
    good = damaged.read_bytes()
    damaged.write_bytes(b"other")
    store = FileStore(tmp_path / "restored")
    with pytest.raises(OnetonError, match="the backup is damaged: object"):
        await restore_into(empty, path, store)
    damaged.write_bytes(good)
    with pytest.raises(ConflictError, match="interrupted here: begin anew with --again"):
        await restore_into(empty, path, store)
    assert (await restore_into(empty, path, store, again=True)).wrong == []
    assert await keys(store) == await keys(site.store)


async def test_a_restore_that_ended_after_its_rows_begins_anew(
    site: Site, empty: Dsns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = await site.create()
    store = FileStore(tmp_path / "restored")

    async def crash(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OwnedDatabase, "note_erased", crash)
        with pytest.raises(KeyboardInterrupt):
            await restore_into(empty, path, store)
    async with OwnedDatabase.connect(empty.owner) as owner:
        assert isinstance(await owner.read_mark(), RestoreMark)
        assert await owner.occupants() == "2 tenants"
    assert (await restore_into(empty, path, store, again=True)).wrong == []
    async with OwnedDatabase.connect(empty.owner) as owner:
        assert await owner.read_mark() is None


async def test_nothing_is_restored_over_tenants_or_objects_or_strangers(
    site: Site, dsns: Dsns, empty: Dsns, tmp_path: Path
) -> None:
    path, _ = await site.create()
    with pytest.raises(ConflictError, match="other connections"):
        await restore_into(dsns, path, FileStore(tmp_path / "restored"))
    await site.database.close()
    with pytest.raises(ConflictError, match="not empty: 2 tenants"):
        await restore_into(dsns, path, FileStore(tmp_path / "restored"))
    with pytest.raises(ConflictError, match="the object store is not empty"):
        await restore_into(empty, path, site.store)
    with pytest.raises(ConflictError, match="no restore was interrupted"):
        await restore_into(empty, path, FileStore(tmp_path / "restored"), again=True)
    connection = await asyncpg.connect(empty.owner)
    await connection.execute("create table precious (id int)")
    await connection.close()
    with pytest.raises(ConflictError, match="a table that is not oneton's: precious"):
        await restore_into(empty, path, FileStore(tmp_path / "restored"))


async def test_a_folder_with_anything_in_it_is_refused_and_a_failure_leaves_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.folder / "full").mkdir()
    (site.folder / "full" / "note").write_text("mine")
    with pytest.raises(ConflictError, match="not an empty folder"):
        await site.create("full")

    class Broken(FileStore):
        async def get(self, key: str) -> tuple[bytes, str]:
            raise OnetonError(f"broken: {key}")

    with pytest.raises(OnetonError, match="broken"):
        await site.create("never", store=Broken(site.folder / "images"))
    assert not [each for each in site.folder.iterdir() if each.name.startswith("never")]
    with pytest.raises(NotFoundError):
        await verify(site.folder / "never")


async def test_an_incremental_backup_shares_what_is_the_same(
    site: Site, rng: np.random.Generator
) -> None:
    old, _ = await site.create("old")
    added = await site.enroll(rng)
    new, made = await site.create("new", incremental_from=old)
    assert made.objects.objects == 15
    assert await verify(new) == []
    shared = {each.stat().st_nlink for each in old.glob("objects/*/*/*")}
    assert shared == {2}
    assert BackupFolder(new).object(site.key(added)).stat().st_nlink == 1
    damaged = an_object(old)
    damaged.unlink()
    damaged.write_bytes(b"other")
    third, _ = await site.create("third", incremental_from=old)
    assert await verify(third) == []


async def test_a_backup_without_objects_needs_them_in_the_store(
    site: Site, empty: Dsns, rng: np.random.Generator
) -> None:
    path, made = await site.create(copy_objects=False)
    assert (made.objects.copied, made.objects.objects) == (False, 14)
    assert not (path / "objects").exists()
    assert await verify(path) == []
    lost = min(await keys(site.store))
    data, _ = await site.store.get(lost)
    await site.store.delete(lost)
    assert (await restore_into(empty, path, site.store)).wrong == [
        f"object {lost}: not in the store"
    ]
    await site.store.put(lost, data, "image/jpeg")
    assert (await restore_into(empty, path, site.store, again=True)).wrong == []


async def test_a_backup_goes_from_files_to_s3_with_content_types(
    site: Site, empty: Dsns, s3_server: S3Server
) -> None:
    path, _ = await site.create()
    store = S3Store(
        s3_server.endpoint,
        s3_server.access_key,
        s3_server.secret_key,
        f"oneton-{uuid4().hex[:12]}",
    )
    assert (await restore_into(empty, path, store)).wrong == []
    for key in await keys(site.store):
        assert await store.get(key) == await site.store.get(key)
    await store.close()


async def test_nobody_but_its_owner_reads_a_backup(site: Site) -> None:
    path, _ = await site.create()
    for each in [path, *path.rglob("*")]:
        assert each.stat().st_mode & 0o077 == 0, each


async def test_a_snapshot_of_what_a_restore_lost_is_not_answered_from(
    site: Site, empty: Dsns, tmp_path: Path, rng: np.random.Generator
) -> None:
    path, _ = await site.create()
    await enroll(site.house, rng, 70)
    async with process(site.house, tmp_path / "snapshots") as here:
        assert await here.take()
    await restore_into(empty, path, store := FileStore(tmp_path / "restored"))
    database = await Database.connect(empty.app, size=4)
    try:
        there = await there_again(site, database, store)
        await enroll(there.house, rng, 75)
        async with process(there.house, tmp_path / "snapshots") as here:
            assert await here.answers() == 0
            assert here.held().snapshot_head == 0
    finally:
        await database.close()


async def test_an_owner_that_is_no_superuser_restores_too(
    site: Site, postgres: PostgresServer, tmp_path: Path
) -> None:
    path, _ = await site.create()
    name = f"oneton_owned_{uuid4().hex[:8]}"
    await postgres.run(f"create role {name} login; grant oneton_app to {name}")
    await postgres.run(f"create database {name} owner {name}")
    owned = postgres.database(name)
    dsns = Dsns(owned.owner.replace("//postgres@", f"//{name}@"), owned.app)
    try:
        store = FileStore(tmp_path / "restored")
        assert (await restore_into(dsns, path, store)).wrong == []
        for row in await owned_tables(dsns):
            assert row["owner"] == name
    finally:
        await postgres.drop(name)
        await postgres.run(f"drop role {name}")


async def owned_tables(dsns: Dsns) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsns.owner)
    try:
        return await connection.fetch(
            "select tableowner as owner from pg_tables where schemaname = 'public'"
        )
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("dsn", "url", "password"),
    [
        ("postgresql://u:p%40ss@h:5/db", "postgresql://u@h:5/db", "p@ss"),
        (
            "postgresql://u@h/db?password=x&sslmode=require",
            "postgresql://u@h/db?sslmode=require",
            "x",
        ),
        ("postgresql://u@/db?host=%2Frun%2Fpg", "postgresql://u@/db?host=%2Frun%2Fpg", None),
        ("postgresql:///db?host=%2Frun", "postgresql:///db?host=%2Frun", None),
        (
            "postgresql://u@h/db?options=-c%20role%3Dx&password=a%20b",
            "postgresql://u@h/db?options=-c%20role%3Dx",
            "a b",
        ),
    ],
)
def test_a_password_is_in_no_argument(dsn: str, url: str, password: str | None) -> None:
    arguments, environ = login_of(dsn)
    assert list(arguments) == [f"--dbname={url}"]
    assert environ.get("PGPASSWORD") == password


def test_an_address_with_a_secret_that_would_be_an_argument_is_refused() -> None:
    with pytest.raises(SettingError, match="sslpassword"):
        login_of("postgresql://u@h/db?sslkey=k&sslpassword=secret")
