"""What was kept for long enough is erased, and nothing else is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from uuid_utils.compat import uuid7

from oneton import app
from oneton.domain.errors import NotFoundError, StoreDownError
from oneton.domain.model import TenantId, TenantOptions
from oneton.domain.requests import (
    NewPicture,
    NewRequest,
    PictureId,
    RequestId,
    RequestState,
    SavedRequest,
)
from oneton.images.files import FileStore
from oneton.records.audit import Audit
from oneton.records.database import Database
from oneton.records.idempotency import Answer, Idempotency
from oneton.records.locks import Locks
from oneton.records.requests import Pictures
from oneton.records.retention import Retention
from oneton.records.tenants import Tenants
from oneton.verbs import erase_due as erase_due_module
from oneton.verbs.change_tenant import ChangeTenant
from oneton.verbs.erase_due import ErasedCounts, EraseDue
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.saved_requests import SavedRequests
from oneton.verbs.tidy import Tidy
from tests.records.conftest import House

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff picture"
DAY = timedelta(days=1)
OWNER = uuid7()


class Archive(msgspec.Struct, frozen=True):
    """Where calls are saved, and what erases them."""

    database: Database
    store: FileStore
    saved: SavedRequests
    keep: KeepPicture
    erase: EraseDue
    change: ChangeTenant

    async def save(
        self,
        tenant: TenantId,
        *,
        keep: timedelta | None = None,
        keep_images: timedelta | None = None,
        pictures: int = 2,
    ) -> SavedRequest:
        new = NewRequest(
            request_id=RequestId(uuid7()),
            dialect="didit",
            kind="face_match",
            state=RequestState.APPROVED,
            keep=keep,
            keep_images=keep_images,
        )
        named = [NewPicture(f"picture_{number}", JPEG, "image/jpeg") for number in range(pictures)]
        return await self.saved.save(tenant, new, named)

    async def keys(self) -> set[str]:
        return {each.key async for each in self.store.list()}

    async def age(self, tenant: TenantId, days: int) -> None:
        """Let everything that a tenant saved be older."""
        async with self.database.transaction(tenant) as connection:
            for table in ("request", "picture"):
                await connection.execute(
                    f"""update {table} set created_at = created_at - make_interval(days => $1),
                          due_at = due_at - make_interval(days => $1)""",
                    days,
                )

    async def events(self, tenant: TenantId) -> list[tuple[str, str, dict[str, object]]]:
        """But for those of the test's own preparations."""
        return [
            (each.actor, each.action, msgspec.json.decode(each.details))
            for each in await Audit(self.database).page(tenant, limit=10)
            if each.actor != "system"
        ]


@pytest.fixture
def archive(database: Database, tmp_path: Path) -> Archive:
    store, retention = FileStore(tmp_path / "images"), Retention(database)
    return Archive(
        database,
        store,
        SavedRequests(database, store),
        KeepPicture(Pictures(database), store),
        EraseDue(retention, store),
        ChangeTenant(Tenants(database), retention, Audit(database)),
    )


async def test_a_due_request_goes_with_its_pictures_and_nothing_else_does(
    house: House, archive: Archive
) -> None:
    one, other = house.tenant.tenant_id, house.other.tenant_id
    due = await archive.save(one, keep=DAY)
    kept = [await archive.save(one), await archive.save(one, keep=3 * DAY)]
    theirs = await archive.save(other, keep=3 * DAY)
    await archive.age(one, 2)
    assert await archive.erase() == ErasedCounts(pictures=2, requests=1)
    with pytest.raises(NotFoundError):
        await archive.saved.read(one, due.request_id)
    for each in kept:
        assert len((await archive.saved.read(one, each.request_id)).pictures) == 2
    assert len((await archive.saved.read(other, theirs.request_id)).pictures) == 2
    assert await archive.keys() == {
        picture.key for each in (*kept, theirs) for picture in each.pictures
    }
    assert await archive.erase() == ErasedCounts()


async def test_a_request_outlives_its_pictures(house: House, archive: Archive) -> None:
    tenant = house.tenant.tenant_id
    saved = await archive.save(tenant, keep=10 * DAY, keep_images=DAY)
    await archive.age(tenant, 2)
    assert await archive.erase() == ErasedCounts(pictures=2)
    assert (await archive.saved.read(tenant, saved.request_id)).pictures == ()
    assert await archive.keys() == set()


