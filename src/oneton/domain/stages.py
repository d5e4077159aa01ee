"""How long each stage of one piece of work took: of a request, of a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from time import perf_counter
from typing import NamedTuple

MOST_SPANS = 200
"""Kept one by one of a piece of work; further ones count in the sums only."""


class StageSpan(NamedTuple):
    """One stage, once.

    Attributes:
        started_s: by `time.perf_counter`, as is `ended_s`.
        inside: number of the stage that it was a part of; None is the work itself.
    """

    number: int
    name: str
    started_s: float
    ended_s: float
    inside: int | None


class Stages(dict[str, float]):
    """Name to milliseconds, threads and repetitions summed; a stage within another is in both.

    Attributes:
        spans: the same one by one, in the order in which they ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[StageSpan] = []
        self._numbers = count()

    def begin(self) -> int:
        """A number for a stage that begins."""
        return next(self._numbers)

    def end(self, number: int, name: str, started_s: float, inside: int | None) -> None:
        """Note a stage that ends now."""
        ended_s = perf_counter()
        self[name] = self.get(name, 0.0) + (ended_s - started_s) * 1000
        if len(self.spans) < MOST_SPANS:
            self.spans.append(StageSpan(number, name, started_s, ended_s, inside))


_place: ContextVar[tuple[Stages, int | None] | None] = ContextVar("stages", default=None)


@contextmanager
def collected_stages() -> Iterator[Stages]:
    """Collect what `stage` measures below, threads included."""
    stages = Stages()
    token = _place.set((stages, None))
    try:
        yield stages
    finally:
        _place.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the time spent inside to the stage of this name; free when nobody collects."""
    place = _place.get()
    if place is None:
        yield
        return
    stages, inside = place
    number = stages.begin()
    token = _place.set((stages, number))
    started_s = perf_counter()
    try:
        yield
    finally:
        _place.reset(token)
        stages.end(number, name, started_s, inside)


def waited(name: str, started_s: float) -> None:
    """Add the time since `started_s`, by `time.perf_counter`, to the stage of this name."""
    if (place := _place.get()) is not None:
        stages, inside = place
        stages.end(stages.begin(), name, started_s, inside)
