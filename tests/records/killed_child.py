"""A process that holds one gallery and changes it all the time, until it is killed.

Run by `test_killed.py` as `python -m tests.records.killed_child LIFE`, a JSON of `Life`. It says
what it does in lines of JSON, `Said`, each by one write, so that a kill leaves no half of one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from oneton.domain.model import FaceId, Gallery, ModelPack
from oneton.index import segment, segmented
from oneton.index.manifest import Identity, Manifest
from oneton.index.merging import Policy
from oneton.index.segment import Piece, Segment
from oneton.index.segmented import SegmentedIndex
from oneton.index.store import IndexStore
from oneton.index.templates import unit_rows
from oneton.records.database import Database
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.locked_gallery import LockedGallery
from oneton.records.model_packs import ModelPacks
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.keep_up import KeepUp
from tests.records.conftest import open_hands

DIMENSION = 512
PACK = ModelPack("killed", "0" * 64, DIMENSION)
MEMORY_BYTES = 1 << 30


class Life(msgspec.Struct, frozen=True):
    """What a process is to do.

    Attributes:
        folder: of the snapshots.
        ledger: file of the `Ledger` of all earlier lives.
        first: number of the first face to add.
        faces: about so many there should be.
        changing: end in an orderly way when false, once all is checked.
    """

    dsn: str
    folder: str
    gallery: Gallery
    ledger: str
    first: int
    faces: int
    changing: bool
    seal_faces: int
    fanout: int
    snapshot_changes: int


class Ledger(msgspec.Struct):
    """What was acknowledged: face numbers of ours, each with the head it was added at."""

    present: dict[int, int]
    gone: dict[int, int]


class Said(msgspec.Struct, omit_defaults=True):
    """One line.

    Attributes:
        what: opening, checked, add, added, remove, removed; begun, done and taken of the upkeep.
        number: of the face that is added or removed.
        head: at which that face was added; or of the snapshot that was taken, or begun with.
        work: seal, merge or snapshot.
        wrong: what was wrong when the index was checked.
    """

    what: str
    number: int = 0
    head: int = 0
    work: str = ""
    wrong: list[str] = msgspec.field(default_factory=list)


def say(said: Said) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(said) + b"\n")


def template(number: int) -> NDArray[np.float32]:
    """(D,) of a face, as Postgres gives it back."""
    row = np.random.default_rng(number).standard_normal((1, DIMENSION), dtype=np.float32)
    row /= np.linalg.norm(row)
    return np.asarray(unit_rows(row.astype(np.float16))[0])


def face_id(number: int) -> FaceId:
    return FaceId(UUID(int=number))


@contextmanager
def aloud(work: str) -> Iterator[None]:
    """Say when a piece of upkeep begins and when it is done."""
    say(Said("begun", work=work))
    try:
        yield
    finally:
        say(Said("done", work=work))


def upkeep_aloud(store: IndexStore) -> None:
    """Say when there is a seal, a merge or a snapshot."""
    take_quietly = store.take

    def build(pieces: Sequence[Piece], *others: Any) -> Segment:
        with aloud("merge" if isinstance(pieces[0].source, Segment) else "seal"):
            return segment.build_segment(pieces, *others)

    def take(identity: Identity, index: SegmentedIndex) -> Manifest | None:
        with aloud("snapshot"):
            manifest = take_quietly(identity, index)
        if manifest is not None:
            say(Said("taken", head=manifest.head))
        return manifest

    setattr(segmented, "build_segment", build)  # noqa: B010 - it is there by an import
    setattr(store, "take", take)  # noqa: B010 - a method


class Child:
    """One life."""

    def __init__(self, life: Life, database: Database, catch_up: CatchUp, keep_up: KeepUp) -> None:
        self._life = life
        self._database = database
        self._faces = Faces(database)
        self._catch_up = catch_up
        self._keep_up = keep_up
        self._ledger = msgspec.json.decode(Path(life.ledger).read_bytes(), type=Ledger)
        self._random = Random(life.first)

    async def live(self) -> None:
        """Open the index, check it, then change it."""
        say(Said("opening"))
        current = await self._current()
        began_at = self._catch_up.held()[0].snapshot_head
        say(Said("checked", head=began_at, wrong=await self._wrong(current)))
        if self._life.changing:
            await asyncio.gather(self._add(), self._remove(), self._follow(), self._keep_up_fast())
        await self._keep_up.take_snapshot(self._catch_up.held()[0])

    async def _current(self) -> Current:
        return await self._catch_up(self._life.gallery.tenant_id, self._life.gallery.gallery_id)

    def _locked(self) -> AbstractAsyncContextManager[LockedGallery]:
        return self._faces.locked(self._life.gallery.tenant_id, self._life.gallery)

    async def _wrong(self, current: Current) -> list[str]:
        """What of the index is not as Postgres has it, or not as it was acknowledged."""
        index, gallery = current.index, current.gallery
        async with self._database.transaction(gallery.tenant_id) as connection:
            rows = await connection.fetch(
                """select face_no, added_at_head, coalesce(removed_at_head > $2, true) as there
                   from face where gallery_no = $1 and added_at_head <= $2""",
                gallery.gallery_no,
                index.head,
            )
        face_nos = {row["added_at_head"]: row["face_no"] for row in rows}
        there = {row["face_no"] for row in rows if row["there"]}
        tail = index.view.tail.face_nos[: index.view.tail.size]
        parts = [part.segment.face_nos[part.alive] for part in index.view.parts]
        held = np.concatenate([tail[tail >= 0], *parts]).tolist()
        wrong = [f"face {no} is held or not, as Postgres is not" for no in there ^ set(held)]
        wrong += ["a face is held twice"] * (len(held) - len(set(held)))
        present, gone = self._ledger.present, self._ledger.gone
        found = self._best(index, list(present))
        for number, (best, cosine) in found.items():
            if best != face_nos.get(present[number]) or cosine < 0.999:
                wrong.append(f"{number} is not found, but {best} at {cosine}")
        for number, (best, cosine) in self._best(index, list(gone)[-500:]).items():
            if best == face_nos[gone[number]] or cosine > 0.999:
                wrong.append(f"{number} is found and was removed")
        return wrong[:20]

    def _best(self, index: SegmentedIndex, numbers: list[int]) -> dict[int, tuple[int, float]]:
        """The best candidate of each face's own template."""
        if not numbers:
            return {}
        cosines, face_nos = index.search(np.stack([template(each) for each in numbers]), 1)
        best = zip(face_nos[:, 0].tolist(), cosines[:, 0].tolist(), strict=True)
        return dict(zip(numbers, best, strict=True))

    async def _add(self) -> None:
        number = self._life.first
        while True:
            if len(self._ledger.present) > 1.2 * self._life.faces:
                await asyncio.sleep(0.01)
                continue
            say(Said("add", number))
            async with self._locked() as locked:
                head = await locked.add(
                    face_id(number), template(number), content_type="-", idempotency_key=None
                )
            say(Said("added", number, head))
            self._ledger.present[number] = head
            number += 1

    async def _remove(self) -> None:
        while True:
            if len(self._ledger.present) < self._life.faces:
                await asyncio.sleep(0.01)
                continue
            number = self._random.choice(list(self._ledger.present))
            added = self._ledger.present.pop(number)
            say(Said("remove", number, added))
            async with self._locked() as locked:
                assert await locked.purge(face_id(number))
            say(Said("removed", number, added))

    async def _follow(self) -> None:
        while True:
            await self._current()
            await asyncio.sleep(0.002)

    async def _keep_up_fast(self) -> None:
        while True:
            await self._keep_up.once()
            await asyncio.sleep(0.002)


async def main(life: Life) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    policy = Policy(
        seal_faces=life.seal_faces, fanout=life.fanout, removed_share=0.2, forget_removed_s=0.5
    )
    database = await Database.connect(life.dsn, size=6)
    with open_hands(Path(life.folder), policy) as hands:
        upkeep_aloud(hands.store)
        catch_up = CatchUp(
            Galleries(database),
            Faces(database),
            hands.cpu,
            hands.upkeep,
            hands.store,
            ModelPacks(database),
        )
        keep_up = KeepUp(
            catch_up, hands.store, hands.upkeep, MEMORY_BYTES, 0.3, life.snapshot_changes
        )
        await Child(life, database, catch_up, keep_up).live()
        await catch_up.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Life)))
