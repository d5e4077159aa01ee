"""One CPU budget for everything that computes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from oneton.domain.errors import BusyError

T = TypeVar("T")


class Cpu:
    """Runs computations in threads: so many at once, so many waiting, no more.

    A pool of its own costs half of what `anyio.to_thread` does, 0.05 ms a call.

    Args:
        threads: computations at once.
        queue_limit: computations that may wait for a thread.
        name: of the threads.
        nice: 1 to 19 gives way to the others' threads, where the system can (Linux).
        idle: they run only when nobody else wants a core; not beside threads of this process that
            answer, which would wait for the interpreter's lock with them.
    """

    def __init__(
        self,
        threads: int,
        queue_limit: int,
        *,
        name: str = "cpu",
        nice: int = 0,
        idle: bool = False,
    ) -> None:
        self._threads = ThreadPoolExecutor(
            threads, thread_name_prefix=name, initializer=_give_way, initargs=(nice, idle)
        )
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
            return await self.run_upkeep(function)
        finally:
            self._admitted -= 1

    async def run_upkeep(self, function: Callable[[], T]) -> T:
        """Run in a thread of the same budget, never refused: for work that answers depend on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, copy_context().run, function)

    def close(self) -> None:
        """End the threads once what they run is done."""
        self._threads.shutdown()


def _give_way(nice: int, idle: bool) -> None:
    """Lower the calling thread's priority."""
    if sys.platform != "linux":
        return
    if idle:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif nice:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
