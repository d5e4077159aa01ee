"""Our own index, for `scripts/bench index`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from _bench_index_data import DIMENSION
from _bench_index_engines import Engine, Found, OverLimitError
from numpy.typing import NDArray

from oneton.domain.model import Changes
from oneton.index.scan import ScanThreads
from oneton.index.segmented import SegmentedIndex


class Oneton(Engine):
    """With the threads that the product gives it by default."""

    package = "oneton"
    guarded = False

    def __init__(self, size: int, folder: Path) -> None:
        super().__init__(size, folder)
        threads = ScanThreads(os.cpu_count() or 1)
        self._index = SegmentedIndex(DIMENSION, folder=folder, threads=threads)

    def add(self, first: int, rows: NDArray[np.float32]) -> None:
        head = self._index.head
        self._index.catch_up(
            Changes(
                since=head,
                head=head + len(rows),
                added_face_nos=np.arange(first, first + len(rows)),
                added_embeddings=rows,
                removed_face_nos=np.empty(0, dtype=np.int64),
            )
        )

    def upkeep(self) -> None:
        self._index.upkeep()

    def finish(self, within_s: float) -> None:
        ends_s = time.monotonic() + within_s
        while self._index.upkeep():
            if time.monotonic() > ends_s:
                raise OverLimitError

    def search(self, probes: NDArray[np.float32], k: int) -> Found:
        return self._index.search(probes, k)
