"""The exact index: every inner product, over fp32, by FAISS."""

from __future__ import annotations

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import DimensionError
from oneton.domain.model import Changes

FIRST_ROWS = 256
PAST_END = np.float32(-2.0)


class _View(msgspec.Struct, frozen=True):
    """What a search reads; replaced as a whole, so that a search needs no lock.

    Attributes:
        rows: (capacity, D) float32; those from `size` on are not filled yet.
        face_nos: (capacity,) int64; -1 marks a removed face.
        removed: number of removed faces among the first `size`.
    """

    rows: NDArray[np.float32]
    face_nos: NDArray[np.int64]
    size: int
    removed: int
    head: int


class ExactIndex:
    """An exhaustive search in memory; see the Protocol `GalleryIndex`."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._view = _empty_view(dimension, FIRST_ROWS, head=0)

    @property
    def head(self) -> int:
        return self._view.head

    def __len__(self) -> int:
        view = self._view
        return view.size - view.removed

    def catch_up(self, changes: Changes) -> None:
        view = self._view
        assert changes.since == view.head, "changes must follow the index's head"
        if len(changes.added_face_nos) and changes.added_embeddings.shape[1] != self._dimension:
            raise DimensionError(changes.added_embeddings.shape[1], self._dimension)
        size = view.size + len(changes.added_face_nos)
        rows, face_nos = _grown(view, size)
        rows[view.size : size] = changes.added_embeddings
        face_nos[view.size : size] = changes.added_face_nos
        gone = np.flatnonzero(np.isin(face_nos[:size], changes.removed_face_nos))
        face_nos[gone] = -1
        rows[gone] = 0
        removed = view.removed + len(gone)
        grown = _View(rows, face_nos, size, removed, changes.head)
        self._view = _compacted(grown) if removed > max(64, size // 8) else grown

    def search(
        self, probes: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        assert k >= 1
        if probes.shape[1] != self._dimension:
            raise DimensionError(probes.shape[1], self._dimension)
        view = self._view
        cosines = np.full((len(probes), k), PAST_END, dtype=np.float32)
        face_nos = np.full((len(probes), k), -1, dtype=np.int64)
        # A removed face is a row of zeros, whose cosine of 0 may rank before a true candidate.
        depth = min(k + view.removed, view.size)
        if depth == 0 or len(probes) == 0:
            return cosines, face_nos
        # One probe on two OpenMP threads takes longer than on one (`scripts/bench http` says so);
        # the setting holds for the calling thread only.
        faiss.omp_set_num_threads(1)
        ranked, rows = faiss.knn(
            np.ascontiguousarray(probes, dtype=np.float32),
            view.rows[: view.size],
            depth,
            metric=faiss.METRIC_INNER_PRODUCT,
        )
        found = view.face_nos[rows]
        if (found >= 0).all():
            width = min(k, depth)
            face_nos[:, :width] = found[:, :width]
            cosines[:, :width] = np.clip(ranked[:, :width], -1, 1)
            return cosines, face_nos
        # A stable sort moves the removed to the end and keeps the order of the rest.
        order = np.argsort(found < 0, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(found, order, axis=1)
        width = found.shape[1]
        face_nos[:, :width] = found
        cosines[:, :width] = np.where(
            found < 0, PAST_END, np.clip(np.take_along_axis(ranked, order, axis=1), -1, 1)
        )
        return cosines, face_nos


def _empty_view(dimension: int, capacity: int, head: int) -> _View:
    return _View(
        rows=np.zeros((capacity, dimension), dtype=np.float32),
        face_nos=np.full(capacity, -1, dtype=np.int64),
        size=0,
        removed=0,
        head=head,
    )


def _grown(view: _View, size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The same arrays while they have room, else larger copies."""
    if size <= len(view.face_nos):
        return view.rows, view.face_nos
    fresh = _empty_view(view.rows.shape[1], max(size, 2 * len(view.face_nos)), view.head)
    fresh.rows[: view.size] = view.rows[: view.size]
    fresh.face_nos[: view.size] = view.face_nos[: view.size]
    return fresh.rows, fresh.face_nos


def _compacted(view: _View) -> _View:
    kept = np.flatnonzero(view.face_nos[: view.size] >= 0)
    fresh = _empty_view(view.rows.shape[1], max(FIRST_ROWS, len(kept) * 3 // 2), view.head)
    fresh.rows[: len(kept)] = view.rows[kept]
    fresh.face_nos[: len(kept)] = view.face_nos[kept]
    return _View(fresh.rows, fresh.face_nos, len(kept), 0, view.head)
