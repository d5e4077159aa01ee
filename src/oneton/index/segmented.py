"""The index of one gallery: sealed segments and an open tail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from oneton.domain.errors import DimensionError, SnapshotError
from oneton.domain.model import Changes
from oneton.index.allocator import give_back
from oneton.index.codes import LEAST_ROWS
from oneton.index.merging import Policy, choose
from oneton.index.ranking import Part, rank
from oneton.index.scan import ScanThreads
from oneton.index.segment import Piece, Segment, build_segment
from oneton.index.tail import Tail

log = structlog.get_logger()

BULK_FACES = 65_536
"""Changes of this many faces become a segment at once."""


class View(msgspec.Struct, frozen=True):
    """What a search reads; replaced as a whole, so that a search needs no lock."""

    head: int
    parts: tuple[Part, ...]
    tail: Tail


class SegmentedIndex:
    """An exhaustive search in two stages; see the Protocol `GalleryIndex`.

    Attributes:
        damage: what was found wrong with a segment's file; the index is of no more use then.

    Args:
        dimension: D of the model pack.
        folder: where segments are written; None keeps everything in memory.
        threads: those that scan; by default the caller's.
        now: seconds since 1970.
    """

    def __init__(
        self,
        dimension: int,
        *,
        folder: Path | None = None,
        policy: Policy | None = None,
        threads: ScanThreads | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.dimension = dimension
        self.damage: str | None = None
        self._folder = folder
        self._policy = policy or Policy()
        self._threads = threads or ScanThreads(1)
        self._now = now
        self._view = View(0, (), Tail.empty(dimension))
        self._tail_since_s = now()
        self._unwritten_since_s: float | None = None
        self._changing = threading.Lock()
        self._keeping_up = threading.Lock()

    @property
    def head(self) -> int:
        return self._view.head

    @property
    def view(self) -> View:
        """The state of this moment."""
        return self._view

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        view = self._view
        codecs = {part.codec for part in view.parts}
        shared = sum(codec.size_bytes for codec in codecs)
        return view.tail.size_bytes + shared + sum(part.size_bytes for part in view.parts)

    def __len__(self) -> int:
        view = self._view
        return len(view.tail) + sum(len(part) for part in view.parts)

    def catch_up(self, changes: Changes) -> None:
        count = len(changes.added_face_nos)
        if count and changes.added_embeddings.shape[1] != self.dimension:
            raise DimensionError(changes.added_embeddings.shape[1], self.dimension)
        sealed: tuple[Part, ...] = ()
        if count >= BULK_FACES:
            templates = changes.added_embeddings.astype(np.float16)
            piece = Piece(changes.added_face_nos, templates, np.arange(count))
            sealed = (Part.whole(self._build([piece], self._threads.most)),)
        with self._changing:
            view = self._view
            assert changes.since == view.head, "changes must follow the index's head"
            tail = view.tail
            if count and not sealed:
                if not tail.size:
                    self._tail_since_s = self._now()
                tail = tail.with_added(changes.added_face_nos, changes.added_embeddings)
            parts = (*view.parts, *sealed)
            if len(changes.removed_face_nos):
                tail = tail.without(changes.removed_face_nos)
                parts = tuple(part.without(changes.removed_face_nos) for part in parts)
            self._view = View(changes.head, parts, tail)

    def search(
        self, probes: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        assert k >= 1
        if probes.shape[1] != self.dimension:
            raise DimensionError(probes.shape[1], self.dimension)
        view = self._view
        probes = np.ascontiguousarray(probes, dtype=np.float32)
        try:
            return rank(view.parts, view.tail, probes, k, self._threads)
        except SnapshotError as error:
            self.damage = str(error)
            raise

    def holds(self, face_nos: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these faces, none of them negative, a search now would rank."""
        view = self._view
        held = [view.tail.face_nos[: view.tail.size]]
        for part in view.parts:
            rows = part.segment.rows_of(face_nos)
            held.append(part.segment.face_nos[rows[part.alive[rows]]])
        return np.isin(face_nos, np.concatenate(held))

    def start_from(self, view: View) -> None:
        """Take over the state of a snapshot; the index must be new."""
        with self._changing:
            assert self._view.head == 0, "an index starts once"
            self._view = view
            self._tail_since_s = self._now()

    def upkeep(self) -> bool:
        """Seal or merge once, if that is due; searches and changes go on meanwhile.

        For one thread at a time; another finds nothing due.

        Returns:
            whether something was done.

        Raises:
            SnapshotError: a segment's file is damaged.
        """
        if not self._keeping_up.acquire(blocking=False):
            return False
        try:
            done = self._seal() or self._merge()
            if done:
                give_back()
            return done
        except SnapshotError as error:
            self.damage = str(error)
            raise
        finally:
            self._keeping_up.release()

    def wants_upkeep(self) -> bool:
        """False for the many small galleries that never have anything due."""
        view = self._view
        return bool(view.parts) or view.tail.size >= self._policy.seal_faces // 4

    def files(self) -> set[str]:
        """Names of the segments that are in use."""
        return {part.segment.meta.name for part in self._view.parts if part.segment.meta}

    def _seal(self) -> bool:
        policy = self._policy
        tail = self._view.tail
        old = self._now() - self._tail_since_s >= policy.seal_after_s
        if not (tail.size >= policy.seal_faces or (old and tail.size >= policy.seal_faces // 4)):
            return False
        with self._changing:
            tail = self._view.tail
            if len(tail) < LEAST_ROWS:
                self._view = msgspec.structs.replace(self._view, tail=tail.compacted())
                return False
            size = tail.size
            kept = np.flatnonzero(tail.face_nos[:size] >= 0)
            # Copied, for a removal fills rows with zeros.
            face_nos, rows = tail.face_nos[kept], tail.rows[kept]
        segment = self._build([Piece(face_nos, rows.astype(np.float16), np.arange(len(kept)))])
        with self._changing:
            view = self._view
            # The tail was replaced when it was compacted meanwhile: go by face number.
            still = view.tail.face_nos[: view.tail.size]
            removed = np.setdiff1d(face_nos, still)
            last = np.flatnonzero(np.isin(still, face_nos))
            rest = view.tail.compacted(int(last[-1]) + 1 if len(last) else 0)
            part = Part.whole(segment).without(removed)
            self._view = View(view.head, (*view.parts, part), rest)
            self._tail_since_s = self._now()
        return True

    def _merge(self) -> bool:
        chosen = choose(self._view.parts, self._policy, self._now(), may_write=self._may_write())
        if not chosen:
            return False
        before = [part.alive.copy() for part in chosen]
        pieces = [
            Piece(part.segment.face_nos[alive], part.segment, np.flatnonzero(alive))
            for part, alive in zip(chosen, before, strict=True)
        ]
        faces = sum(len(piece.face_nos) for piece in pieces)
        segment = self._build(pieces) if faces >= LEAST_ROWS else None
        if segment is None and faces:
            return self._back_to_tail(chosen)
        with self._changing:
            view = self._view
            merged: tuple[Part, ...] = ()
            if segment is not None:
                now_alive = {part.segment: part.alive for part in view.parts}
                gone = [
                    part.segment.face_nos[alive & ~now_alive[part.segment]]
                    for part, alive in zip(chosen, before, strict=True)
                ]
                merged = (Part.whole(segment).without(np.concatenate(gone)),)
            self._replace(view, chosen, merged, view.tail)
        return True

    def _back_to_tail(self, chosen: Sequence[Part]) -> bool:
        """Too few faces are left of these segments for codes of their own."""
        with self._changing:
            view = self._view
            tail = view.tail
            for part in view.parts:
                if part.segment in {each.segment for each in chosen}:
                    rows = np.flatnonzero(part.alive)
                    tail = tail.with_added(part.segment.face_nos[rows], part.embeddings(rows))
            self._replace(view, chosen, (), tail)
        return True

    def _replace(self, view: View, old: Sequence[Part], new: tuple[Part, ...], tail: Tail) -> None:
        gone = {part.segment for part in old}
        kept = tuple(part for part in view.parts if part.segment not in gone)
        self._view = View(view.head, kept + new, tail)

    def _may_write(self) -> bool:
        """Whether segments in memory should be written now; after a failure, a minute later."""
        failed = self._unwritten_since_s
        return self._folder is not None and (failed is None or self._now() - failed > 60)

    def _build(self, pieces: Sequence[Piece], threads: int = 1) -> Segment:
        name = uuid4().hex
        largest = max(self._view.parts, key=lambda part: len(part.segment), default=None)
        known = None if largest is None else largest.codec
        if self._folder is not None and self._may_write():
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                segment = build_segment(pieces, self._now(), self._folder, name, threads, known)
            except OSError as error:
                self._unwritten_since_s = self._now()
                log.warning(
                    "a segment is kept in memory, for it cannot be written",
                    folder=str(self._folder),
                    error=error.strerror or str(error),
                )
            else:
                self._unwritten_since_s = None
                return segment
        return build_segment(pieces, self._now(), None, name, threads, known)
