"""A gallery's second pack: dual templates, the cut-over, the rollback; no record is lost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.domain.errors import ConflictError, IndexLoadingError, NotFoundError, QuotaError
from oneton.domain.model import (
    DEFAULT_GALLERY,
    Analysis,
    DetectedFace,
    Embedding,
    Enrolment,
    FaceId,
    FaceNo,
    Gallery,
    ModelPack,
    Quality,
    SecondPack,
)
from oneton.domain.reindexing import GalleryState, NewRun, OnFailure, RunState, Work
from oneton.images.files import FileStore
from oneton.records.database import Database
from oneton.records.reindexing import Reindexing
from oneton.records.trail import Trail
from oneton.records.usage import Usage
from oneton.verbs.analyse import Picture
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.enroll_batch import Embedded, EnrollBatch, Later
from oneton.verbs.reembed_face import ReembedFace
from tests.records.conftest import DIMENSION, House, add, unit_rows

NEW = ModelPack("new", "1" * 64, DIMENSION)
FACES = 10


class Moving(msgspec.Struct):
    """A gallery that is being re-embedded; the new pack's templates are the old ones, turned."""

    house: House
    reindexing: Reindexing
    run: NewRun
    ids: list[FaceId]
    rows: NDArray[np.float32]
    turn: NDArray[np.float32]

    @property
    def new_no(self) -> int:
        return self.run.to_pack_no

    async def gallery(self) -> Gallery:
        return await self.house.galleries.read(self.house.tenant.tenant_id, DEFAULT_GALLERY)

    async def work(self) -> Work:
        (work,) = await self.reindexing.works(self.run.run_id)
        return work

    async def fill(self, skipped: int = 0) -> list[FaceNo]:
        """Re-embed everything that is handed out, but for the first few."""
        work = await self.work()
        handed: list[FaceNo] = []
        while some := await self.reindexing.hand_out(work, 3):
            handed += some
        wanted = await self.reindexing.still_to_embed(work, handed)
        rows = {
            each.face_no: self.rows[self.ids.index(each.face_id)] @ self.turn
            for each in wanted[skipped:]
        }
        failed = {each.face_no: "no face" for each in wanted[:skipped]}
        await self.reindexing.store(work, rows, failed)
        return handed

    async def cut_over(self) -> int | None:
        gallery = await self.gallery()
        assert await self.reindexing.steps.fill(gallery, await self.work())
        return await self.reindexing.steps.cut_over(gallery, await self.work())

    async def add_both(self, row: NDArray[np.float32]) -> FaceId:
        face_id = FaceId(UUID(str(uuid7())))
        gallery = await self.gallery()
        turned = {gallery.model_pack_no: row, gallery.second_pack_no or 0: row @ self.turn}
        if gallery.model_pack_no == self.new_no:
            turned = {gallery.model_pack_no: row @ self.turn, gallery.second_pack_no or 0: row}
        async with self.house.faces.locked(gallery.tenant_id, gallery) as locked:
            await locked.add(face_id, turned, content_type="image/jpeg", idempotency_key=None)
        return face_id


@pytest.fixture
async def moving(house: House, database: Database, rng: np.random.Generator) -> Moving:
    rows = unit_rows(rng, FACES)
    ids = [
        await add(house.faces, house.gallery, row, key=f"key-{number}")
        for number, row in enumerate(rows)
    ]
    await house.faces.erase_image(house.tenant.tenant_id, ids[0])
    async with house.faces.locked(house.tenant.tenant_id, house.gallery) as locked:
        assert await locked.purge(ids[1])
    run = NewRun(
        UUID(str(uuid7())),
        await house.packs.number(NEW),
        50,
        OnFailure.STOP,
        timedelta(days=7),
        "operator",
    )
    turn = np.linalg.qr(rng.normal(size=(DIMENSION, DIMENSION)))[0].astype(np.float32)
    made = Moving(house, Reindexing(database), run, ids, rows, turn)
    await made.reindexing.insert_run(run)
    plan = await made.reindexing.plan(house.gallery, run.to_pack_no)
    assert (plan.faces, plan.to_embed, plan.to_drop, plan.done) == (9, 8, 1, 0)
    assert await made.reindexing.steps.begin(await made.gallery(), run) == plan
    return made


