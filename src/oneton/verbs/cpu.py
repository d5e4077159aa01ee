"""One CPU budget for everything that computes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import TypeVar

from oneton.domain.errors import BusyError
from oneton.domain.stages import waited

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

    Attributes:
        running: computations that have a thread now.
        waiting: those that wait for one.
        refused: how many were, since the start.
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
        self.name = name
        self.size = threads
        self.running = 0
        self.waiting = 0
        self.refused = 0
        self._limit = threads + queue_limit
        self._admitted = 0
        self._counting = threading.Lock()

    def check_room(self) -> None:
        """Raise BusyError when another computation would be refused now."""
        if self._admitted >= self._limit:
            self.refused += 1
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
        context = copy_context()
        # Counted as waiting before a thread can count it as running.
        with self._counting:
            self.waiting += 1
        work = partial(self._work, function, perf_counter())
        future = self._threads.submit(context.run, work)
        future.add_done_callback(self._count_cancelled)
        return await asyncio.wrap_future(future, loop=loop)

    def _work(self, function: Callable[[], T], since_s: float) -> T:
        with self._counting:
            self.waiting -= 1
            self.running += 1
        waited("queue", since_s)
        try:
            return function()
        finally:
            with self._counting:
                self.running -= 1

    def _count_cancelled(self, future: Future[T]) -> None:
        if future.cancelled():
            with self._counting:
                self.waiting -= 1

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
