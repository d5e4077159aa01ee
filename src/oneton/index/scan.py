"""Threads that scan the segments of one search side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import faiss

T = TypeVar("T")
R = TypeVar("R")

WORTH_ROWS = 65_536
"""Rows from which a second thread gains more than waking it costs (0.16 ms of scanning)."""


class ScanThreads:
    """So many threads for all searches together; a search takes those that are free.

    Attributes:
        most: those that search at once, the callers' own included.
    """

    def __init__(self, threads: int) -> None:
        self._helpers = ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="scan")
        self.most = threads
        self._lock = threading.Lock()
        self._searching = 0

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The function's results in the order of the items; biggest items should come first."""
        taken = self._take(len(items))
        try:
            results: list[R | None] = [None] * len(items)
            left = deque(range(len(items)))

            def work() -> None:
                # A setting of OpenMP, which holds for the calling thread only: one probe on two
                # OpenMP threads takes longer than on one.
                faiss.omp_set_num_threads(1)
                while True:
                    try:
                        each = left.popleft()
                    except IndexError:
                        return
                    results[each] = function(items[each])

            helping = [self._helpers.submit(work) for _ in range(taken - 1)]
            work()
            for each in helping:
                each.result()
            return results  # type: ignore[return-value]  # every one was filled in
        finally:
            self._give_back(taken)

    def close(self) -> None:
        """End the threads once what they run is done."""
        self._helpers.shutdown()

    def _take(self, wanted: int) -> int:
        """The caller's thread and as many as are free."""
        with self._lock:
            taken = 1 + max(0, min(wanted - 1, self.most - self._searching - 1))
            self._searching += taken
            return taken

    def _give_back(self, taken: int) -> None:
        with self._lock:
            self._searching -= taken
