"""Examine indexes: what snapshots and Postgres make of a gallery, against its rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import ConflictError, KeyDestroyedError, NotFoundError, SnapshotError
from oneton.domain.examining import Examined, Finding, Kind
from oneton.domain.model import Gallery, TenantId
from oneton.index.segmented import SegmentedIndex
from oneton.index.templates import unit_rows
from oneton.records.examining import Enrolled, Examining
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.tenants import Tenants
from oneton.verbs.catch_up import CatchUp

SAMPLE = 64
CANDIDATES = 8
TIE = 2e-3
"""Templates so alike are a tie: a face that is enrolled twice."""
LEAST_COSINE = 0.995


@dataclass(frozen=True)
class ExamineIndexes:
    """Loads every gallery as a server does, compares every face number, and searches for some.

    Args:
        open_catch_up: indexes in a place of their own, which begin with links to this machine's
            snapshots, so that nothing of a server's is touched.
    """

    tenants: Tenants
    galleries: Galleries
    faces: Faces
    examining: Examining
    open_catch_up: Callable[[], AbstractAsyncContextManager[CatchUp]]

    async def __call__(self) -> Examined:
        """Look once."""
        examined = Examined("indexes")
        async with self.open_catch_up() as catch_up:
            for tenant in await self.tenants.list():
                for gallery in await self.galleries.list(tenant.tenant_id):
                    try:
                        await self._examine(catch_up, gallery, examined)
                    except NotFoundError:
                        continue  # Deleted meanwhile.
                    except KeyDestroyedError:
                        examined.count("galleries without a key")
                    for held in catch_up.held():
                        catch_up.drop(held)
        return examined

    async def _examine(self, catch_up: CatchUp, gallery: Gallery, examined: Examined) -> None:
        tenant, name = gallery.tenant_id, gallery.gallery_id

        def find(kind: Kind, said: str) -> None:
            examined.findings.append(Finding(kind, said, tenant=tenant, gallery=name))

        try:
            current = await catch_up(tenant, name)
        except ConflictError as error:
            find(Kind.INDEX, str(error))
            return
        index, head = current.index, current.index.head
        enrolled = await self.examining.enrolled(tenant, current.gallery, current.pack_no, head)
        examined.count("galleries")
        examined.count("faces", len(enrolled.present))
        if why := await asyncio.to_thread(_differs, index, enrolled):
            find(Kind.INDEX, f"at head {head} {why}")
            return
        try:
            searched, wrong = await self._search(
                tenant, current.gallery, current.pack_no, index, enrolled
            )
        except SnapshotError as error:
            find(Kind.INDEX, str(error))
            return
        examined.count("searches", searched)
        if wrong:
            find(Kind.SEARCH, f"{wrong} of {searched} templates do not find their own face")

    async def _search(
        self,
        tenant: TenantId,
        gallery: Gallery,
        pack_no: int,
        index: SegmentedIndex,
        enrolled: Enrolled,
    ) -> tuple[int, int]:
        """How many templates were searched with, and how many of them found another face."""
        if not enrolled.present:
            return 0, 0
        rng = np.random.default_rng()
        count = min(SAMPLE, len(enrolled.present))
        drawn = rng.choice(np.array(enrolled.present, dtype=np.int64), count, replace=False)
        stamps = await self.faces.stamps(tenant, gallery, pack_no, drawn.tolist())
        found = {
            no: np.frombuffer(stamp.template, dtype="<f2")
            for no, stamp in stamps.items()
            if stamp.template is not None and len(stamp.template) == 2 * index.dimension
        }
        if not found:
            return 0, 0
        numbers = np.array(list(found), dtype=np.int64)
        probes = unit_rows(np.stack(list(found.values())))
        return len(numbers), await asyncio.to_thread(partial(_misses, index, numbers, probes))


def _differs(index: SegmentedIndex, enrolled: Enrolled) -> str:
    """What an index has otherwise than the table; empty when nothing."""
    present = np.array(enrolled.present, dtype=np.int64)
    removed = np.array(enrolled.removed, dtype=np.int64)
    held = index.holds(present) if len(present) else np.empty(0, bool)
    if not held.all():
        lacking = present[~held]
        return f"it lacks {len(lacking)} of {len(present)} faces, the first is {lacking[0]}"
    known = len(present) + (int(index.holds(removed).sum()) if len(removed) else 0)
    if len(index) != known:
        return f"it has {len(index)} faces, the table {known}"
    return ""


def _misses(index: SegmentedIndex, numbers: NDArray[np.int64], probes: NDArray[np.float32]) -> int:
    cosines, face_nos = index.search(probes, CANDIDATES)
    own = np.where(face_nos == numbers[:, np.newaxis], cosines, -2.0).max(axis=1)
    # Where one photo was enrolled more often than that, any of its records may come first.
    own = np.maximum(own, cosines[:, -1])
    return int(((own < LEAST_COSINE) | (own < cosines[:, 0] - TIE)).sum())
