"""Several faces in one transaction."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.errors import ConflictError
from oneton.domain.model import FaceId
from oneton.records.locked_gallery import NewFace
from tests.records.conftest import House, add, unit_rows

pytestmark = pytest.mark.anyio


def new_faces(house: House, rng: np.random.Generator, keys: list[str | None]) -> list[NewFace]:
    return [
        NewFace(FaceId(UUID(str(uuid7()))), {house.gallery.model_pack_no: row}, "image/png", key)
        for row, key in zip(unit_rows(rng, len(keys)), keys, strict=True)
    ]


async def test_faces_of_one_transaction_have_heads_and_numbers_in_their_order(
    house: House, rng: np.random.Generator
) -> None:
    tenant, gallery = house.tenant.tenant_id, house.gallery
    first = await add(house.faces, gallery, unit_rows(rng, 1)[0])
    faces = new_faces(house, rng, [None] * 50)
    async with house.faces.locked(tenant, gallery) as locked:
        assert await locked.add_many(faces) == 51
    after = await house.galleries.read(tenant, gallery.gallery_id)
    assert after.head == 51
    (changes,) = [each async for each in house.faces.changes(tenant, after, 0, 16)]
    ids = await house.faces.ids(tenant, changes.added_face_nos)
    numbers = changes.added_face_nos.tolist()
    assert [ids[number] for number in numbers] == [first, *(each.face_id for each in faces)]
    assert numbers == sorted(numbers)
    rows = [each.embeddings[gallery.model_pack_no] for each in faces]
    given = np.stack([row for row in rows if row is not None])
    assert np.allclose(changes.added_embeddings[1:], given, atol=2e-3)
    page = await house.faces.page(house.other.tenant_id, house.other_gallery, None, 100)
    assert len(page) == 3


async def test_a_key_that_is_taken_undoes_the_whole_transaction(
    house: House, rng: np.random.Generator
) -> None:
    tenant, gallery = house.tenant.tenant_id, house.gallery
    known = await add(house.faces, gallery, unit_rows(rng, 1)[0], key="b")
    with pytest.raises(ConflictError):
        async with house.faces.locked(tenant, gallery) as locked:
            await locked.add_many(new_faces(house, rng, ["a", "b", "c"]))
    assert (await house.galleries.read(tenant, gallery.gallery_id)).head == 1
    found = await house.faces.enrolled_with_each(tenant, gallery, ["a", "b", "c"])
    assert found == {"b": known}
    other = await house.faces.enrolled_with_each(
        house.other.tenant_id, house.other_gallery, ["a", "b"]
    )
    assert other == {}