async def names(moving: Moving, catch_up: CatchUp, pack_no: int | None = None) -> list[FaceId]:
    """What a search for each face finds first, where it is found."""
    tenant = moving.house.tenant.tenant_id
    current = await catch_up(tenant, DEFAULT_GALLERY, pack_no=pack_no)
    rows = moving.rows if current.pack_no != moving.new_no else moving.rows @ moving.turn
    cosines, face_nos = current.index.search(rows, 1)
    found = [
        int(no) for no, cosine in zip(face_nos[:, 0], cosines[:, 0], strict=True) if cosine > 0.999
    ]
    ids = await moving.house.faces.ids(tenant, found)
    return [ids[FaceNo(no)] for no in found]


async def test_a_filled_gallery_answers_under_the_new_pack_without_the_erased(
    moving: Moving, catch_up: CatchUp
) -> None:
    assert await names(moving, catch_up) == [moving.ids[0], *moving.ids[2:]]
    later = await moving.add_both(moving.rows[1])
    assert len(await moving.fill()) == 8
    assert await moving.cut_over() == 1
    gallery = await moving.gallery()
    assert (gallery.model_pack_no, gallery.second) == (moving.new_no, SecondPack.KEPT)
    fresh = await catch_up(gallery.tenant_id, DEFAULT_GALLERY, pack_no=moving.new_no)
    assert len(fresh.index) == 9
    assert await names(moving, catch_up) == [later, *moving.ids[2:]]
    with pytest.raises(NotFoundError):
        await moving.house.faces.find(gallery.tenant_id, moving.ids[0])
    assert await moving.reindexing.drops(await moving.work(), 10) == [moving.ids[0]]


async def test_the_old_index_answers_while_the_new_one_is_loaded(
    moving: Moving, catch_up: CatchUp
) -> None:
    await names(moving, catch_up)
    await moving.fill()
    await moving.cut_over()
    gallery = await moving.gallery()
    current = await catch_up(gallery.tenant_id, DEFAULT_GALLERY)
    assert current.pack_no == gallery.second_pack_no
    # The erased record is gone from it all the same.
    assert len(current.index) == 8
    await catch_up(gallery.tenant_id, DEFAULT_GALLERY, pack_no=moving.new_no)
    assert (await catch_up(gallery.tenant_id, DEFAULT_GALLERY)).pack_no == moving.new_no


async def test_a_rollback_brings_back_what_was_removed_and_keeps_what_came_since(
    moving: Moving, catch_up: CatchUp
) -> None:
    await moving.fill()
    await moving.cut_over()
    later = await moving.add_both(moving.rows[1])
    assert await names(moving, catch_up, moving.new_no) == [later, *moving.ids[2:]]
    assert await moving.reindexing.steps.roll_back(await moving.gallery(), await moving.work()) == 1
    gallery = await moving.gallery()
    assert (gallery.model_pack_no, gallery.second_pack_no) == (
        moving.house.gallery.model_pack_no,
        None,
    )
    assert await names(moving, catch_up) == [moving.ids[0], later, *moving.ids[2:]]
    back = await moving.house.faces.find(gallery.tenant_id, moving.ids[0])
    assert not back.has_image
    assert (
        await moving.house.faces.enrolled_with(gallery.tenant_id, DEFAULT_GALLERY, "key-0")
        == (moving.ids[0])
    )
    with pytest.raises(ConflictError):
        await moving.reindexing.steps.roll_back(gallery, await moving.work())


async def test_a_full_quota_counts_what_a_rollback_brings_back_and_refuses_none_of_it(
    moving: Moving, database: Database
) -> None:
    tenant, usage = moving.house.tenant.tenant_id, Usage(database)
    await moving.fill()
    await moving.cut_over()
    left = (await usage.holdings(tenant)).faces
    await usage.limit(tenant, faces=left, requests_a_day=None)
    assert await moving.reindexing.steps.roll_back(await moving.gallery(), await moving.work()) == 1
    assert (await usage.holdings(tenant)).faces == left + 1
    with pytest.raises(QuotaError):
        await add(moving.house.faces, await moving.gallery(), moving.rows[1])