async def test_a_picture_of_no_request_goes_in_its_time(house: House, archive: Archive) -> None:
    tenant = house.tenant.tenant_id
    due = await archive.keep(tenant, JPEG, "image/jpeg", keep=timedelta(0))
    later = await archive.keep(tenant, JPEG, "image/jpeg", keep=DAY)
    never = await archive.keep(tenant, JPEG, "image/jpeg", keep=None)
    assert await archive.erase() == ErasedCounts(pictures=1)
    with pytest.raises(NotFoundError):
        await archive.keep.read(tenant, due.picture_id)
    assert await archive.keys() == {later.key, never.key}


async def test_more_than_a_batch_goes_at_once(
    house: House, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase_due_module, "BATCH", 2)
    for tenant in (house.tenant.tenant_id, house.other.tenant_id):
        for _ in range(4):
            await archive.save(tenant, keep=timedelta(0), keep_images=timedelta(0), pictures=1)
    assert await archive.erase() == ErasedCounts(pictures=8, requests=8)
    assert await archive.keys() == set()


async def test_the_audit_trail_has_ids_and_is_the_tenants_own(
    house: House, archive: Archive
) -> None:
    tenant = house.tenant.tenant_id
    saved = await archive.save(tenant, keep=timedelta(0), pictures=1)
    await archive.erase()
    ids = {
        "pictures": [str(each.picture_id) for each in saved.pictures],
        "requests": [str(saved.request_id)],
    }
    assert await archive.events(tenant) == [("retention", "erase due", ids)]
    assert await archive.events(house.other.tenant_id) == []


async def test_what_a_crash_leaves_behind_no_row_names(
    house: House, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = house.tenant.tenant_id
    saved = await archive.save(tenant, keep=timedelta(0), pictures=1)

    async def down(_self: FileStore, key: str) -> None:
        raise StoreDownError(key)

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "delete", down)
        assert await archive.erase() == ErasedCounts(pictures=1, requests=1)
    assert await archive.keys() == {saved.pictures[0].key}
    assert await Pictures(archive.database).page(tenant, None, 10) == []


async def test_answers_to_idempotency_keys_are_forgotten_after_a_day(
    house: House, archive: Archive
) -> None:
    tenant, answers = house.tenant.tenant_id, Idempotency(archive.database)
    for key in ("old", "new"):
        assert await answers.claim(tenant, key, b"call", OWNER) is None
        await answers.keep(tenant, key, OWNER, Answer(200, {}, b"{}"))
    async with archive.database.transaction(tenant) as connection:
        await connection.execute(
            "update idempotency set claimed_at = now() - interval '25 hours' where key = 'old'"
        )
    assert (await archive.erase()).answers == 1
    assert await answers.claim(tenant, "new", b"call", uuid7()) == Answer(200, {}, b"{}")
    assert await answers.claim(tenant, "old", b"another call", uuid7()) is None


async def test_a_shorter_retention_counts_for_what_is_kept_already(
    house: House, archive: Archive
) -> None:
    tenant = house.tenant.tenant_id
    old = await archive.save(tenant, keep=90 * DAY, keep_images=90 * DAY)
    theirs = await archive.save(house.other.tenant_id, keep=90 * DAY)
    await archive.age(tenant, 10)
    young = await archive.save(tenant)
    session = await archive.keep(tenant, JPEG, "image/jpeg", keep=DAY)
    retain = archive.change.retain
    due = await retain(tenant, image_days=7, result_days=30, actor="ada", keep=False)
    assert (due.pictures, due.requests) == (2, 0)
    assert (await archive.change.tenants.read(tenant)).options == TenantOptions()
    assert await archive.erase() == ErasedCounts()
    due = await retain(tenant, image_days=7, result_days=30, actor="ada")
    assert (due.pictures, due.requests) == (2, 0)
    assert await archive.erase() == ErasedCounts(pictures=2)
    read = await archive.saved.read(tenant, old.request_id)
    assert read.due_at == read.created_at + 30 * DAY
    assert len((await archive.saved.read(tenant, young.request_id)).pictures) == 2
    assert (await archive.keep.read(tenant, session.picture_id))[0] == JPEG
    kept = await archive.saved.read(house.other.tenant_id, theirs.request_id)
    assert kept.due_at == theirs.due_at
    due = await retain(tenant, image_days=7, result_days=3, actor="ada")
    assert (due.pictures, due.requests) == (0, 1)
    assert await archive.erase() == ErasedCounts(requests=1)
    options = (await archive.change.tenants.read(tenant)).options
    assert (options.image_days, options.result_days) == (7, 3)
    changed = [each for each in await archive.events(tenant) if each[0] == "ada"]
    assert [each[2] for each in changed] == [
        {"image_days": 7, "result_days": 3},
        {"image_days": 7, "result_days": 30},
    ]


