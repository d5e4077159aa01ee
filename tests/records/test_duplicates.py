"""All pairs of a gallery, against the full matrix product."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from oneton.biometrics.calibration import FOLDER, Calibration
from oneton.domain.errors import ConflictError, IndexLoadingError, SnapshotError
from oneton.domain.model import (
    DEFAULT_GALLERY,
    Changes,
    Cosine,
    FaceId,
    FaceNo,
    GalleryId,
    Score,
    TenantId,
)
from oneton.index.manifest import Identity, Manifest
from oneton.index.segmented import SegmentedIndex
from oneton.index.store import IndexStore
from oneton.records.database import Database
from oneton.records.duplicates import EnrolledFaces
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.duplicates import Batch, FindDuplicates
from oneton.verbs.group_duplicates import group_duplicates
from tests.records.conftest import DIMENSION, Hands, House, add, unit_rows

pytestmark = pytest.mark.anyio

TOLERANCE = 2e-3
"""In score: a batched product and a full one differ in the last digits of a cosine."""
HIGH = Score(99.5)
"""Cosine 0.84, which random templates do not reach."""

Found = dict[tuple[int, int], float]
MakeFind = Callable[..., FindDuplicates]


class Store:
    """Makes empty indexes and keeps no snapshots; stands for an `IndexStore`."""

    def __init__(self, make_index: Callable[[int], SegmentedIndex]) -> None:
        self.make_index = make_index

    def open(self, identity: Identity) -> tuple[SegmentedIndex, Manifest | None]:
        return self.make_index(identity.dimension), None

    def set_aside(self, identity: Identity, why: str) -> None:
        pass


@pytest.fixture
def calibration() -> Calibration:
    return msgspec.json.decode((FOLDER / "buffalo_sc.json").read_bytes(), type=Calibration)


@pytest.fixture
def make_find(house: House, hands: Hands, database: Database, calibration: Calibration) -> MakeFind:
    def make(
        make_index: Callable[[int], SegmentedIndex] = SegmentedIndex, **options: int
    ) -> FindDuplicates:
        store = cast("IndexStore", Store(make_index))
        catch_up = CatchUp(
            house.galleries, house.faces, hands.cpu, hands.upkeep, store, house.packs
        )
        faces = EnrolledFaces(database)
        return FindDuplicates(catch_up, hands.cpu, faces, calibration, DIMENSION, **options)

    return make


def near(rng: np.random.Generator, row: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Templates that are one person's with `row`: at a cosine of about 0.97 to each other."""
    rows = row + rng.normal(scale=0.04, size=(count, DIMENSION)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


async def enroll(house: House, rows: NDArray[np.float32]) -> list[FaceId]:
    return [await add(house.faces, house.gallery, row) for row in rows]


async def batches(find: FindDuplicates, house: House, least: Score, since: int = 0) -> list[Batch]:
    found = find(house.tenant.tenant_id, DEFAULT_GALLERY, least, since=since)
    return [batch async for batch in found]


def pairs_of(found: list[Batch]) -> Found:
    return {
        (int(earlier), int(later)): float(cosine)
        for batch in found
        for earlier, later, cosine in zip(
            batch.pairs.earlier, batch.pairs.later, batch.pairs.cosines, strict=True
        )
    }


async def every_pair(house: House, calibration: Calibration, least: float) -> Found:
    """What the full matrix product says of the templates that Postgres has."""
    gallery = await house.galleries.read(house.tenant.tenant_id, DEFAULT_GALLERY)
    changes = [
        each async for each in house.faces.changes(house.tenant.tenant_id, gallery, 0, DIMENSION)
    ]
    face_nos = np.concatenate([each.added_face_nos for each in changes])
    rows = np.concatenate([each.added_embeddings for each in changes]).astype(np.float64)
    cosines = rows @ rows.T
    return {
        (int(face_nos[one]), int(face_nos[other])): float(cosines[one, other])
        for one in range(len(rows))
        for other in range(one + 1, len(rows))
        if calibration.score(Cosine(cosines[one, other])) >= least
    }


async def check(found: Found, house: House, calibration: Calibration, least: Score) -> None:
    """All that reach the limit, none below, each with its cosine."""
    sure = await every_pair(house, calibration, least + TOLERANCE)
    maybe = await every_pair(house, calibration, least - TOLERANCE)
    assert sure.keys() <= found.keys() <= maybe.keys()
    assert all(abs(found[pair] - maybe[pair]) < 1e-5 for pair in found)


@pytest.mark.parametrize("least", [Score(20), Score(50), HIGH])
@pytest.mark.parametrize("options", [{}, {"batch": 37, "part": 5, "first_k": 1}], ids=str)
async def test_every_pair_is_found_as_the_full_product_finds_it(
    house: House,
    make_find: MakeFind,
    calibration: Calibration,
    rng: np.random.Generator,
    least: Score,
    options: dict[str, int],
) -> None:
    rows = unit_rows(rng, 160)
    await enroll(house, np.concatenate([rows, *(near(rng, row, 2) for row in rows[:20])]))
    found = await batches(make_find(**options), house, least)
    assert sum(batch.probes for batch in found) == 200
    await check(pairs_of(found), house, calibration, least)
    assert sum(batch.settled for batch in found) == len(pairs_of(found))


async def test_a_person_with_more_photos_than_candidates_is_found_whole(
    house: House, make_find: MakeFind, calibration: Calibration, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 61)
    photos = np.concatenate([near(rng, rows[0], 75), np.repeat(rows[:1], 15, axis=0), rows[1:]])
    await enroll(house, rng.permutation(photos))
    found = pairs_of(await batches(make_find(first_k=4), house, HIGH))
    await check(found, house, calibration, HIGH)
    assert len(found) >= 90 * 89 / 2


async def test_an_interrupted_search_goes_on_to_the_same_pairs(
    house: House, make_find: MakeFind, calibration: Calibration, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 60)
    await enroll(house, rng.permutation(np.concatenate([rows, near(rng, rows[0], 9), rows[:30]])))
    whole = pairs_of(await batches(make_find(batch=16), house, HIGH))
    begun: list[Batch] = []
    async with aclosing(
        make_find(batch=16)(house.tenant.tenant_id, DEFAULT_GALLERY, HIGH)
    ) as found:
        async for batch in found:
            begun.append(batch)
            if len(begun) == 3:
                break
    rest = await batches(make_find(batch=16), house, HIGH, since=begun[-1].head)
    assert sum(batch.probes for batch in rest) == 99 - 48
    assert pairs_of(begun + rest).keys() == whole.keys()
    assert len(whole) > 60


async def test_a_later_search_compares_what_was_enrolled_since_with_everything(
    house: House, make_find: MakeFind, calibration: Calibration, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 40)
    await enroll(house, rows)
    first = await batches(make_find(), house, HIGH)
    await enroll(house, np.concatenate([near(rng, rows[7], 2), unit_rows(rng, 5)]))
    second = await batches(make_find(), house, HIGH, since=first[-1].head)
    assert sum(batch.probes for batch in second) == 7
    assert len(pairs_of(second)) == 3
    await check(pairs_of(first + second), house, calibration, HIGH)
    assert await batches(make_find(), house, HIGH, since=second[-1].head) == []


async def test_purged_faces_are_no_probes_no_candidates_and_in_no_group(
    house: House,
    make_find: MakeFind,
    database: Database,
    calibration: Calibration,
    rng: np.random.Generator,
) -> None:
    tenant = house.tenant.tenant_id
    rows = unit_rows(rng, 6)
    names = await enroll(house, np.concatenate([near(rng, row, 3) for row in rows]))
    for face_id in (names[0], names[3], names[4], names[6], names[7], names[8]):
        async with house.faces.locked(tenant, house.gallery) as locked:
            await locked.purge(face_id)
    find = make_find(batch=5)
    first = await batches(find, house, HIGH)
    await check(pairs_of(first), house, calibration, HIGH)
    assert len(pairs_of(first)) == 1 + 0 + 0 + 3 + 3 + 3

    async with house.faces.locked(tenant, house.gallery) as locked:
        await locked.purge(names[9])
    assert [batch.probes for batch in await batches(find, house, HIGH, first[-1].head)] == [0]
    faces = EnrolledFaces(database)
    gallery = await house.galleries.read(tenant, DEFAULT_GALLERY)
    assert await faces.count(tenant, gallery, 0, gallery.head) == 11
    assert await faces.count(tenant, gallery, 3, 6) == 1
    face_nos = {FaceNo(each) for pair in pairs_of(first) for each in pair}
    there = await faces.named(tenant, gallery, face_nos)
    assert await faces.named(house.other.tenant_id, house.other_gallery, face_nos) == {}
    assert await faces.named(tenant, house.other_gallery, face_nos) == {}
    groups = group_duplicates(first[-1].pairs, {}, calibration)
    assert groups == []
    pairs = [batch.pairs for batch in first]
    found = [each for part in pairs for each in group_duplicates(part, there, calibration)]
    assert names[9] not in {face.face_id for group in found for face in group.faces}
    assert {face.face_id for group in found for face in group.faces} <= set(names)


async def test_a_purge_between_two_batches_is_no_error(
    house: House, make_find: MakeFind, calibration: Calibration, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    rows = unit_rows(rng, 10)
    names = await enroll(house, np.concatenate([rows, rows, rows]))
    found: list[Batch] = []
    async for batch in make_find(batch=10)(tenant, DEFAULT_GALLERY, HIGH):
        found.append(batch)
        if len(found) == 1:
            for face_id in (names[0], names[15], names[29]):
                async with house.faces.locked(tenant, house.gallery) as locked:
                    await locked.purge(face_id)
    assert [batch.probes for batch in found] == [10, 10, 8]
    assert (await every_pair(house, calibration, HIGH)).keys() <= pairs_of(found).keys()


class LossyIndex(SegmentedIndex):
    """Loses the first face of each change."""

    def catch_up(self, changes: Changes) -> None:
        super().catch_up(
            msgspec.structs.replace(
                changes,
                added_face_nos=changes.added_face_nos[1:],
                added_embeddings=changes.added_embeddings[1:],
            )
        )


class OneSidedIndex(SegmentedIndex):
    """Ranks nobody who was enrolled before the best candidate, which is the probe itself."""

    def search(
        self, probes: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        cosines, face_nos = super().search(probes, k)
        return cosines, np.maximum(face_nos, face_nos[:, :1])


async def test_a_pair_that_one_of_its_faces_misses_is_found_by_the_other(
    house: House, make_find: MakeFind, calibration: Calibration, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 20)
    await enroll(house, np.concatenate([rows, *(near(rng, row, 2) for row in rows)]))
    found = await batches(make_find(OneSidedIndex, batch=7), house, HIGH)
    await check(pairs_of(found), house, calibration, HIGH)


@pytest.mark.parametrize("losses", [1, 3])
async def test_an_index_that_lacks_a_face_is_loaded_anew(
    house: House,
    make_find: MakeFind,
    calibration: Calibration,
    rng: np.random.Generator,
    losses: int,
) -> None:
    rows = unit_rows(rng, 20)
    await enroll(house, np.concatenate([rows, rows]))
    makes: list[Callable[[int], SegmentedIndex]] = [LossyIndex] * losses + [SegmentedIndex]
    find = make_find(lambda dimension: makes.pop(0)(dimension))  # noqa: PLW0108 - one a call
    if losses == 3:
        with pytest.raises(IndexLoadingError, match="lacks enrolled faces"):
            await batches(find, house, HIGH)
    else:
        await check(pairs_of(await batches(find, house, HIGH)), house, calibration, HIGH)


async def test_a_face_purged_while_it_is_a_probe_is_passed_over(
    house: House, make_find: MakeFind, calibration: Calibration, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    rows = unit_rows(rng, 8)
    names = await enroll(house, np.concatenate([rows, rows]))
    find = make_find()
    gallery = await house.galleries.read(tenant, DEFAULT_GALLERY)
    probes = await find.faces.after(tenant, gallery, 0, DIMENSION, 100)
    async with house.faces.locked(tenant, house.gallery) as locked:
        await locked.purge(names[3])
    current = await find.catch_up(tenant, DEFAULT_GALLERY)
    pairs, unseen = await find._search(current, probes, HIGH)
    assert unseen == {probes.face_nos[3]}
    assert await find.faces.named(tenant, gallery, unseen) == {}
    assert len(pairs) == 8


class DamagedIndex(SegmentedIndex):
    """Finds a damaged file when it is searched."""

    def search(
        self, probes: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        del probes, k
        self.damage = "a template is not what was written"
        raise SnapshotError(self.damage)


async def test_a_damaged_index_is_loaded_anew(
    house: House, make_find: MakeFind, calibration: Calibration, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 20)
    await enroll(house, np.concatenate([rows, rows]))
    makes: list[Callable[[int], SegmentedIndex]] = [DamagedIndex, SegmentedIndex]
    find = make_find(lambda dimension: makes.pop(0)(dimension))  # noqa: PLW0108 - one a call
    await check(pairs_of(await batches(find, house, HIGH)), house, calibration, HIGH)
    assert makes == []


class LoadingCatchUp:
    """Says a few times that the gallery loads."""

    def __init__(self, catch_up: CatchUp, times: int) -> None:
        self.catch_up = catch_up
        self.times = times

    async def __call__(self, tenant: TenantId, gallery_id: GalleryId) -> Current:
        self.times -= 1
        if self.times >= 0:
            error = IndexLoadingError("loading")
            error.retry_after_s = 0
            raise error
        return await self.catch_up(tenant, gallery_id)


async def test_a_gallery_that_loads_is_waited_for(
    house: House, make_find: MakeFind, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 3)
    await enroll(house, np.concatenate([rows, rows]))
    find = make_find()
    loading = LoadingCatchUp(find.catch_up, 3)
    slow = FindDuplicates(loading, find.cpu, find.faces, find.calibration, DIMENSION)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        assert len(pairs_of(await batches(slow, house, HIGH))) == 3
    assert loading.times < 0


async def test_a_gallery_that_gets_another_model_pack_meanwhile_is_a_conflict(
    house: House, make_find: MakeFind, database: Database, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    await enroll(house, unit_rows(rng, 10))
    async with aclosing(make_find(batch=4)(tenant, DEFAULT_GALLERY, HIGH)) as found:
        await anext(found)
        await database.fetch(
            "insert into model_pack (name, sha256, dimension) values ('new', 'x', 16)"
        )
        async with database.transaction(tenant) as connection:
            await connection.execute(
                """update gallery set model_pack_no =
                     (select model_pack_no from model_pack where name = 'new')"""
            )
        with pytest.raises(ConflictError):
            await anext(found)


async def test_an_empty_gallery_has_no_pairs(house: House, make_find: MakeFind) -> None:
    assert await batches(make_find(), house, HIGH) == []
