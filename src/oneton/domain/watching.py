"""What the work tells whoever watches over it; engines know no more of metrics and traces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Literal, Protocol

import structlog

from oneton.domain.stages import Stages, collected_stages

Count = Literal[
    "requests",
    "in_flight",
    "jobs",
    "webhooks",
    "snapshots",
    "upkeep",
    "sweeps",
    "store_errors",
    "postgres_errors",
]
Time = Literal["request", "stage", "job", "store"]
Level = Literal["swept", "swept_at"]
Work = Literal["request", "job"]


class Trace(Protocol):
    """One piece of work that is traced."""

    @property
    def trace_id(self) -> str:
        """As logs show it: 32 hexadecimal digits."""
        ...

    def end(self, stages: Stages, attributes: Mapping[str, str | int], *, failed: bool) -> None:
        """End it, with its stages as parts of it; called once."""
        ...


class Watch(Protocol):
    """Told of everything from any thread; every method takes microseconds and raises nothing.

    Labels go in the order in which the metric has them, and have few values: no name of a tenant
    or a gallery, no id of a face, nothing that a caller chose.
    """

    def count(self, what: Count, /, *labels: str, by: float = 1) -> None:
        """Something happened; `by` is below 0 only for what is under way."""
        ...

    def took(self, what: Time, seconds: float, /, *labels: str) -> None:
        """Something took so long."""
        ...

    def level(self, what: Level, value: float, /, *labels: str) -> None:
        """Something is so much now."""
        ...

    def trace(self, name: str, kind: Work, parent: Mapping[str, str], /) -> Trace | None:
        """Begin to trace a piece of work; None when nobody wants to know.

        Args:
            parent: headers that may name the trace that it is a part of.
        """
        ...


class NoWatch:
    """Nobody watches."""

    def count(self, _what: Count, *labels: str, by: float = 1) -> None: ...

    def took(self, _what: Time, _seconds: float, *labels: str) -> None: ...

    def level(self, _what: Level, _value: float, *labels: str) -> None: ...

    def trace(self, _name: str, _kind: Work, _parent: Mapping[str, str]) -> Trace | None:
        return None


NO_WATCH: Watch = NoWatch()


def tell_stages(watch: Watch, work: Work, stages: Stages) -> None:
    """Tell how long each stage took in all of a piece of work."""
    # A copy, for threads that a cancelled request left behind may still be adding.
    for name, took_ms in dict(stages).items():
        watch.took("stage", took_ms / 1000, work, name)


@contextmanager
def watched_job(watch: Watch, kind: str) -> Iterator[None]:
    """Around one job of a worker."""
    trace = watch.trace(f"job {kind}", "job", {})
    traced = {} if trace is None else {"trace_id": trace.trace_id}
    started_s = perf_counter()
    outcome = "failed"
    with structlog.contextvars.bound_contextvars(**traced), collected_stages() as stages:
        try:
            yield
            outcome = "done"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            watch.count("jobs", kind, outcome)
            watch.took("job", perf_counter() - started_s, kind)
            tell_stages(watch, "job", stages)
            if trace is not None:
                trace.end(stages, {"oneton.job": kind}, failed=outcome == "failed")
