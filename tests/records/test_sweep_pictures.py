"""The sweeper, for pictures that are of no face record, and for galleries that were deleted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.model import DEFAULT_GALLERY, GalleryId, image_key
from oneton.domain.requests import PICTURES, StoredPicture
from oneton.images.files import FileStore
from oneton.records.database import Database
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.requests import Pictures
from oneton.records.tenants import Tenants
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.sweep import Sweep
from tests.records.conftest import House, add, unit_rows

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff picture"
AT_ONCE = timedelta(0)


class Kept(msgspec.Struct, frozen=True):
    """Pictures of two tenants, and what sweeps."""

    store: FileStore
    sweep: Sweep
    keep: KeepPicture
    pictures: list[StoredPicture]

    async def keys(self) -> set[str]:
        return {each.key async for each in self.store.list()}


@pytest.fixture
async def kept(house: House, database: Database, tmp_path: Path) -> Kept:
    store, pictures, jobs = FileStore(tmp_path), Pictures(database), JobsOfTenants(database)
    sweep = Sweep(Tenants(database), house.galleries, house.faces, pictures, jobs, store)
    keep = KeepPicture(pictures, store)
    for face in await house.faces.page(house.other.tenant_id, house.other_gallery, None, 10):
        await store.put(face.image_key, JPEG, "image/jpeg")
    made = [
        await keep(tenant, JPEG, "image/jpeg", keep=None)
        for tenant in [house.tenant.tenant_id] * 3 + [house.other.tenant_id] * 2
    ]
    return Kept(store, sweep, keep, made)


async def test_pictures_with_a_row_stay(kept: Kept) -> None:
    report = await kept.sweep(AT_ONCE)
    assert (report.objects, report.rows, report.leftovers, report.missing) == (8, 8, [], [])
    assert (report.spared, report.foreign, report.doomed) == (0, 0, 0)
    assert {each.key for each in kept.pictures} < await kept.keys()


async def test_a_picture_without_a_row_is_deleted_once_it_is_old(kept: Kept, house: House) -> None:
    leftover = f"{house.tenant.tenant_id}/{PICTURES}/{uuid7()}"
    await kept.store.put(leftover, JPEG, "image/jpeg")
    assert (await kept.sweep(timedelta(hours=1))).spared == 1
    assert leftover in await kept.keys()
    report = await kept.sweep(AT_ONCE)
    assert (report.leftovers, report.deleted) == ([leftover], 1)
    assert len(await kept.keys()) == 8


async def test_a_picture_whose_row_is_another_tenants_is_a_leftover(
    kept: Kept, house: House
) -> None:
    theirs = kept.pictures[-1]
    stray = f"{house.tenant.tenant_id}/{PICTURES}/{theirs.picture_id}"
    await kept.store.put(stray, JPEG, "image/jpeg")
    assert (await kept.sweep(AT_ONCE)).leftovers == [stray]
    assert theirs.key in await kept.keys()


async def test_a_picture_row_without_its_object_is_reported(kept: Kept) -> None:
    await kept.store.delete(kept.pictures[1].key)
    assert (await kept.sweep(AT_ONCE)).missing == [kept.pictures[1].key]


async def test_many_lost_picture_rows_delete_nothing_unasked(kept: Kept, house: House) -> None:
    for _ in range(6):
        await kept.store.put(f"{house.tenant.tenant_id}/{PICTURES}/{uuid7()}", JPEG, "image/jpeg")
    report = await kept.sweep(AT_ONCE, at_most=5)
    assert (len(report.leftovers), report.deleted) == (6, 0)


async def test_objects_of_a_deleted_gallery_are_left_to_its_job(
    kept: Kept, house: House, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    for row in unit_rows(rng, 4):
        face_id = await add(house.faces, house.gallery, row)
        await kept.store.put(image_key(tenant, DEFAULT_GALLERY, face_id), JPEG, "image/jpeg")
    await house.galleries.delete(tenant, house.gallery)
    report = await kept.sweep(AT_ONCE, at_most=0)
    assert (report.doomed, report.leftovers, report.missing) == (4, [], [])
    # Another gallery of the name has objects with the same beginning.
    again = await house.galleries.create(
        tenant, DEFAULT_GALLERY, model_pack_no=house.gallery.model_pack_no
    )
    face_id = await add(house.faces, again, unit_rows(rng, 1)[0])
    await kept.store.put(image_key(tenant, DEFAULT_GALLERY, face_id), JPEG, "image/jpeg")
    report = await kept.sweep(AT_ONCE, at_most=0)
    assert (report.doomed, report.leftovers, report.missing) == (4, [], [])
    assert report.rows == 9


async def test_what_is_in_no_gallery_at_all_is_a_leftover(kept: Kept, house: House) -> None:
    leftover = image_key(house.tenant.tenant_id, GalleryId("gone"), str(uuid7()))
    await kept.store.put(leftover, JPEG, "image/jpeg")
    assert (await kept.sweep(AT_ONCE)).leftovers == [leftover]