async def test_a_gallery_is_not_cut_over_before_every_image_is_embedded(moving: Moving) -> None:
    assert not await moving.reindexing.steps.fill(await moving.gallery(), await moving.work())
    assert (
        await moving.reindexing.steps.cut_over(await moving.gallery(), await moving.work()) is None
    )
    work = await moving.work()
    assert (await moving.reindexing.left(work), work.state) == (8, GalleryState.FILLING)


async def test_lost_jobs_are_handed_out_again(moving: Moving) -> None:
    work = await moving.work()
    first = await moving.reindexing.hand_out(work, 100)
    assert await moving.reindexing.hand_out(await moving.work(), 100) == []
    await moving.reindexing.hand_out_again(work)
    assert await moving.reindexing.hand_out(await moving.work(), 100) == first


async def test_a_job_done_twice_counts_once(moving: Moving) -> None:
    handed = await moving.fill()
    assert await moving.reindexing.still_to_embed(await moving.work(), handed) == []
    again = dict.fromkeys(handed, moving.rows[0])
    assert await moving.reindexing.store(await moving.work(), again, {}) == 0
    assert (await moving.work()).embedded == 8


async def test_failed_images_stay_as_records_and_match_nothing(
    moving: Moving, catch_up: CatchUp
) -> None:
    await moving.fill(skipped=2)
    work = await moving.work()
    assert (work.failed, work.embedded) == (2, 6)
    failed = {face_id for face_id, _ in await moving.reindexing.failures(work, 10)}
    assert failed == set(moving.ids[2:4])
    assert await moving.cut_over() == 1
    assert await names(moving, catch_up) == moving.ids[4:]
    tenant = moving.house.tenant.tenant_id
    assert (await moving.house.faces.find(tenant, moving.ids[2])).has_image
    await moving.reindexing.steps.roll_back(await moving.gallery(), await moving.work())
    assert await names(moving, catch_up) == [moving.ids[0], *moving.ids[2:]]


async def test_what_was_purged_or_erased_meanwhile_is_not_stored(moving: Moving) -> None:
    work = await moving.work()
    handed = await moving.reindexing.hand_out(work, 100)
    gallery = await moving.gallery()
    async with moving.house.faces.locked(gallery.tenant_id, gallery) as locked:
        await locked.purge(moving.ids[2])
    await moving.house.faces.erase_image(gallery.tenant_id, moving.ids[3])
    rows = dict.fromkeys(handed[:1], moving.rows[0])
    assert await moving.reindexing.store(work, rows, {handed[1]: "gone"}) == 0
    assert (await moving.work()).failed == 0
    assert await moving.reindexing.left(work) == 6


async def test_a_cancelled_gallery_takes_no_more_templates(
    moving: Moving, database: Database, catch_up: CatchUp
) -> None:
    handed = await moving.fill()
    gallery = await moving.gallery()
    await moving.reindexing.steps.end(gallery, await moving.work(), GalleryState.CANCELLED)
    work = await moving.work()
    assert await moving.reindexing.store(work, {handed[0]: moving.rows[0]}, {}) == 0
    assert not await moving.reindexing.clean(work, moving.new_no, 5)
    assert await moving.reindexing.clean(work, moving.new_no, 5)
    async with database.transaction(gallery.tenant_id) as connection:
        left = await connection.fetchval(
            "select count(*) from template where model_pack_no = $1", moving.new_no
        )
    assert left == 0
    assert await names(moving, catch_up) == [moving.ids[0], *moving.ids[2:]]


async def test_a_finished_gallery_forgets_the_old_pack(moving: Moving, database: Database) -> None:
    await moving.fill()
    await moving.cut_over()
    work = await moving.work()
    # Not while a rollback may need them.
    assert await moving.reindexing.clean(work, work.from_pack_no, 100)
    assert len(await moving.reindexing.sample(work, 100)) == 8
    await moving.reindexing.steps.end(await moving.gallery(), work, GalleryState.FINISHED)
    assert await moving.reindexing.clean(work, work.from_pack_no, 100)
    async with database.transaction(work.tenant_id) as connection:
        rows = await connection.fetch("select distinct model_pack_no from template")
    assert [row["model_pack_no"] for row in rows] == [moving.new_no]


