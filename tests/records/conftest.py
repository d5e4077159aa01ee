"""Galleries of two tenants, filled with random templates."""

from __future__ import annotations

from uuid import UUID

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.domain.model import (
    DEFAULT_GALLERY,
    FaceId,
    Gallery,
    ModelPack,
    Score,
    Tenant,
)
from oneton.records.database import Database
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries, ModelPacks
from oneton.records.tenants import Tenants

DIMENSION = 16


class House(msgspec.Struct, frozen=True):
    """One tenant and its gallery, in a database where another has as many rows."""

    tenant: Tenant
    gallery: Gallery
    other: Tenant
    other_gallery: Gallery
    faces: Faces
    galleries: Galleries


def unit_rows(
    rng: np.random.Generator, count: int, dimension: int = DIMENSION
) -> NDArray[np.float32]:
    rows = rng.normal(size=(count, dimension)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


async def add(
    faces: Faces, gallery: Gallery, embedding: NDArray[np.float32], key: str | None = None
) -> FaceId:
    face_id = FaceId(UUID(str(uuid7())))
    async with faces.locked(gallery.tenant_id, gallery) as locked:
        await locked.add(face_id, embedding, content_type="image/jpeg", idempotency_key=key)
    return face_id


@pytest.fixture
async def house(database: Database, rng: np.random.Generator) -> House:
    tenants, galleries, faces = Tenants(database), Galleries(database), Faces(database)
    pack_no = await ModelPacks(database).number(ModelPack("test", "0" * 64, DIMENSION))
    made = [
        await tenants.create(name, DEFAULT_GALLERY, pack_no, Score(50)) for name in ("one", "other")
    ]
    read = [await galleries.read(each.tenant_id, DEFAULT_GALLERY) for each in made]
    for row in unit_rows(rng, 3):
        await add(faces, read[1], row)
    return House(made[0], read[0], made[1], read[1], faces, galleries)
