"""Templates and images under a tenant's key: mixed with plain ones, rotated, destroyed."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import numpy as np
import pytest
from cryptography.fernet import Fernet
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.domain.errors import (
    ConflictError,
    KeyDestroyedError,
    NotFoundError,
    SealBrokenError,
    SettingError,
)
from oneton.domain.model import FaceId, Gallery, TenantId, image_key
from oneton.images.encrypted import EncryptedStore, key_number
from oneton.images.files import FileStore
from oneton.images.scratch import FOLDER, scratch_file
from oneton.records.database import Database
from oneton.records.encryption import Encryption, Run
from oneton.records.locks import Locks
from oneton.records.template_seals import TemplateSeals, refuse_keys
from oneton.records.templates import encode_template, is_sealed, number_of
from oneton.records.tenant_keys import TenantKeys, Wrapping, check_master_key
from oneton.verbs.manage_encryption import ManageEncryption
from oneton.verbs.seal_anew import LEFTOVERS_A_PAGE, SealAnew
from tests.fixtures.postgres import Dsns
from tests.records.conftest import DIMENSION, Hands, House, add, make_catch_up, unit_rows

pytestmark = pytest.mark.anyio

MASTER = Fernet.generate_key().decode()
JPEG = b"\xff\xd8\xff\xe0 a JPEG of somebody"


class Vault(msgspec.Struct, frozen=True):
    """A house whose data is encrypted, as one process has it."""

    house: House
    database: Database
    keys: TenantKeys
    encryption: Encryption
    objects: FileStore
    images: EncryptedStore
    folder: Path

    @property
    def tenant(self) -> TenantId:
        return self.house.tenant.tenant_id

    async def gallery(self) -> Gallery:
        return await self.house.galleries.read(self.tenant, self.house.gallery.gallery_id)

    async def enroll(self, row: NDArray[np.float32]) -> FaceId:
        """A face with its image, image first."""
        face_id = FaceId(uuid4())
        await self.images.put(self.key_of(face_id), JPEG, "image/jpeg")
        async with self.house.faces.locked(self.tenant, self.house.gallery) as locked:
            await locked.add(face_id, row, content_type="image/jpeg", idempotency_key=None)
        return face_id

    def key_of(self, face_id: FaceId) -> str:
        return image_key(self.tenant, self.house.gallery.gallery_id, face_id)

    def seal_anew(self, settle_s: float = 0.0) -> SealAnew:
        return SealAnew(
            self.encryption,
            self.keys,
            self.images,
            Locks(self.database),
            self.folder / "scratch",
            settle_s,
        )

    async def finish(self, *, rotate: bool) -> Run:
        """Seal everything anew; returns what came of it."""
        await self.encryption.begin(self.tenant, rotate=rotate, actor="test")
        await self.seal_anew().run()
        run = await self.encryption.newest_run(self.tenant)
        assert run is not None
        return run

    async def embeddings(self) -> NDArray[np.float32]:
        gallery = await self.gallery()
        changes = self.house.faces.changes(self.tenant, gallery, 0, DIMENSION)
        return np.concatenate([each.added_embeddings async for each in changes])

    async def manage(self) -> ManageEncryption:
        return ManageEncryption(self.encryption, self.objects, self.folder / "snapshots")


@pytest.fixture
def objects(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "images")


def turn_on(
    house: House, database: Database, objects: FileStore, folder: Path, master: str = MASTER
) -> Vault:
    wrapping = Wrapping(master)
    keys = TenantKeys(database, wrapping)
    database.seals = TemplateSeals(keys)
    images = EncryptedStore(objects, keys)
    return Vault(
        house, database, keys, Encryption(database, keys, wrapping), objects, images, folder
    )


@pytest.fixture
def vault(house: House, database: Database, objects: FileStore, tmp_path: Path) -> Vault:
    return turn_on(house, database, objects, tmp_path)


async def stored(dsns: Dsns, tenant: TenantId) -> list[bytes]:
    """Templates as their rows have them."""
    rows = await as_owner(
        dsns, "select embedding from template where tenant_id = $1 order by face_no", tenant
    )
    return [bytes(row[0]) for row in rows]


async def as_owner(dsns: Dsns, sql: str, *arguments: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


async def test_templates_lie_sealed_and_are_read_as_they_were(
    vault: Vault, dsns: Dsns, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 200)
    for row in rows:
        await add(vault.house.faces, vault.house.gallery, row)

    there = await stored(dsns, vault.tenant)
    assert all(map(is_sealed, there))
    assert not any(encode_template(row) in b"".join(there) for row in rows)
    np.testing.assert_allclose(await vault.embeddings(), rows, atol=2e-3)


async def test_plain_and_sealed_templates_are_found_alike(
    house: House,
    database: Database,
    objects: FileStore,
    tmp_path: Path,
    hands: Hands,
    dsns: Dsns,
    rng: np.random.Generator,
) -> None:
    rows = unit_rows(rng, 40)
    for row in rows[:20]:
        await add(house.faces, house.gallery, row)
    vault = turn_on(house, database, objects, tmp_path)
    for row in rows[20:]:
        await add(house.faces, house.gallery, row)

    assert {is_sealed(each) for each in await stored(dsns, vault.tenant)} == {True, False}
    catch_up = make_catch_up(house, hands)
    current = await catch_up(vault.tenant, house.gallery.gallery_id)
    cosines, face_nos = current.index.search(rows, 1)
    assert len(set(face_nos[:, 0].tolist())) == 40
    np.testing.assert_allclose(cosines[:, 0], 1, atol=2e-3)
    await catch_up.close()


async def test_apply_seals_what_was_plain_and_searches_score_the_same(
    house: House,
    database: Database,
    objects: FileStore,
    tmp_path: Path,
    dsns: Dsns,
    rng: np.random.Generator,
) -> None:
    rows = unit_rows(rng, 60)
    keys = []
    for row in rows:
        face_id = await add(house.faces, house.gallery, row)
        keys.append(image_key(house.tenant.tenant_id, house.gallery.gallery_id, face_id))
        await objects.put(keys[-1], JPEG, "image/jpeg")
    vault = turn_on(house, database, objects, tmp_path)
    before = await vault.embeddings()
    assert [await vault.images.get(key) for key in keys] == [(JPEG, "image/jpeg")] * 60

    run = await vault.finish(rotate=False)

    assert (run.templates, run.objects, run.unreadable) == (60, 60, 0)
    assert all(map(is_sealed, await stored(dsns, vault.tenant)))
    assert {key_number((await objects.get(key))[0]) for key in keys} == {1}
    assert [await vault.images.get(key) for key in keys] == [(JPEG, "image/jpeg")] * 60
    np.testing.assert_array_equal(await vault.embeddings(), before)
    # Another tenant's are as they were.
    assert not any(map(is_sealed, await stored(dsns, house.other.tenant_id)))


@pytest.mark.parametrize("damage", ["tampered", "of another tenant", "of a key that is gone"])
async def test_a_template_that_does_not_open_is_an_error_that_names_the_face(
    vault: Vault, dsns: Dsns, rng: np.random.Generator, damage: str
) -> None:
    for row in unit_rows(rng, 3):
        await add(vault.house.faces, vault.house.gallery, row)
        await add(vault.house.faces, vault.house.other_gallery, row)
    face_nos = [
        row[0]
        for row in await as_owner(
            dsns, "select face_no from face where tenant_id = $1 order by face_no", vault.tenant
        )
    ]
    wrong = bytearray((await stored(dsns, vault.tenant))[1])
    if damage == "tampered":
        wrong[-20] ^= 1
    elif damage == "of another tenant":
        wrong = bytearray((await stored(dsns, vault.house.other.tenant_id))[-1])
    else:
        wrong[7] = 9
    sql = "update template set embedding = $2 where face_no = $1"
    await as_owner(dsns, sql, face_nos[1], bytes(wrong))

    with pytest.raises(SealBrokenError, match="face"):
        await vault.embeddings()
    if damage != "of a key that is gone":
        with pytest.raises(SealBrokenError, match=f"face {face_nos[1]} "):
            await vault.embeddings()


async def test_replicas_that_need_a_key_at_once_make_one(vault: Vault) -> None:
    replicas = [TenantKeys(vault.database, Wrapping(MASTER)) for _ in range(8)]

    rings = await asyncio.gather(*(each.ring(vault.tenant) for each in replicas))

    assert {ring.number for ring in rings} == {1}
    sealed = rings[0].seal(b"something", b"said")
    assert {ring.open(1, sealed, b"said") for ring in rings} == {b"something"}


async def test_rotation_seals_everything_anew_and_destroys_the_key_before(
    vault: Vault, dsns: Dsns, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 30)
    ids = [await vault.enroll(row) for row in rows]
    before = await vault.embeddings()

    run = await vault.finish(rotate=True)

    assert (run.key_no, run.templates, run.objects) == (2, 30, 30)
    assert {number_of(each) for each in await stored(dsns, vault.tenant)} == {2}
    for face_id in ids:
        assert key_number((await vault.objects.get(vault.key_of(face_id)))[0]) == 2
        assert await vault.images.get(vault.key_of(face_id)) == (JPEG, "image/jpeg")
    np.testing.assert_array_equal(await vault.embeddings(), before)
    kept = await as_owner(dsns, "select key_no, wrapped is null from tenant_key order by key_no")
    assert [tuple(row) for row in kept] == [(1, True), (2, False)]


async def test_an_enrolment_under_way_keeps_its_key_until_it_ends(
    vault: Vault, dsns: Dsns, rng: np.random.Generator
) -> None:
    row = unit_rows(rng, 1)[0]
    async with vault.house.faces.locked(vault.tenant, vault.house.gallery) as locked:
        await locked.add(FaceId(uuid4()), row, content_type="image/jpeg", idempotency_key=None)
        begun = asyncio.create_task(vault.encryption.begin(vault.tenant, rotate=True, actor="test"))
        waits = "select true from pg_locks where locktype = 'advisory' and not granted"
        async with asyncio.timeout(10):
            while not await as_owner(dsns, waits):  # noqa: ASYNC110 - Postgres tells of no lock
                await asyncio.sleep(0.02)
        assert not begun.done()
    await begun
    await vault.seal_anew().run()

    np.testing.assert_allclose(await vault.embeddings(), row[None], atol=2e-3)
    assert [number_of(each) for each in await stored(dsns, vault.tenant)] == [2]


async def test_a_replica_that_has_not_heard_of_a_new_key_writes_templates_with_it(
    vault: Vault, dsns: Dsns, rng: np.random.Generator
) -> None:
    await vault.keys.ring(vault.tenant)
    other = TenantKeys(vault.database, Wrapping(MASTER))
    await Encryption(vault.database, other, Wrapping(MASTER)).begin(
        vault.tenant, rotate=True, actor="test"
    )
    assert (await vault.keys.ring(vault.tenant)).number == 1, "it has not heard"

    await add(vault.house.faces, vault.house.gallery, unit_rows(rng, 1)[0])

    assert [number_of(each) for each in await stored(dsns, vault.tenant)] == [2]


class Interrupted(FileStore):
    """Files, with something that happens just before the next put."""

    before_put: Callable[[str], Awaitable[None]] | None = None

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        if (work := self.before_put) is not None:
            self.before_put = None
            await work(key)
        await super().put(key, data, content_type)


async def test_an_image_that_is_erased_while_it_is_sealed_anew_stays_erased(
    house: House, database: Database, tmp_path: Path, rng: np.random.Generator
) -> None:
    objects = Interrupted(tmp_path / "images")
    vault = turn_on(house, database, objects, tmp_path)
    ids = [await vault.enroll(row) for row in unit_rows(rng, 2)]
    erased: list[str] = []

    async def erase(key: str) -> None:
        await house.faces.erase_image(vault.tenant, FaceId(UUID(key.rpartition("/")[2])))
        await objects.delete(key)
        erased.append(key)

    objects.before_put = erase
    await vault.finish(rotate=True)

    there = [each.key async for each in objects.list()]
    assert len(erased) == 1
    assert there == sorted({vault.key_of(each) for each in ids} - set(erased))


async def test_an_image_of_an_enrolment_under_way_is_sealed_anew_too(vault: Vault) -> None:
    key = vault.key_of(FaceId(uuid4()))
    await vault.images.put(key, JPEG, "image/jpeg")

    await vault.finish(rotate=True)

    assert await vault.images.get(key) == (JPEG, "image/jpeg")


async def test_copies_of_snapshots_are_sealed_anew(vault: Vault, tmp_path: Path) -> None:
    data = b"templates" * 300_000
    (tmp_path / "plain").write_bytes(data)
    folder = f"{vault.tenant}/default/1-pack"
    await vault.objects.put_file(f"{folder}/segments/one.codes", tmp_path / "plain")
    await vault.images.put_file(f"{folder}/two.state", tmp_path / "plain")

    run = await vault.finish(rotate=True)

    assert run.copies == 2
    names = {each.key.removeprefix(f"{folder}/") for each in await vault.objects.list_files(folder)}
    assert names == {"segments/one.codes.sealed-2", "two.state.sealed-2"}
    listed = await vault.images.list_files(folder)
    assert {each.key.removeprefix(f"{folder}/") for each in listed} == {
        "segments/one.codes",
        "two.state",
    }
    assert {each.size_bytes for each in listed} == {len(data)}
    await vault.images.get_file(f"{folder}/segments/one.codes", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data


async def test_a_run_that_was_cut_off_goes_on_where_it_was(
    vault: Vault, dsns: Dsns, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneton.verbs.seal_anew.WINDOW", 10)
    monkeypatch.setattr("oneton.verbs.seal_anew.PAGE", 4)
    ids = [await vault.enroll(row) for row in unit_rows(rng, 30)]
    before = await vault.embeddings()
    await vault.encryption.begin(vault.tenant, rotate=True, actor="test")
    numbers: set[int] = set()
    for steps in range(1, 12):
        work = vault.seal_anew()
        runs = await vault.encryption.open_runs()
        at_work: dict[Any, Any] = {}
        for _ in range(steps % 3 + 1):
            for tenant, run_id in runs:
                await work._step(tenant, run_id, at_work)
        for each in at_work.values():
            await each.aclose()
        numbers |= {number_of(each) for each in await stored(dsns, vault.tenant)}
        np.testing.assert_array_equal(await vault.embeddings(), before)
    await vault.seal_anew().run()

    run = await vault.encryption.newest_run(vault.tenant)
    assert run is not None and run.ended_at is not None
    assert numbers == {1, 2}
    assert {number_of(each) for each in await stored(dsns, vault.tenant)} == {2}
    assert {key_number((await vault.objects.get(vault.key_of(each)))[0]) for each in ids} == {2}
    np.testing.assert_array_equal(await vault.embeddings(), before)


class Full(FileStore):
    """A disk without room for one tenant's copies of snapshots."""

    full_for = ""

    async def get_file(self, key: str, path: Path) -> None:
        if self.full_for and key.startswith(self.full_for):
            raise OSError(errno.ENOSPC, "No space left on device")
        await super().get_file(key, path)


