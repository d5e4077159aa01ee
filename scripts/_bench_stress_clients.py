"""One gallery that two clients change all the time, and what a process holds it with."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
from _bench_stress_oracle import DIMENSION, Drawn, Kind, Search
from _fill import fill
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.domain.model import FaceId, Gallery, ModelPack
from oneton.domain.stages import collected_stages, stage
from oneton.index import segment, segmented
from oneton.index.manifest import Identity, Manifest
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.segment import Piece, Segment
from oneton.index.store import IndexStore
from oneton.records.database import Database
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.model_packs import ModelPacks
from oneton.records.news import HeadNews
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.cpu import Cpu
from oneton.verbs.keep_up import KeepUp

PACK = ModelPack("stress", "0" * 64, DIMENSION)
POLICY = Policy(seal_faces=256, fanout=3, removed_share=0.2, forget_removed_s=5.0)
SNAPSHOT_INTERVAL_S, SNAPSHOT_CHANGES = 1.0, 500
MEMORY_BYTES = 1 << 30
NEWEST = 30
A_FEW = Counter(seals=3, merges=2, snapshots=3)


class CountingStore(IndexStore):
    """Counts the snapshots that it takes."""

    def __init__(self, folder: Path, threads: ScanThreads, done: Counter[str]) -> None:
        super().__init__(folder, POLICY, threads, least_faces=1)
        self._done = done

    def take(self, identity: Identity, index: segmented.SegmentedIndex) -> Manifest | None:
        manifest = super().take(identity, index)
        self._done["snapshots"] += manifest is not None
        return manifest


class Holder(msgspec.Struct, frozen=True):
    """What a process holds indexes with.

    Attributes:
        done: how many seals, merges and snapshots there were.
    """

    cpu: Cpu
    catch_up: CatchUp
    keep_up: KeepUp
    news: HeadNews
    done: Counter[str]


@contextmanager
def hold(database: Database, folder: Path) -> Iterator[Holder]:
    """Indexes as the app has them, with tiny limits."""
    done: Counter[str] = Counter()
    cpu, upkeep, threads = Cpu(2, 50), Cpu(1, 0, name="upkeep", nice=10), ScanThreads(2)
    store = CountingStore(folder, threads, done)
    packs = ModelPacks(database)
    catch_up = CatchUp(Galleries(database), Faces(database), cpu, upkeep, store, packs)
    keep_up = KeepUp(catch_up, store, upkeep, MEMORY_BYTES, SNAPSHOT_INTERVAL_S, SNAPSHOT_CHANGES)
    try:
        with counted(done):
            yield Holder(cpu, catch_up, keep_up, HeadNews(database.dsn, catch_up.hear), done)
    finally:
        for each in (cpu, upkeep, threads, store):
            each.close()


@contextmanager
def counted(done: Counter[str]) -> Iterator[None]:
    """Count seals and merges."""
    build = segment.build_segment

    def counting(pieces: Sequence[Piece], *others: Any) -> Segment:  # noqa: ANN401 - all it takes
        made = build(pieces, *others)
        done["merges" if isinstance(pieces[0].source, Segment) else "seals"] += 1
        return made

    setattr(segmented, "build_segment", counting)  # noqa: B010 - it is there by an import
    try:
        yield
    finally:
        setattr(segmented, "build_segment", build)  # noqa: B010


class Stress:
    """One gallery, its two clients, and searches one after another."""

    def __init__(self, database: Database, gallery: Gallery, seed: int) -> None:
        self._faces = Faces(database)
        self._gallery = gallery
        self._drawn = Drawn(np.random.default_rng(seed))
        self._random = Random(seed)
        self._present: list[tuple[int, FaceId]] = []
        self._newest: list[int] = []
        self._gone: list[int] = []
        self._acknowledged = 0
        self._stopping = False
        self.templates: dict[int, NDArray[np.float16]] = {}
        self.searches: list[Search] = []

    async def fill(self, owner_dsn: str, count: int) -> None:
        """Begin with so many faces."""
        rows = self._drawn.draw(count)
        added = await fill(owner_dsn, [self._gallery], rows)
        self._present = list(enumerate(added, start=1))
        self.templates = dict(enumerate(rows.astype(np.float16), start=1))
        self._acknowledged = count

    async def search_for(
        self, holder: Holder, seconds: float, *, least: Counter[str] | None = None
    ) -> list[Search]:
        """Search one after another, with every kind of probe, for one face and for five.

        Args:
            least: seals, merges and snapshots that must have happened before it ends.
        """
        searches: list[Search] = []
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s or not (least or Counter()) <= holder.done:
            kind = list(Kind)[len(searches) % len(Kind)]
            k = 1 if self._random.random() < 0.5 else 5
            searches.append(await self._search(holder, kind, k))
        self.searches += searches
        return searches

    async def disturb(self, holder: Holder, seconds: float) -> list[Search]:
        """Search while the clients and the upkeep are at work, until a few of each are done."""
        kept = len(self._present) // 2
        clients = [asyncio.create_task(each) for each in (self._enroll(), self._remove(kept))]
        keeping_up = asyncio.gather(holder.keep_up.run(), holder.news.run())
        try:
            return await self.search_for(holder, seconds, least=holder.done + A_FEW)
        finally:
            self._stopping = True
            await asyncio.gather(*clients)
            keeping_up.cancel()
            with suppress(asyncio.CancelledError):
                await keeping_up

    async def _search(self, holder: Holder, kind: Kind, k: int) -> Search:
        mate, probe = self._probe(kind)
        acknowledged = self._acknowledged
        with collected_stages() as stages, stage("all"):
            current = await holder.catch_up(self._gallery.tenant_id, self._gallery.gallery_id)
            with stage("search"):
                cosines, face_nos = await holder.cpu.run(
                    partial(current.index.search, probe[np.newaxis], k)
                )
        return Search(
            kind=kind,
            probe=probe,
            mate=mate,
            acknowledged=acknowledged,
            before=current.gallery.head,
            after=current.index.head,
            cosines=cosines[0],
            face_nos=face_nos[0],
            stages_ms=stages,
        )

    def _probe(self, kind: Kind) -> tuple[int, NDArray[np.float32]]:
        """The head at which its face was enrolled, 0 for a stranger, and a probe."""
        gone, newest = self._gone[-NEWEST:], self._newest[-NEWEST:]
        if kind is Kind.STRANGER or not self._present:
            return 0, self._drawn.draw(1)[0]
        if kind is Kind.REMOVED and gone:
            mate = self._random.choice(gone)
        elif kind is Kind.NEWEST and newest:
            mate = self._random.choice(newest)
        else:
            mate, _ = self._random.choice(self._present)
        row = self.templates[mate].astype(np.float32)
        return mate, self._drawn.near(row, self._random.uniform(0.5, 0.9))

    async def _enroll(self) -> None:
        while not self._stopping:
            for row in self._drawn.draw(64):
                face_id = FaceId(uuid7())
                async with self._faces.locked(self._gallery.tenant_id, self._gallery) as locked:
                    head = await locked.add(
                        face_id, row, content_type="image/jpeg", idempotency_key=None
                    )
                self.templates[head] = row.astype(np.float16)
                self._present.append((head, face_id))
                self._newest.append(head)
                self._acknowledged = max(self._acknowledged, head)

    async def _remove(self, least: int) -> None:
        """Remove any face, while there are more than so many."""
        while not self._stopping:
            if len(self._present) <= least:
                await asyncio.sleep(0.01)
                continue
            place = self._random.randrange(len(self._present))
            self._present[place], self._present[-1] = self._present[-1], self._present[place]
            added, face_id = self._present.pop()
            async with self._faces.locked(self._gallery.tenant_id, self._gallery) as locked:
                assert await locked.purge(face_id)
                head = locked.gallery.head + 1
            self._gone.append(added)
            self._acknowledged = max(self._acknowledged, head)
