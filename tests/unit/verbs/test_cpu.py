"""The CPU budget: so many at once, so many waiting, no more."""

from __future__ import annotations

import asyncio
import threading

import pytest

from oneton.domain.errors import BusyError
from oneton.verbs.cpu import Cpu

pytestmark = pytest.mark.anyio


async def test_run_refuses_what_the_queue_has_no_room_for() -> None:
    cpu = Cpu(threads=2, queue_limit=3)
    release = threading.Event()
    running = [asyncio.create_task(cpu.run(release.wait)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError) as raised:
        await cpu.run(release.wait)
    assert raised.value.retry_after_s >= 1
    with pytest.raises(BusyError):
        cpu.check_room()
    release.set()
    assert await asyncio.gather(*running) == [True] * 5
    cpu.check_room()


async def test_run_never_uses_more_threads_than_the_budget() -> None:
    cpu = Cpu(threads=2, queue_limit=50)
    lock, now, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.002)
        with lock:
            now -= 1

    await asyncio.gather(*(cpu.run(work) for _ in range(20)), cpu.run_upkeep(work))
    assert most <= 2


async def test_an_error_gives_the_place_back() -> None:
    cpu = Cpu(threads=1, queue_limit=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await cpu.run(lambda: 1 / 0)
    assert await cpu.run(lambda: 7) == 7


async def test_what_runs_waits_and_is_refused_is_counted() -> None:
    cpu = Cpu(threads=1, queue_limit=1)
    release, runs = threading.Event(), threading.Event()

    def work() -> None:
        runs.set()
        release.wait()

    first = asyncio.create_task(cpu.run(work))
    await asyncio.to_thread(runs.wait)
    second = asyncio.create_task(cpu.run(work))
    await asyncio.sleep(0)
    assert (cpu.running, cpu.waiting, cpu.refused) == (1, 1, 0)
    with pytest.raises(BusyError):
        await cpu.run(work)
    assert cpu.refused == 1
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (cpu.running, cpu.waiting) == (1, 0)
    release.set()
    await first
    assert (cpu.running, cpu.waiting) == (0, 0)
    cpu.close()