async def test_purging_a_removed_record_removes_what_is_kept_of_it(
    moving: Moving, database: Database
) -> None:
    await moving.fill()
    await moving.cut_over()
    tenant = moving.house.tenant.tenant_id
    assert not await moving.reindexing.purge_dropped(moving.house.other.tenant_id, moving.ids[0])
    assert await moving.reindexing.purge_dropped(tenant, moving.ids[0])
    assert not await moving.reindexing.purge_dropped(tenant, moving.ids[0])
    assert await moving.reindexing.steps.roll_back(await moving.gallery(), await moving.work()) == 0
    with pytest.raises(NotFoundError):
        await moving.house.faces.find(tenant, moving.ids[0])


async def test_a_gallery_is_in_one_run_at_a_time(moving: Moving, database: Database) -> None:
    again = msgspec.structs.replace(moving.run, run_id=UUID(str(uuid7())))
    await moving.reindexing.insert_run(again)
    with pytest.raises(ConflictError, match="in a run already"):
        await moving.reindexing.steps.begin(await moving.gallery(), again)
    same = msgspec.structs.replace(again, to_pack_no=moving.house.other_gallery.model_pack_no)
    with pytest.raises(ConflictError, match="has this model pack"):
        await moving.reindexing.steps.begin(moving.house.other_gallery, same)
    await moving.reindexing.set_run(again.run_id, RunState.CANCELLED)
    assert await moving.reindexing.run_of(None) == again.run_id


async def test_a_face_needs_a_template_of_each_pack(moving: Moving) -> None:
    gallery = await moving.gallery()
    with pytest.raises(AssertionError, match="each pack"):
        async with moving.house.faces.locked(gallery.tenant_id, gallery) as locked:
            await locked.add(
                moving.ids[0], moving.rows[0], content_type="image/jpeg", idempotency_key=None
            )


async def test_an_old_pack_that_finds_no_face_answers_no_more(
    moving: Moving, catch_up: CatchUp
) -> None:
    await names(moving, catch_up)
    await moving.fill()
    await moving.cut_over()
    gallery = await moving.gallery()
    assert gallery.answers_under(gallery.second_pack_no or 0)
    turned = {moving.new_no: moving.rows[1] @ moving.turn, gallery.second_pack_no or 0: None}
    face_id = FaceId(UUID(str(uuid7())))
    async with moving.house.faces.locked(gallery.tenant_id, gallery) as locked:
        await locked.add(face_id, turned, content_type="image/jpeg", idempotency_key=None)
    gallery = await moving.gallery()
    assert gallery.second is SecondPack.KEPT_PARTLY
    assert not gallery.answers_under(gallery.second_pack_no or 0)
    assert await names(moving, catch_up) == [face_id, *moving.ids[2:]]
    # A rollback is still possible; the face is there, and matches nothing.
    assert await moving.reindexing.steps.roll_back(gallery, await moving.work()) == 1
    assert (await moving.house.faces.find(gallery.tenant_id, face_id)).face_id == face_id


async def enroll_without_the_new_template(moving: Moving) -> FaceId:
    gallery = await moving.gallery()
    embeddings = {gallery.model_pack_no: moving.rows[1], moving.new_no: None}
    face_id = FaceId(UUID(str(uuid7())))
    async with moving.house.faces.locked(gallery.tenant_id, gallery) as locked:
        await locked.add(face_id, embeddings, content_type="image/jpeg", idempotency_key=None)
    return face_id


async def test_a_face_enrolled_without_the_new_template_is_handed_out(moving: Moving) -> None:
    await moving.fill()
    face_id = await enroll_without_the_new_template(moving)
    assert not await moving.reindexing.steps.fill(await moving.gallery(), await moving.work())
    moving.ids[1] = face_id
    assert len(await moving.fill()) == 1
    assert await moving.cut_over() == 1


async def test_no_face_lacks_the_new_template_once_an_index_of_it_may_be_loaded(
    moving: Moving,
) -> None:
    await moving.fill()
    assert await moving.reindexing.steps.fill(await moving.gallery(), await moving.work())
    with pytest.raises(AssertionError, match="both templates"):
        await enroll_without_the_new_template(moving)