async def test_a_run_that_fails_says_why_and_keeps_no_younger_one_waiting(
    house: House, database: Database, tmp_path: Path, rng: np.random.Generator
) -> None:
    objects = Full(tmp_path / "images")
    vault = turn_on(house, database, objects, tmp_path)
    await vault.enroll(unit_rows(rng, 1)[0])
    (tmp_path / "plain").write_bytes(b"templates")
    await vault.images.put_file(f"{vault.tenant}/default/1-pack/state", tmp_path / "plain")
    objects.full_for = str(vault.tenant)
    other = house.other.tenant_id
    await vault.encryption.begin(vault.tenant, rotate=True, actor="test")
    await vault.encryption.begin(other, rotate=True, actor="test")

    assert not await vault.seal_anew().drain()

    run = await vault.encryption.newest_run(vault.tenant)
    assert run is not None and run.ended_at is None and "No space left" in run.why
    run = await vault.encryption.newest_run(other)
    assert run is not None and run.ended_at is not None
    objects.full_for = ""
    assert await vault.seal_anew().drain()


async def test_files_in_plain_that_a_crash_left_are_deleted(vault: Vault, tmp_path: Path) -> None:
    work = vault.seal_anew()
    left = scratch_file(work.scratch, vault.tenant)
    work.scratch.mkdir()
    left.write_bytes(b"templates")

    assert await work.has_work(), "of a run that another machine has ended meanwhile"
    await work.run()
    assert not left.exists()

    there = tmp_path / "snapshots" / FOLDER
    there.mkdir(parents=True)
    mine, others = (
        scratch_file(there, each) for each in (vault.tenant, vault.house.other.tenant_id)
    )
    for each in (mine, others):
        each.write_bytes(b"templates")
    await vault.keys.ring(vault.tenant)
    await (await vault.manage()).destroy(vault.tenant, actor="test")
    assert (mine.exists(), others.exists()) == (False, True)


