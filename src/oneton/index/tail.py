"""The open tail: the newest faces, every inner product over fp32, by FAISS."""

from __future__ import annotations

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

FIRST_ROWS = 32
PAST_END = np.float32(-2.0)


class Tail(msgspec.Struct, frozen=True):
    """Replaced as a whole, so that a search needs no lock.

    Attributes:
        rows: (capacity, D) float32; those from `size` on are not filled yet.
        face_nos: (capacity,) int64; -1 marks a removed face, whose row is zeros.
        removed: number of removed faces among the first `size`.
    """

    rows: NDArray[np.float32]
    face_nos: NDArray[np.int64]
    size: int
    removed: int

    @classmethod
    def empty(cls, dimension: int, capacity: int = 0) -> Tail:
        """A tail without faces."""
        rows = np.zeros((capacity, dimension), dtype=np.float32)
        return cls(rows, np.full(capacity, -1, dtype=np.int64), 0, 0)

    def __len__(self) -> int:
        return self.size - self.removed

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return int(self.rows.nbytes + self.face_nos.nbytes)

    def with_added(self, face_nos: NDArray[np.int64], rows: NDArray[np.float32]) -> Tail:
        """This and more faces; what has room is filled in, which no search of this one reads."""
        size = self.size + len(face_nos)
        grown = self if size <= len(self.face_nos) else self._with_room(size)
        grown.rows[self.size : size] = rows
        grown.face_nos[self.size : size] = face_nos
        return Tail(grown.rows, grown.face_nos, size, self.removed)

    def without(self, face_nos: NDArray[np.int64]) -> Tail:
        """Without some faces, of which not all need be here.

        A search of this one that runs meanwhile may find them or not.
        """
        if not len(face_nos) or not self.size:
            return self
        gone = np.flatnonzero(np.isin(self.face_nos[: self.size], face_nos))
        if not len(gone):
            return self
        self.face_nos[gone] = -1
        self.rows[gone] = 0
        removed = self.removed + len(gone)
        left = Tail(self.rows, self.face_nos, self.size, removed)
        return left.compacted() if removed > max(64, self.size // 8) else left

    def compacted(self, start: int = 0) -> Tail:
        """A copy of the faces from a row on, without the removed."""
        kept = start + np.flatnonzero(self.face_nos[start : self.size] >= 0)
        fresh = Tail.empty(self.rows.shape[1], len(kept))
        return fresh.with_added(self.face_nos[kept], self.rows[kept])

    def search(
        self, probes: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best k; past the end cosine -2 and face number -1."""
        cosines = np.full((len(probes), k), PAST_END, dtype=np.float32)
        face_nos = np.full((len(probes), k), -1, dtype=np.int64)
        # A removed face is a row of zeros, whose cosine of 0 may rank before a true candidate.
        depth = min(k + self.removed, self.size)
        if depth == 0 or len(probes) == 0:
            return cosines, face_nos
        ranked, rows = faiss.knn(
            probes, self.rows[: self.size], depth, metric=faiss.METRIC_INNER_PRODUCT
        )
        found = self.face_nos[rows]
        if (found < 0).any():
            # A stable sort moves the removed to the end and keeps the order of the rest.
            order = np.argsort(found < 0, axis=1, kind="stable")
            found = np.take_along_axis(found, order, axis=1)
            ranked = np.take_along_axis(ranked, order, axis=1)
        width = min(k, depth)
        face_nos[:, :width] = found[:, :width]
        cosines[:, :width] = np.where(
            found[:, :width] < 0, PAST_END, np.clip(ranked[:, :width], -1, 1)
        )
        return cosines, face_nos

    def _with_room(self, size: int) -> Tail:
        """A copy with room for `size` rows; exact at first, for most galleries are small."""
        capacity = size if not self.size else max(size, self.size * 3 // 2, FIRST_ROWS)
        fresh = Tail.empty(self.rows.shape[1], capacity)
        fresh.rows[: self.size] = self.rows[: self.size]
        fresh.face_nos[: self.size] = self.face_nos[: self.size]
        return Tail(fresh.rows, fresh.face_nos, self.size, self.removed)
