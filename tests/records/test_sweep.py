"""The sweeper: leftovers go, everything else stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.model import DEFAULT_GALLERY, FaceId, image_key
from oneton.images.files import FileStore
from oneton.records.database import Database
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.requests import Pictures
from oneton.records.tenants import Tenants
from oneton.verbs.sweep import Sweep
from tests.records.conftest import House, add, unit_rows

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff picture"
AT_ONCE = timedelta(0)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "images")


@pytest.fixture
async def sweep(house: House, database: Database, store: FileStore) -> Sweep:
    """The other tenant's three faces have their images."""
    tenant = house.other.tenant_id
    for face in await house.faces.page(tenant, house.other_gallery, None, 10):
        await store.put(face.image_key, JPEG, "image/jpeg")
    pictures, jobs = Pictures(database), JobsOfTenants(database)
    return Sweep(Tenants(database), house.galleries, house.faces, pictures, jobs, store)


@pytest.fixture
async def face_id(house: House, store: FileStore, sweep: Sweep, rng: np.random.Generator) -> FaceId:
    """A face with an image, of the test's own tenant."""
    added = await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    await store.put(key_of(house, added), JPEG, "image/jpeg")
    return added


def key_of(house: House, face_id: FaceId) -> str:
    return image_key(house.tenant.tenant_id, DEFAULT_GALLERY, face_id)


async def keys(store: FileStore) -> set[str]:
    return {each.key async for each in store.list()}


async def test_images_with_a_row_stay(
    house: House, store: FileStore, sweep: Sweep, face_id: FaceId
) -> None:
    report = await sweep(AT_ONCE)
    assert (report.objects, report.rows, report.leftovers, report.missing) == (4, 4, [], [])
    assert len(await keys(store)) == 4


async def test_an_object_without_a_row_is_deleted_once_it_is_old(
    house: House, store: FileStore, sweep: Sweep, face_id: FaceId
) -> None:
    leftover = key_of(house, FaceId(uuid7()))
    await store.put(leftover, JPEG, "image/jpeg")
    assert (await sweep(timedelta(hours=1))).spared == 1
    assert leftover in await keys(store)
    assert (await sweep(AT_ONCE, delete=False)).leftovers == [leftover]
    assert leftover in await keys(store)
    assert (await sweep(AT_ONCE)).deleted == 1
    assert leftover not in await keys(store)
    assert len(await keys(store)) == 4


@pytest.mark.parametrize(
    "name",
    [
        lambda _house: f"{uuid4()}/default/{uuid7()}",
        lambda house: f"{house.tenant.tenant_id}/default/not-a-face",
    ],
    ids=["of a tenant that the database does not know", "with a key that is not ours"],
)
async def test_an_object_is_left_alone(
    house: House, store: FileStore, sweep: Sweep, name: Callable[[House], str]
) -> None:
    key = name(house)
    await store.put(key, JPEG, "image/jpeg")
    report = await sweep(AT_ONCE)
    assert (report.foreign, report.leftovers) == (1, [])
    assert key in await keys(store)


async def test_many_leftovers_are_not_deleted_unasked(
    house: House, store: FileStore, sweep: Sweep, face_id: FaceId
) -> None:
    for _ in range(6):
        await store.put(key_of(house, FaceId(uuid7())), JPEG, "image/jpeg")
    report = await sweep(AT_ONCE, at_most=5)
    assert (len(report.leftovers), report.deleted) == (6, 0)
    assert len(await keys(store)) == 10
    assert (await sweep(AT_ONCE, at_most=6)).deleted == 6


async def test_a_row_without_its_object_is_reported(
    house: House, store: FileStore, sweep: Sweep, face_id: FaceId
) -> None:
    await store.delete(key_of(house, face_id))
    assert (await sweep(AT_ONCE)).missing == [key_of(house, face_id)]


async def test_an_object_that_erase_left_behind_is_deleted_and_no_row_misses_it(
    house: House, store: FileStore, sweep: Sweep, face_id: FaceId
) -> None:
    await house.faces.erase_image(house.tenant.tenant_id, face_id)
    report = await sweep(AT_ONCE)
    assert (report.leftovers, report.missing) == ([key_of(house, face_id)], [])
    assert (await sweep(AT_ONCE)).leftovers == []