async def test_an_index_of_an_earlier_run_is_not_taken_for_the_new_one(
    moving: Moving, catch_up: CatchUp
) -> None:
    """Without any news: face 2 failed the first time, and is embedded the second."""
    tenant = moving.house.tenant.tenant_id
    await moving.fill(skipped=1)
    await moving.cut_over()
    assert await names(moving, catch_up, moving.new_no) == moving.ids[3:]
    held = next(each for each in catch_up.held() if each.pack_no == moving.new_no)
    await moving.reindexing.steps.roll_back(await moving.gallery(), await moving.work())
    with pytest.raises(IndexLoadingError):
        await catch_up(tenant, DEFAULT_GALLERY, pack_no=moving.new_no)
    while not await moving.reindexing.clean(await moving.work(), moving.new_no, 100):
        pass
    moving.run = msgspec.structs.replace(moving.run, run_id=UUID(str(uuid7())))
    await moving.reindexing.insert_run(moving.run)
    await moving.reindexing.steps.begin(await moving.gallery(), moving.run)
    await moving.fill()
    await moving.cut_over()
    assert not await catch_up.is_of_use(held.identity)
    assert await names(moving, catch_up, moving.new_no) == moving.ids[2:]


def embedded(moving: Moving, row: NDArray[np.float32], key: str, *, both: bool = True) -> Embedded:
    old_no = moving.house.gallery.model_pack_no
    face = DetectedFace((0, 0, 9, 9), np.zeros((5, 2), np.float32), 0.9, Quality(99, 99, 1, 50))
    return Embedded(
        Picture(b"photo"),
        Analysis("image/jpeg", 9, 9, 0, (face,), row),
        {old_no: row, moving.new_no: row @ moving.turn if both else None},
        key,
    )


async def test_what_a_filled_gallery_cannot_take_keeps_nothing_else_out(
    moving: Moving,
    catch_up: CatchUp,
    database: Database,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    await moving.fill()
    assert await moving.reindexing.steps.fill(await moving.gallery(), await moving.work())
    house = moving.house

    async def load_model(number: int) -> SimpleNamespace:
        return SimpleNamespace(number=number, calibration=None)

    enroll = EnrollBatch(
        cast("Any", load_model),
        catch_up,
        cast("Any", None),
        house.galleries,
        house.faces,
        FileStore(tmp_path / "images"),
        cast("Any", None),
        60,
        Trail(database),
    )
    batch = [
        embedded(moving, row, f"new {number}", both=number != 1)
        for number, row in enumerate(unit_rows(rng, 3))
    ]
    tenant = house.tenant.tenant_id
    first, second, third = await enroll(tenant, DEFAULT_GALLERY, batch, if_missing=False)
    assert isinstance(second, Later)
    assert [isinstance(each, Enrolment) and each.added for each in (first, third)] == [True, True]
    known = await house.faces.enrolled_with_each(
        tenant, await moving.gallery(), ["new 0", "new 1", "new 2"]
    )
    assert sorted(known) == ["new 0", "new 2"]


async def test_a_face_that_the_new_pack_does_not_find_is_not_embedded_again_in_a_filled_gallery(
    moving: Moving, tmp_path: Path
) -> None:
    await moving.fill()
    assert await moving.reindexing.steps.fill(await moving.gallery(), await moving.work())
    house, images = moving.house, FileStore(tmp_path / "images")
    tenant, face_id = house.tenant.tenant_id, moving.ids[4]
    face = await house.faces.find(tenant, face_id)
    await images.put(face.image_key, b"photo", "image/jpeg")

    class OnePack(ReembedFace):
        async def _embed(self, gallery: Gallery, _: bytes) -> dict[int, Embedding | None]:
            old_no, new_no = gallery.pack_nos
            return {old_no: moving.rows[4], new_no: None}

    nothing = cast("Any", None)
    reembed = OnePack(house.galleries, house.faces, images, nothing, nothing)
    assert await reembed(tenant, face_id) == "its gallery is changing its model pack"
    assert await house.faces.find(tenant, face_id) == face
