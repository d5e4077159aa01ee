"""A change waits for the searches at work: where these leave it no core, and not for long."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from oneton.verbs.searches_first import SearchesFirst

pytestmark = pytest.mark.anyio

LONG_S = 600.0


class Change:
    """One that goes on until it is told to end."""

    def __init__(self, first: SearchesFirst) -> None:
        self._ends = asyncio.Event()
        self.begun = asyncio.Event()
        self.task = asyncio.create_task(self._run(first))

    async def _run(self, first: SearchesFirst) -> None:
        async with first.change():
            self.begun.set()
            await self._ends.wait()

    async def end(self) -> None:
        self._ends.set()
        await self.task


async def started(first: SearchesFirst, count: int) -> list[Change]:
    """Changes that had time to begin."""
    changes = [Change(first) for _ in range(count)]
    await asyncio.sleep(0.01)
    return changes


def begun(changes: list[Change]) -> int:
    return sum(each.begun.is_set() for each in changes)


async def end_all(changes: list[Change]) -> None:
    for each in changes:
        await asyncio.wait_for(each.begun.wait(), 5)
        await each.end()


async def test_any_number_of_changes_begin_where_nobody_searches() -> None:
    first = SearchesFirst(wait_s=LONG_S)
    changes = await started(first, 20)
    assert begun(changes) == 20
    await end_all(changes)


async def test_changes_begin_one_by_one_when_the_last_search_is_done() -> None:
    first = SearchesFirst(wait_s=LONG_S)
    with first.search():
        with first.search():
            changes = await started(first, 3)
        await asyncio.sleep(0.01)
        assert begun(changes) == 0
    for number, each in enumerate(changes, start=1):
        await asyncio.wait_for(each.begun.wait(), 5)
        await asyncio.sleep(0.01)
        assert begun(changes) == number
        await each.end()


async def test_a_search_that_fails_lets_a_change_begin() -> None:
    first = SearchesFirst(wait_s=LONG_S)
    with pytest.raises(ZeroDivisionError), first.search():
        changes = await started(first, 1)
        assert begun(changes) == 0
        raise ZeroDivisionError
    await end_all(changes)


async def test_a_change_that_fails_lets_the_next_begin() -> None:
    first = SearchesFirst(wait_s=LONG_S)
    with first.search():
        changes = await started(first, 2)
    await asyncio.wait_for(changes[0].begun.wait(), 5)
    changes[0].task.cancel()
    await end_all(changes[1:])


async def test_a_change_waits_no_longer_than_it_has_to() -> None:
    first = SearchesFirst(wait_s=0.01)
    with first.search():
        changes = await started(first, 20)
        await asyncio.wait_for(asyncio.gather(*(each.begun.wait() for each in changes)), 5)
        await end_all(changes)


async def test_a_change_that_is_given_up_keeps_nobody_waiting() -> None:
    first = SearchesFirst(wait_s=LONG_S)
    with first.search():
        gone, stays = await started(first, 2)
        gone.task.cancel()
        await asyncio.wait([gone.task])
        assert gone.task.cancelled()
    await end_all([stays])
    with first.search():
        changes = await started(first, 1)
        assert begun(changes) == 0
    await end_all(changes)


@pytest.mark.parametrize(
    ("cores", "searches", "begin"), [(1, 1, 0), (2, 1, 0), (4, 1, 1), (4, 2, 0), (16, 3, 5)]
)
async def test_so_many_changes_begin_as_the_searches_leave_cores_for(
    cores: int, searches: int, begin: int
) -> None:
    first = SearchesFirst(cores, wait_s=LONG_S)
    with ExitStack() as stack:
        for _ in range(searches):
            stack.enter_context(first.search())
        changes = await started(first, 8)
        assert begun(changes) == begin
    await end_all(changes)