async def test_what_a_crash_brought_back_is_deleted_when_the_page_is_done_again(
    vault: Vault, rng: np.random.Generator
) -> None:
    named = await vault.enroll(unit_rows(rng, 1)[0])
    await vault.encryption.begin(vault.tenant, rotate=True, actor="test")
    # Erased, and sealed anew all the same by a process that ended before it looked.
    long_ago = int((time.time() - 1000) * 1000)
    back = FaceId(UUID(int=long_ago << 80 | 7 << 76 | 2 << 62))
    under_way = FaceId(uuid7())
    for each in (back, under_way):
        await vault.images.put(vault.key_of(each), JPEG, "image/jpeg")

    await vault.seal_anew().run()

    there = {each.key async for each in vault.objects.list()}
    assert there == {vault.key_of(named), vault.key_of(under_way)}


async def test_rows_that_are_lost_cost_no_image(vault: Vault, rng: np.random.Generator) -> None:
    long_ago = int((time.time() - 1000) * 1000)
    for number in range(LEFTOVERS_A_PAGE + 1):
        lost = FaceId(UUID(int=long_ago << 80 | 7 << 76 | 2 << 62 | number))
        await vault.images.put(vault.key_of(lost), JPEG, "image/jpeg")

    await vault.finish(rotate=True)

    assert len([each async for each in vault.objects.list()]) == LEFTOVERS_A_PAGE + 1


