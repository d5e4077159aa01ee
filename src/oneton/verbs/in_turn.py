"""So many tasks at once, over any number of things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def each_of(
    things: Iterable[T] | AsyncIterator[T], work: Callable[[T], Awaitable[None]], at_once: int = 16
) -> None:
    """Do the work for everything; the first error ends it, and no task is left behind.

    Never more than `at_once` of the things are in memory.
    """
    room = asyncio.Semaphore(at_once)

    async def one(thing: T) -> None:
        try:
            await work(thing)
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as group:
            async for thing in _over(things):
                await room.acquire()
                group.create_task(one(thing))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _over(things: Iterable[T] | AsyncIterator[T]) -> AsyncIterator[T]:
    if isinstance(things, AsyncIterator):
        async for thing in things:
            yield thing
    else:
        for thing in things:
            yield thing
