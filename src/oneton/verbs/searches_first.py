"""Searches first: a change waits a moment for the searches at work, so that these take less."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from oneton.domain.stages import stage

WAIT_S = 0.03
"""About what a search takes beside others; a change takes longer by no more than this."""
CORES = 2
"""What a search, or a change, keeps busy: networks and scans have several threads."""


class SearchesFirst:
    """Where searches leave no core, changes begin after them, and one after another.

    A lower priority for the threads of changes does not do it: most of a change is work of the
    event loop and of Postgres, and a thread that is not scheduled may hold the interpreter's lock.
    Where nobody searches, changes begin at once, any number of them.

    Args:
        cores: that searches and changes share; all of it happens on one event loop.
        wait_s: how long a change waits at most.
    """

    def __init__(self, cores: int = CORES, wait_s: float = WAIT_S) -> None:
        self._places = max(1, cores // CORES)
        self._wait_s = wait_s
        self._searching = 0
        self._changing = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextmanager
    def search(self) -> Iterator[None]:
        """A search is at work in this block."""
        self._searching += 1
        try:
            yield
        finally:
            self._searching -= 1
            self._call_next()

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """A change is at work in this block, which begins when it may."""
        if self._searching and self._is_full:
            await self._turn()
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            self._call_next()

    @property
    def _is_full(self) -> bool:
        return self._searching + self._changing >= self._places

    async def _turn(self) -> None:
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(called)
        with stage("turn"):
            try:
                await asyncio.wait([called], timeout=self._wait_s)
            finally:
                if called in self._waiting:
                    self._waiting.remove(called)

    def _call_next(self) -> None:
        """Let the next change begin; when it is done it calls the one after it."""
        if self._waiting and not self._is_full:
            self._waiting.popleft().set_result(None)