async def test_a_second_rotation_waits_for_the_first(vault: Vault) -> None:
    await vault.encryption.begin(vault.tenant, rotate=True, actor="test")

    with pytest.raises(ConflictError):
        await vault.encryption.begin(vault.tenant, rotate=True, actor="test")
    assert (await vault.encryption.begin(vault.tenant, rotate=False, actor="test")).key_no == 2


async def test_rewrapped_keys_need_the_newest_master_key_only(
    vault: Vault, rng: np.random.Generator
) -> None:
    await add(vault.house.faces, vault.house.gallery, unit_rows(rng, 1)[0])
    newest = Fernet.generate_key().decode()
    both = Wrapping(f"{newest},\n{MASTER}")
    await check_master_key(vault.database, both)
    encryption = Encryption(vault.database, vault.keys, both)
    assert not (await encryption.state(vault.tenant)).wrapped_by_newest

    assert await encryption.rewrap(vault.tenant) == 1

    assert (await encryption.state(vault.tenant)).wrapped_by_newest
    assert await encryption.rewrap(vault.tenant) == 0
    for tenant in (vault.house.other.tenant_id,):
        await encryption.rewrap(tenant)
    await check_master_key(vault.database, Wrapping(newest))
    with pytest.raises(SettingError, match="ONETON_MASTER_KEY does not open"):
        await check_master_key(vault.database, Wrapping(MASTER))
    with pytest.raises(SettingError, match="set ONETON_MASTER_KEY"):
        await refuse_keys(vault.database)


