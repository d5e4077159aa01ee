"""A clock that was set is doubted; one that runs is not."""

from __future__ import annotations

import pytest

from oneton.verbs.watch_clock import WatchClock

pytestmark = pytest.mark.anyio

HOUR_S, GRACE_S = 3600.0, 900.0


class Machine:
    """Both clocks of a process, and Postgres's."""

    def __init__(self) -> None:
        self.now_s, self.up_s, self.postgres_s = 1_000_000.0, 50.0, 1_000_000.0

    async def postgres(self) -> float:
        return self.postgres_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.up_s += seconds
        self.postgres_s += seconds

    def watch(self) -> WatchClock:
        return WatchClock(self.postgres, now=lambda: self.now_s, monotonic=lambda: self.up_s)


async def test_a_clock_that_runs_is_believed() -> None:
    machine = Machine()
    clock = machine.watch()
    for _ in range(3):
        machine.pass_s(HOUR_S)
        assert await clock.doubt(GRACE_S) is None


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
async def test_a_clock_that_was_set_is_doubted_for_the_grace(by_s: float) -> None:
    machine = Machine()
    clock = machine.watch()
    # Postgres is on the same machine, so that it agrees.
    machine.now_s += by_s
    machine.postgres_s += by_s
    assert await clock.doubt(GRACE_S) is not None
    machine.pass_s(GRACE_S - 1)
    assert await clock.doubt(GRACE_S) is not None
    machine.pass_s(2)
    assert await clock.doubt(GRACE_S) is None


async def test_a_clock_that_differs_from_postgres_is_doubted_as_long_as_it_does() -> None:
    machine = Machine()
    machine.now_s += HOUR_S
    clock = machine.watch()
    for _ in range(3):
        assert "3600 s apart" in str(await clock.doubt(GRACE_S))
        machine.pass_s(GRACE_S)
    machine.postgres_s = machine.now_s + 1
    assert await clock.doubt(GRACE_S) is None
