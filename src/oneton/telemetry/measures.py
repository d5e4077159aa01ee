"""Counters and histograms of one process, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from oneton.domain.watching import Count, Level, Time, Trace, Work

REQUEST_S = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.35, 0.5, 1, 2.5, 5, 10)
STAGE_S = (0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5, 10)
JOB_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Said(NamedTuple):
    """A metric without its prefix, what it says, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


COUNTERS: dict[Count, Said] = {
    "requests": Said("requests", "Requests answered.", ("dialect", "operation", "outcome")),
    "jobs": Said("jobs", "Jobs that a worker did.", ("kind", "outcome")),
    "webhooks": Said("webhook_attempts", "Attempts to deliver webhooks.", ("dialect", "outcome")),
    "snapshots": Said("snapshots", "Snapshots of indexes, by what became of them.", ("outcome",)),
    "upkeep": Said("index_upkeep", "Segments sealed and merged.", ("step",)),
    "sweeps": Said("sweeps", "Sweeps of the object store.", ("outcome",)),
    "store_errors": Said("store_errors", "Calls the object store did not answer.", ("operation",)),
    "postgres_errors": Said("postgres_errors", "Statements and transactions Postgres failed."),
}
UNDER_WAY: dict[Count, Said] = {
    "in_flight": Said("requests_in_flight", "Requests being answered now."),
}
LEVELS: dict[Level, Said] = {
    "swept": Said("sweep_objects", "What the last sweep of this process found.", ("finding",)),
    "swept_at": Said("sweep_end_timestamp_seconds", "When it ended."),
}
TIMES: dict[Time, tuple[Said, tuple[float, ...]]] = {
    "request": (
        Said(
            "request_seconds", "From a request's first byte to its end.", ("dialect", "operation")
        ),
        REQUEST_S,
    ),
    "stage": (
        Said(
            "stage_seconds", "Time in a stage, summed over one request or job.", ("work", "stage")
        ),
        STAGE_S,
    ),
    "job": (Said("job_seconds", "Time of one job.", ("kind",)), JOB_S),
    "store": (
        Said("store_seconds", "Time of one call to the object store.", ("operation",)),
        STAGE_S,
    ),
}

KNOWN: dict[Count, tuple[tuple[str, ...], ...]] = {
    "webhooks": tuple(
        (dialect, outcome)
        for dialect in ("didit", "veriflow", "native")
        for outcome in ("delivered", "retried", "dropped")
    ),
    "snapshots": (("taken",), ("failed",), ("set_aside",)),
    "upkeep": (("seal",), ("merge",)),
    "sweeps": (("done",), ("failed",)),
    "store_errors": tuple((each,) for each in ("put", "get", "delete", "list", "check")),
}
"""Shown from the start, for what comes from nothing is no increase to Prometheus."""

Tracing = Callable[[str, Work, Mapping[str, str]], Trace | None]


class Measures:
    """A Watch that counts, and leaves traces to whoever makes them."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        # When each series began is a series of its own, which Prometheus has no use for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._tracing = tracing
        self._adders: dict[Count, Counter | Gauge] = {
            **{
                what: Counter(*_of(said), registry=self.registry) for what, said in COUNTERS.items()
            },
            **{what: Gauge(*_of(said), registry=self.registry) for what, said in UNDER_WAY.items()},
        }
        self._levels = {
            what: Gauge(*_of(said), registry=self.registry) for what, said in LEVELS.items()
        }
        self._times = {
            what: Histogram(*_of(said), buckets=buckets, registry=self.registry)
            for what, (said, buckets) in TIMES.items()
        }
        # The library looks a child up under a lock, after it has made texts of all labels.
        self._adding: dict[tuple[str, ...], Counter | Gauge] = {}
        self._timing: dict[tuple[str, ...], Histogram] = {}
        for what, known in KNOWN.items():
            for labels in known:
                self.count(what, *labels, by=0)

    def count(self, what: Count, *labels: str, by: float = 1) -> None:
        """As the protocol says."""
        child = self._adding.get((what, *labels))
        if child is None:
            parent = self._adders[what]
            child = parent.labels(*labels) if labels else parent
            self._adding[(what, *labels)] = child
        child.inc(by)

    def took(self, what: Time, seconds: float, *labels: str) -> None:
        """As the protocol says."""
        child = self._timing.get((what, *labels))
        if child is None:
            parent = self._times[what]
            child = parent.labels(*labels) if labels else parent
            self._timing[(what, *labels)] = child
        child.observe(seconds)

    def level(self, what: Level, value: float, *labels: str) -> None:
        """As the protocol says."""
        gauge = self._levels[what]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def trace(self, name: str, kind: Work, parent: Mapping[str, str]) -> Trace | None:
        """As the protocol says."""
        return None if self._tracing is None else self._tracing(name, kind, parent)


def _of(said: Said) -> tuple[str, str, tuple[str, ...]]:
    return f"oneton_{said.name}", said.help, said.labels
