"""The face table as its own log."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import DEFAULT_GALLERY, Changes, FaceId
from oneton.records import faces as faces_module
from oneton.records.templates import decode_templates, encode_template
from tests.records.conftest import DIMENSION, House, add, unit_rows

pytestmark = pytest.mark.anyio


async def changes_since(house: House, since: int) -> list[Changes]:
    gallery = await house.galleries.read(house.tenant.tenant_id, DEFAULT_GALLERY)
    found = house.faces.changes(house.tenant.tenant_id, gallery, since, DIMENSION)
    return [each async for each in found]


async def test_add_moves_the_head_by_one_and_stamps_the_face(
    house: House, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 5)
    for row in rows:
        await add(house.faces, house.gallery, row)
    (changes,) = await changes_since(house, 0)
    assert (changes.since, changes.head) == (0, 5)
    np.testing.assert_allclose(changes.added_embeddings, rows, atol=1e-3)
    assert len(set(changes.added_face_nos.tolist())) == 5


async def test_heads_have_no_gap_when_many_add_at_once(
    house: House, rng: np.random.Generator
) -> None:
    await asyncio.gather(*(add(house.faces, house.gallery, row) for row in unit_rows(rng, 40)))
    (changes,) = await changes_since(house, 0)
    assert changes.head == 40
    assert len(changes.added_face_nos) == 40


async def test_an_undone_add_leaves_neither_row_nor_head(
    house: House, rng: np.random.Generator
) -> None:
    with pytest.raises(RuntimeError, match="undo"):
        async with house.faces.locked(house.tenant.tenant_id, house.gallery) as locked:
            await locked.add(
                FaceId(uuid7()),
                unit_rows(rng, 1)[0],
                content_type="image/png",
                idempotency_key=None,
            )
            raise RuntimeError("undo")
    assert await changes_since(house, 0) == []


async def test_changes_come_in_chunks_that_join_without_gap(
    house: House, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces_module, "CHUNK", 4)
    ids = [await add(house.faces, house.gallery, row) for row in unit_rows(rng, 10)]
    async with house.faces.locked(house.tenant.tenant_id, house.gallery) as locked:
        assert await locked.purge(ids[2])
    chunks = await changes_since(house, 0)
    assert [chunk.since for chunk in chunks] == [0, *(chunk.head for chunk in chunks[:-1])]
    assert chunks[-1].head == 11
    assert sum(len(chunk.added_face_nos) for chunk in chunks) == 9


async def test_purge_leaves_only_numbers(house: House, rng: np.random.Generator) -> None:
    face_id = await add(house.faces, house.gallery, unit_rows(rng, 1)[0], key="k")
    async with house.faces.locked(house.tenant.tenant_id, house.gallery) as locked:
        assert await locked.purge(face_id)
        assert not await locked.purge(face_id)
    with pytest.raises(NotFoundError):
        await house.faces.find(house.tenant.tenant_id, face_id)
    async with house.faces._database.transaction(house.tenant.tenant_id) as connection:
        (row,) = await connection.fetch("select * from face")
        left = {name for name, value in row.items() if value is not None}
        assert left == {"face_no", "tenant_id", "gallery_no", "added_at_head", "removed_at_head"}
        assert await connection.fetchval("select count(*) from template") == 0


async def test_removal_is_heard_after_the_head_of_the_addition(
    house: House, rng: np.random.Generator
) -> None:
    face_id = await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    (added,) = await changes_since(house, 0)
    async with house.faces.locked(house.tenant.tenant_id, house.gallery) as locked:
        await locked.purge(face_id)
    (removed,) = await changes_since(house, 1)
    assert removed.removed_face_nos.tolist() == added.added_face_nos.tolist()
    assert await house.faces.ids(house.tenant.tenant_id, added.added_face_nos) == {}


async def test_an_idempotency_key_is_taken_once(house: House, rng: np.random.Generator) -> None:
    first, second = unit_rows(rng, 2)
    face_id = await add(house.faces, house.gallery, first, key="same")
    with pytest.raises(ConflictError):
        await add(house.faces, house.gallery, second, key="same")
    found = await house.faces.enrolled_with(house.tenant.tenant_id, DEFAULT_GALLERY, "same")
    assert found == face_id


async def test_erase_is_idempotent_and_keeps_the_first_time(
    house: House, rng: np.random.Generator
) -> None:
    face_id = await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    first = await house.faces.erase_image(house.tenant.tenant_id, face_id)
    again = await house.faces.erase_image(house.tenant.tenant_id, face_id)
    assert not first.has_image
    assert first == again


async def test_page_walks_every_face_once(house: House, rng: np.random.Generator) -> None:
    ids = [await add(house.faces, house.gallery, row) for row in unit_rows(rng, 7)]
    walked, after = [], None
    while page := await house.faces.page(house.tenant.tenant_id, house.gallery, after, 3):
        walked += [face.face_id for face in page]
        after = page[-1].face_id
    assert walked == sorted(ids)


def test_templates_survive_storage_with_unit_norm(rng: np.random.Generator) -> None:
    rows = unit_rows(rng, 50, 512)
    read = decode_templates(b"".join(encode_template(row) for row in rows), 512)
    np.testing.assert_allclose(np.linalg.norm(read, axis=1), 1, atol=1e-6)
    assert (np.sum(read * rows, axis=1) > 0.999999).all()
