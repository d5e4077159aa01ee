"""Processes that hold a gallery's index, judged against what Postgres has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import UnavailableError
from oneton.domain.model import DEFAULT_GALLERY, Gallery
from oneton.index.merging import Policy
from oneton.index.segmented import SegmentedIndex
from oneton.index.store import IndexStore
from oneton.verbs.catch_up import CatchUp, Loaded
from oneton.verbs.keep_up import KeepUp
from tests.records.conftest import DIMENSION, House, add, make_catch_up, open_hands, unit_rows

POLICY = Policy(seal_faces=64, fanout=2)
TOLERANCE = 1e-3
"""A template is fp16 once it is sealed."""
NEVER_S = 1e9


class Process(msgspec.Struct, frozen=True):
    """What one process has, for one tenant's gallery."""

    house: House
    catch_up: CatchUp
    keep_up: KeepUp
    store: IndexStore

    async def index(self) -> SegmentedIndex:
        """The gallery's index, current."""
        return (await self.catch_up(self.house.tenant.tenant_id, DEFAULT_GALLERY)).index

    def held(self) -> Loaded:
        """The gallery, which is held."""
        (held,) = self.catch_up.held()
        return held

    async def answers(self) -> int:
        """Every search is answered as the full product over Postgres's rows does.

        Returns:
            how often it was said to try again; an AssertionError when an answer is wrong.
        """
        face_nos, rows = await truth(self.house)
        rng = np.random.default_rng(len(rows))
        probes = np.concatenate([rows, unit_rows(rng, 5)])
        for refused in range(3):
            try:
                index = await self.index()
                cosines, found = index.search(probes, 3)
            except UnavailableError:
                continue
            assert len(index) == len(rows)
            products = np.sort(probes @ rows.T, axis=1)[:, ::-1]
            np.testing.assert_allclose(cosines, products[:, :3], atol=TOLERANCE)
            np.testing.assert_array_equal(found[: len(rows), 0], face_nos)
            return refused
        raise AssertionError("it goes on saying to try again")

    async def take(self) -> bool:
        """Seal what is due and take a snapshot; whether it was."""
        await self.index()
        await self.keep_up.once()
        return await self.keep_up.take_snapshot(self.held()) is not None


@asynccontextmanager
async def process(
    house: House, folder: Path, *, snapshot_changes: int = 1_000_000
) -> AsyncIterator[Process]:
    """A new process that keeps its snapshots in a folder."""
    with open_hands(folder, POLICY) as hands:
        catch_up = make_catch_up(house, hands)
        keep_up = KeepUp(catch_up, hands.store, hands.upkeep, 1 << 30, NEVER_S, snapshot_changes)
        try:
            yield Process(house, catch_up, keep_up, hands.store)
        finally:
            await catch_up.close()


async def truth(house: House) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The faces that are there, and their templates."""
    gallery = await now(house)
    found = house.faces.changes(gallery.tenant_id, gallery, 0, DIMENSION)
    (changes,) = [each async for each in found]
    return changes.added_face_nos, changes.added_embeddings


async def now(house: House) -> Gallery:
    """The gallery as Postgres has it."""
    return await house.galleries.read(house.tenant.tenant_id, DEFAULT_GALLERY)


async def enroll(house: House, rng: np.random.Generator, count: int) -> None:
    """Add faces."""
    for row in unit_rows(rng, count):
        await add(house.faces, house.gallery, row)


async def purge(house: House, *places: int) -> None:
    """Remove the faces of these places in order of enrolment."""
    tenant, (face_nos, _) = house.tenant.tenant_id, await truth(house)
    names = await house.faces.ids(tenant, face_nos[list(places)])
    for face_id in names.values():
        async with house.faces.locked(tenant, house.gallery) as locked:
            assert await locked.purge(face_id)