async def test_a_wrapped_key_of_another_tenant_is_refused(vault: Vault, dsns: Dsns) -> None:
    await vault.keys.ring(vault.tenant)
    await vault.keys.ring(vault.house.other.tenant_id)
    await as_owner(
        dsns,
        """update tenant_key set wrapped = (select wrapped from tenant_key where tenant_id = $2)
           where tenant_id = $1""",
        vault.tenant,
        vault.house.other.tenant_id,
    )

    with pytest.raises(SettingError, match="another's"):
        await vault.keys.ring(vault.tenant, fresh=True)


async def test_after_its_keys_are_destroyed_nothing_of_a_tenant_opens(
    vault: Vault, dsns: Dsns, tmp_path: Path, rng: np.random.Generator
) -> None:
    face_id = await vault.enroll(unit_rows(rng, 1)[0])
    (tmp_path / "plain").write_bytes(b"templates")
    copy = f"{vault.tenant}/default/1-pack/state"
    await vault.images.put_file(copy, tmp_path / "plain")
    snapshots = tmp_path / "snapshots" / f"default.{vault.tenant}" / "1-pack"
    snapshots.mkdir(parents=True)
    replica = TenantKeys(vault.database, Wrapping(MASTER), holds_s=0.2)
    await replica.ring(vault.tenant)
    other = vault.house.other_gallery

    await (await vault.manage()).destroy(vault.tenant, actor="test")

    with pytest.raises(KeyDestroyedError):
        await vault.embeddings()
    with pytest.raises(KeyDestroyedError):
        await vault.images.get(vault.key_of(face_id))
    with pytest.raises(KeyDestroyedError):
        await add(vault.house.faces, vault.house.gallery, unit_rows(rng, 1)[0])
    with pytest.raises((NotFoundError, KeyDestroyedError)):
        await vault.images.get_file(copy, tmp_path / "got")
    async with asyncio.timeout(5):
        while await is_open(replica, vault.tenant):  # noqa: ASYNC110 - what is held runs out
            await asyncio.sleep(0.02)
    assert not snapshots.exists()
    kept = await as_owner(
        dsns, "select wrapped, destroyed_at from tenant_key where tenant_id = $1", vault.tenant
    )
    assert [row["wrapped"] for row in kept] == [None]
    gone = await vault.house.galleries.gone(
        [
            (vault.tenant, vault.house.gallery.gallery_no),
            (other.tenant_id, other.gallery_no),
        ]
    )
    assert gone == {vault.house.gallery.gallery_no}
    with pytest.raises(KeyDestroyedError):
        await (await vault.manage()).destroy(vault.tenant, actor="test")


async def is_open(keys: TenantKeys, tenant: TenantId) -> bool:
    try:
        await keys.check_open(tenant)
    except KeyDestroyedError:
        return False
    return True


async def test_keys_are_not_destroyed_while_something_is_in_plain(
    house: House,
    database: Database,
    objects: FileStore,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    vault = turn_on(house, database, objects, tmp_path)
    await vault.keys.ring(vault.tenant)

    with pytest.raises(ConflictError, match="apply first"):
        await (await vault.manage()).destroy(vault.tenant, actor="test")
    await vault.finish(rotate=False)
    state = await (await vault.manage()).look(house.tenant, deep=True)
    assert (state.templates.templates, state.templates.current) == (1, 1)
    await (await vault.manage()).destroy(vault.tenant, actor="test")


@pytest.mark.parametrize("wrong", ["x" * 43, "x" * 44 + ",short", "", ","])
def test_a_master_key_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(SettingError, match="ONETON_MASTER_KEY"):
        Wrapping(wrong)