async def test_a_longer_retention_saves_what_was_due(house: House, archive: Archive) -> None:
    tenant = house.tenant.tenant_id
    saved = await archive.save(tenant, keep=DAY, keep_images=DAY)
    await archive.age(tenant, 2)
    await archive.change.retain(tenant, image_days=30, result_days=30, actor="ada")
    assert await archive.erase() == ErasedCounts()
    assert len((await archive.saved.read(tenant, saved.request_id)).pictures) == 2


async def test_the_default_retention_leaves_what_is_kept(house: House, archive: Archive) -> None:
    tenant = house.tenant.tenant_id
    saved = await archive.save(tenant, keep=DAY, keep_images=DAY)
    due = await archive.change.retain(tenant, image_days=None, result_days=None, actor="ada")
    assert (due.pictures, due.requests) == (0, 0)
    assert (await archive.saved.read(tenant, saved.request_id)).due_at == saved.due_at


async def test_a_picture_that_is_older_than_its_request_goes_by_the_request(
    house: House, archive: Archive
) -> None:
    tenant = house.tenant.tenant_id
    saved = await archive.save(tenant, pictures=1)
    async with archive.database.transaction(tenant) as connection:
        await connection.execute("update picture set created_at = created_at - interval '9 days'")
    due = await archive.change.retain(tenant, image_days=7, result_days=None, actor="ada")
    assert due.pictures == 0
    await archive.age(tenant, 8)
    assert await archive.erase() == ErasedCounts(pictures=1)
    assert (await archive.saved.read(tenant, saved.request_id)).pictures == ()


async def test_what_is_kept_for_longer_meanwhile_stays(house: House, archive: Archive) -> None:
    tenant, retention = house.tenant.tenant_id, archive.change.retention
    saved = await archive.save(tenant, keep=timedelta(0), keep_images=timedelta(0), pictures=1)
    found = (await retention.due(10))[tenant]
    assert (found.requests, found.pictures) == (
        [saved.request_id],
        [PictureId(saved.pictures[0].picture_id)],
    )
    await archive.change.retain(tenant, image_days=1, result_days=1, actor="ada")
    erased = await retention.erase(tenant, found)
    assert (erased.requests, erased.pictures) == ((), ())


async def test_credits_are_set_and_written_down(house: House, archive: Archive) -> None:
    tenant = house.tenant.tenant_id
    assert (await archive.change.set_credits(tenant, 5, actor="ada")).credits == 5
    assert (await archive.change.set_credits(tenant, None, actor="ada")).credits is None
    assert await archive.events(tenant) == [
        ("ada", "tenant credits", {"credits": None}),
        ("ada", "tenant credits", {"credits": 5}),
    ]


async def test_one_process_at_a_time_tidies_and_a_chore_that_fails_stops_no_other(
    database: Database,
) -> None:
    done: list[str] = []

    async def fail() -> None:
        done.append("failed")
        raise StoreDownError("away")

    async def do() -> None:
        done.append("done")
        # Another process would find the lock taken.
        assert not await Tidy(Locks(database), (fail,))()

    tidy = Tidy(Locks(database), (fail, do))
    assert await tidy()
    assert await tidy()
    assert done == ["failed", "done"] * 2


async def test_a_server_tidies_again_and_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "TIDY_EVERY_S", 0.01)
    thrice = asyncio.Event()
    done: list[int] = []

    async def chore() -> None:
        done.append(len(done))
        if len(done) == 3:
            thrice.set()
        raise ValueError("a mistake of ours")

    tidying = asyncio.create_task(app._tidy_again(Tidy(Locks(database), (chore,))))
    async with asyncio.timeout(10):
        await thrice.wait()
    tidying.cancel()
    await asyncio.gather(tidying, return_exceptions=True)
