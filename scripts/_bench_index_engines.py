"""The interface of all engines of `scripts/bench index`, and the peers that are libraries.

Peers are imported by name when they are made: one that is not installed loses only its own row,
and no process loads two of them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from _bench_index_data import DIMENSION
from numpy.typing import NDArray

ROOM = 50_000
"""Rows that hnswlib, which does not grow by itself, keeps for inserts."""
TRAINING_ROWS = 50_000

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Cosines and row numbers, each (Q, k), best first; -1 past the end."""


class OverLimitError(Exception):
    """The engine took longer than its time."""


class Engine:
    """One make of an index; faces are known by their row number in the data.

    Attributes:
        package: whose version the table names.
        efforts: settings from quick to thorough; none when there is nothing to set.
        guarded: a user must not insert while a search runs, so that a lock is needed.
    """

    package: ClassVar[str]
    efforts: ClassVar[tuple[int, ...]] = ()
    guarded: ClassVar[bool] = True

    def __init__(self, size: int, folder: Path) -> None:
        """Make it empty; `folder` is empty, too, and there until the end."""

    def version(self) -> str:
        return f"{self.package} {importlib.metadata.version(self.package)}"

    def add(self, first: int, rows: NDArray[np.float32]) -> None:
        """Rows numbered from `first` on, which follow those that came before."""
        raise NotImplementedError

    def upkeep(self) -> None:
        """What a thread of its own does while faces arrive."""

    def finish(self, within_s: float) -> None:
        """What is left to the end of a build.

        Raises:
            OverLimitError: it takes longer than that.
        """

    def set_effort(self, effort: int) -> None:
        raise NotImplementedError

    def search(self, probes: NDArray[np.float32], k: int) -> Found:
        raise NotImplementedError

    def index_bytes(self) -> int | None:
        """The size of an index that is in another process; None when it is in this one."""
        return None

    def close(self) -> None:
        """Stop what was started."""


class Faiss(Engine):
    """An index of FAISS.

    Attributes:
        single_threads: OpenMP threads of a search with one probe; None leaves them as they are.
    """

    package = "faiss-cpu"
    single_threads: ClassVar[int | None] = None

    def __init__(self, size: int, folder: Path) -> None:
        super().__init__(size, folder)
        self._faiss: Any = importlib.import_module("faiss")
        self._index = self.make(self._faiss)

    def make(self, faiss: Any) -> Any:  # noqa: ANN401 - FAISS has no types
        """The index, empty."""
        raise NotImplementedError

    def add(self, first: int, rows: NDArray[np.float32]) -> None:
        del first  # FAISS numbers rows itself, in the same way
        if not self._index.is_trained:
            self._index.train(rows[:TRAINING_ROWS])
        self._index.add(rows)

    def search(self, probes: NDArray[np.float32], k: int) -> Found:
        if self.single_threads is not None:
            # The setting holds for the calling thread only.
            threads = self.single_threads if len(probes) == 1 else os.cpu_count()
            self._faiss.omp_set_num_threads(threads)
        cosines, rows = self._index.search(probes, k)
        return cosines, rows


class FaissFlat(Faiss):
    """Every inner product."""

    def make(self, faiss: Any) -> Any:  # noqa: ANN401 - FAISS has no types
        return faiss.IndexFlatIP(DIMENSION)


class FaissFlatOneThread(FaissFlat):
    """The same without OpenMP, which at one probe costs more than it gives."""

    single_threads = 1


class FaissSQ8(Faiss):
    """Every inner product, of 8 bits a dimension."""

    def make(self, faiss: Any) -> Any:  # noqa: ANN401 - FAISS has no types
        return faiss.IndexScalarQuantizer(
            DIMENSION, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )


class FaissRaBitQ(Faiss):
    """Every inner product, of one bit a dimension, by FAISS alone: nothing is ranked again."""

    def make(self, faiss: Any) -> Any:  # noqa: ANN401 - FAISS has no types
        return faiss.IndexRaBitQFastScan(DIMENSION, faiss.METRIC_INNER_PRODUCT)


class FaissHNSW(Faiss):
    """A graph of FAISS."""

    efforts = (16, 64, 256)

    def make(self, faiss: Any) -> Any:  # noqa: ANN401 - FAISS has no types
        index = faiss.IndexHNSWFlat(DIMENSION, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 40
        return index

    def set_effort(self, effort: int) -> None:
        self._index.hnsw.efSearch = effort


class Hnswlib(Engine):
    """A graph of hnswlib."""

    package = "hnswlib"
    efforts = (16, 64, 256)

    def __init__(self, size: int, folder: Path) -> None:
        super().__init__(size, folder)
        self._index = importlib.import_module("hnswlib").Index(space="ip", dim=DIMENSION)
        self._index.init_index(max_elements=size + ROOM, M=16, ef_construction=100)

    def add(self, first: int, rows: NDArray[np.float32]) -> None:
        self._index.add_items(rows, np.arange(first, first + len(rows)))

    def set_effort(self, effort: int) -> None:
        self._index.set_ef(effort)

    def search(self, probes: NDArray[np.float32], k: int) -> Found:
        rows, distances = self._index.knn_query(probes, k)
        return 1 - distances, rows.astype(np.int64)


class Usearch(Engine):
    """A graph of usearch, as it comes but for float16."""

    package = "usearch"
    efforts = (16, 64, 256)

    def __init__(self, size: int, folder: Path) -> None:
        super().__init__(size, folder)
        index = importlib.import_module("usearch.index").Index
        self._index = index(ndim=DIMENSION, metric="ip", dtype="f16")

    def add(self, first: int, rows: NDArray[np.float32]) -> None:
        self._index.add(np.arange(first, first + len(rows)), rows)

    def set_effort(self, effort: int) -> None:
        self._index.expansion_search = effort

    def search(self, probes: NDArray[np.float32], k: int) -> Found:
        found = self._index.search(probes, k)
        shape = (len(probes), k)
        rows = found.keys.astype(np.int64).reshape(shape)
        return 1 - found.distances.reshape(shape), rows
