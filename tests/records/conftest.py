"""Galleries of two tenants, filled with random templates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
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
    Tenant,
)
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.store import IndexStore
from oneton.records.database import Database
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.model_packs import ModelPacks
from oneton.records.tenants import Tenants
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.cpu import Cpu

DIMENSION = 16
PACK = ModelPack("test", "0" * 64, DIMENSION)


class House(msgspec.Struct, frozen=True):
    """One tenant and its gallery, in a database where another has as many rows."""

    tenant: Tenant
    gallery: Gallery
    other: Tenant
    other_gallery: Gallery
    faces: Faces
    galleries: Galleries
    packs: ModelPacks


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


class Hands(msgspec.Struct, frozen=True):
    """What indexes are held with."""

    cpu: Cpu
    upkeep: Cpu
    store: IndexStore


@contextmanager
def open_hands(folder: Path, policy: Policy | None = None, least_faces: int = 1) -> Iterator[Hands]:
    """Threads, and a place for snapshots, as one process has them."""
    cpu, upkeep, threads = Cpu(2, 50), Cpu(1, 0, name="upkeep", nice=10), ScanThreads(2)
    store = IndexStore(folder, policy or Policy(), threads, least_faces)
    try:
        yield Hands(cpu, upkeep, store)
    finally:
        cpu.close()
        upkeep.close()
        threads.close()
        store.close()


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    with open_hands(tmp_path / "snapshots") as made:
        yield made


@pytest.fixture
async def catch_up(house: House, hands: Hands) -> AsyncIterator[CatchUp]:
    """Indexes of galleries of the test pack."""
    made = make_catch_up(house, hands)
    yield made
    await made.close()


def make_catch_up(house: House, hands: Hands) -> CatchUp:
    return CatchUp(house.galleries, house.faces, hands.cpu, hands.upkeep, hands.store, house.packs)


@pytest.fixture
async def house(database: Database, rng: np.random.Generator) -> House:
    tenants, galleries, faces = Tenants(database), Galleries(database), Faces(database)
    packs = ModelPacks(database)
    pack_no = await packs.number(PACK)
    made = [await tenants.create(name, DEFAULT_GALLERY, pack_no) for name in ("one", "other")]
    read = [await galleries.read(each.tenant_id, DEFAULT_GALLERY) for each in made]
    for row in unit_rows(rng, 3):
        await add(faces, read[1], row)
    return House(made[0], read[0], made[1], read[1], faces, galleries, packs)
