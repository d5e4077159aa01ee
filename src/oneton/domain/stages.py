"""How long each stage of one request took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter

_stages: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


@contextmanager
def collected_stages() -> Iterator[dict[str, float]]:
    """Collect what `stage` measures below, threads included: name to milliseconds."""
    stages: dict[str, float] = {}
    token = _stages.set(stages)
    try:
        yield stages
    finally:
        _stages.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the time spent inside to the stage of this name; free when nobody collects."""
    stages = _stages.get()
    if stages is None:
        yield
        return
    started_s = perf_counter()
    try:
        yield
    finally:
        stages[name] = stages.get(name, 0.0) + (perf_counter() - started_s) * 1000
