"""One CPU budget for everything that computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from oneton.domain.errors import BusyError

T = TypeVar("T")


class Cpu:
    """Runs computations in threads: so many at once, so many waiting, no more.

    Args:
        threads: computations at once.
        queue_limit: computations that may wait for a thread.
    """

    def __init__(self, threads: int, queue_limit: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._limit = threads + queue_limit
        self._admitted = 0

    def check_room(self) -> None:
        """Raise BusyError when another computation would be refused now."""
        if self._admitted >= self._limit:
            raise BusyError("the server is at its limit", retry_after_s=1)

    async def run(self, function: Callable[[], T]) -> T:
        """Run in a thread, waiting in the bounded queue.

        Raises:
            BusyError: the queue is full.
        """
        self.check_room()
        self._admitted += 1
        try:
            return await anyio.to_thread.run_sync(function, limiter=self._limiter)
        finally:
            self._admitted -= 1

    async def run_upkeep(self, function: Callable[[], T]) -> T:
        """Run in a thread of the same budget, never refused: for work that answers depend on."""
        return await anyio.to_thread.run_sync(function, limiter=self._limiter)
