"""What a process is at now: its indexes, threads and connections, and what Postgres says of all."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from oneton.domain.errors import OnetonError
from oneton.domain.model import ModelPack
from oneton.domain.reindexing import GalleryState, RunState, Work
from oneton.records.database import Database
from oneton.records.figures import Figure, GalleryHead, ReadFigures
from oneton.records.reindexing import Reindexing
from oneton.verbs.catch_up import CatchUp, Loaded
from oneton.verbs.cpu import Cpu

log = structlog.get_logger()

READ_EVERY_S = 10.0
"""Postgres is asked no more often, however often somebody looks."""
READ_WITHIN_S = 5.0
MOST_INDEXES = 1000
"""Shown one by one, the largest first; the rest count together."""
REST = "rest"

Metric = GaugeMetricFamily | CounterMetricFamily


class Read(NamedTuple):
    """What Postgres said; None where it did not answer."""

    figures: list[Figure]
    heads: list[GalleryHead]
    works: list[Work]


class State(Collector):
    """Read anew by `refresh`, shown by `collect`, which may run in any thread.

    Args:
        catch_up: whose indexes.
        budgets: threads that compute.
        folders: whose disks matter, by what is in them.
    """

    def __init__(
        self,
        database: Database,
        catch_up: CatchUp,
        budgets: list[Cpu],
        folders: Mapping[str, Path],
        pack: ModelPack,
        version: str,
    ) -> None:
        self._database = database
        self._catch_up = catch_up
        self.budgets = budgets
        self._folders = dict(folders)
        self._build = {
            "version": version,
            "model_pack": pack.name,
            "model_sha256": pack.sha256[:12],
        }
        self._read_figures = ReadFigures(database)
        self._reindexing = Reindexing(database)
        self._reading = asyncio.Lock()
        self._read_at_s: float | None = None
        self._read: Read | None = None
        self._held: list[Loaded] = []

    async def refresh(self) -> None:
        """Look at the indexes, and ask Postgres unless it was asked just now."""
        self._held = self._catch_up.held()
        async with self._reading:
            if self._read_at_s is None or monotonic() - self._read_at_s >= READ_EVERY_S:
                self._read = await self._ask()
                self._read_at_s = monotonic()

    async def _ask(self) -> Read | None:
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                return Read(
                    await self._read_figures.figures(),
                    await self._read_figures.heads(),
                    await self._reindexing.works(),
                )
        except (OnetonError, TimeoutError) as error:
            log.warning("metrics lack what Postgres knows", error=str(error))
            return None

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is."""
        yield _gauge("build_info", "What runs; always 1.", [(self._build, 1)])
        yield from self._threads()
        yield from self._connections()
        yield from self._disks()
        yield from _indexes(self._held, {} if self._read is None else _heads(self._read))
        yield _gauge("galleries_loaded", "Indexes in memory.", [({}, len(self._held))])
        yield _gauge(
            "postgres_up", "Whether Postgres answered last.", [({}, int(self._read is not None))]
        )
        if self._read is not None:
            yield from _figures(self._read)
            yield from reindexing(self._read.works)

    def _threads(self) -> Iterator[Metric]:
        def each(of: str) -> list[tuple[dict[str, str], float]]:
            return [({"budget": cpu.name}, getattr(cpu, of)) for cpu in self.budgets]

        yield _gauge("cpu_threads", "Computations that may run at once.", each("size"))
        yield _gauge("cpu_running", "Computations that run.", each("running"))
        yield _gauge("cpu_waiting", "Computations that wait for a thread.", each("waiting"))
        refused = CounterMetricFamily(
            "oneton_cpu_refused", "Computations refused, for the queue was full.", labels=["budget"]
        )
        for labels, value in each("refused"):
            refused.add_metric(list(labels.values()), value)
        yield refused

    def _connections(self) -> Iterator[Metric]:
        pool = self._database.pool
        idle = pool.get_idle_size()
        used = {"idle": idle, "in_use": pool.get_size() - idle}
        yield _gauge(
            "postgres_connections",
            "Connections of the pool.",
            [({"state": state}, value) for state, value in used.items()],
        )
        yield _gauge(
            "postgres_connections_most",
            "ONETON_DATABASE_POOL_SIZE.",
            [({}, pool.get_max_size())],
        )

    def _disks(self) -> Iterator[Metric]:
        free: list[tuple[dict[str, str], float]] = []
        size: list[tuple[dict[str, str], float]] = []
        for name, folder in self._folders.items():
            with suppress(OSError):
                usage = shutil.disk_usage(folder)
                free.append(({"folder": name}, usage.free))
                size.append(({"folder": name}, usage.total))
        yield _gauge("disk_free_bytes", "Room left where the folder is.", free)
        yield _gauge("disk_size_bytes", "Size of the disk there.", size)


def _heads(read: Read) -> dict[int, int]:
    return {each.gallery_no: each.head for each in read.heads if each.gallery_no is not None}


INDEX_FIGURES = {
    "index_head": "The change up to which an index is.",
    "index_lag": "Changes in Postgres, when it was last read, that the index has not.",
    "index_faces": "Faces that a search ranks.",
    "index_removed_faces": "Removed faces whose rows are still there.",
    "index_tail_faces": "Faces of the open tail.",
    "index_segments": "Sealed segments.",
    "index_memory_bytes": "What an index takes in memory.",
    "index_unsaved_changes": "Changes since the newest snapshot.",
    "snapshot_age_seconds": "Since the newest snapshot, where there is one.",
}


def _indexes(held: list[Loaded], heads: Mapping[int, int]) -> Iterator[Metric]:
    found = sorted(
        (_figures_of(each, heads) for each in held if each.index is not None),
        key=lambda each: -each[1]["index_faces"],
    )
    rows = found[:MOST_INDEXES]
    if rest := found[MOST_INDEXES:]:
        summed = {
            name: sum(figures.get(name, 0) for _, figures in rest)
            for name in INDEX_FIGURES
            if name not in ("index_head", "snapshot_age_seconds")
        }
        rows.append(({"gallery": REST, "pack": REST}, summed))
    for name, text in INDEX_FIGURES.items():
        yield _gauge(
            name,
            text,
            [(labels, figures[name]) for labels, figures in rows if name in figures],
        )


def _figures_of(held: Loaded, heads: Mapping[int, int]) -> tuple[dict[str, str], dict[str, float]]:
    index = held.index
    assert index is not None
    view = index.view
    gallery_no = held.gallery.gallery_no
    figures: dict[str, float] = {
        "index_head": view.head,
        "index_faces": len(view.tail) + sum(len(part) for part in view.parts),
        "index_removed_faces": view.tail.removed + sum(part.removed for part in view.parts),
        "index_tail_faces": len(view.tail),
        "index_segments": len(view.parts),
        "index_memory_bytes": index.size_bytes,
        "index_unsaved_changes": max(0, view.head - held.snapshot_head),
    }
    if gallery_no in heads:
        figures["index_lag"] = max(0, heads[gallery_no] - view.head)
    if held.snapshot_head:
        figures["snapshot_age_seconds"] = monotonic() - held.snapshot_at_s
    return {"gallery": str(gallery_no), "pack": str(held.pack_no)}, figures


def _figures(read: Read) -> Iterator[Metric]:
    def of(what: str, *labels: str) -> list[tuple[dict[str, str], float]]:
        return [
            ({name: getattr(each, name) for name in labels}, each.value)
            for each in read.figures
            if each.what == what
        ]

    yield _gauge("tenants", "Tenants.", of("tenants"))
    yield _gauge("galleries", "Galleries.", of("galleries", "kind"))
    yield _gauge("faces", "Face records, as Postgres estimates.", of("faces"))
    yield _gauge(
        "gallery_head",
        "Changes of a gallery since it was made, in Postgres.",
        [
            ({"gallery": REST if each.gallery_no is None else str(each.gallery_no)}, each.head)
            for each in read.heads
        ],
    )
    yield _gauge("tenant_jobs", "Jobs of tenants that are not over.", of("jobs", "kind", "state"))
    yield _gauge("queue_jobs", "Jobs in the queue of the workers.", of("queue", "kind", "state"))
    yield _gauge("outbox_deliveries", "Webhooks to be delivered.", of("outbox", "state"))
    yield _gauge(
        "outbox_oldest_due_seconds",
        "For how long the oldest has been due.",
        of("outbox_oldest_s"),
    )
    yield _gauge(
        "erasure_oldest_due_seconds",
        "For how long the oldest picture to be erased has been due.",
        of("erase_oldest_s"),
    )


OPEN = (GalleryState.FILLING, GalleryState.STOPPED, GalleryState.FILLED, GalleryState.KEPT)


def reindexing(works: list[Work]) -> Iterator[Metric]:
    """Of the galleries that are at it; each is in one such state only."""
    faces: list[tuple[dict[str, str], float]] = []
    state: list[tuple[dict[str, str], float]] = []
    for each in works:
        if each.state not in OPEN:
            continue
        gallery = {"gallery": str(each.gallery_no)}
        paused = each.run_state is RunState.PAUSED and each.state is GalleryState.FILLING
        state.append(({**gallery, "state": "paused" if paused else each.state.value}, 1))
        counts = {"to_embed": each.to_embed, "embedded": each.embedded, "failed": each.failed}
        faces += [({**gallery, "of": name}, value) for name, value in counts.items()]
    yield _gauge("reindex_faces", "Images of a gallery that is re-embedded.", faces)
    yield _gauge("reindex_state", "In which state that is; always 1.", state)


def _gauge(
    name: str, text: str, rows: Iterable[tuple[Mapping[str, str], float]]
) -> GaugeMetricFamily:
    rows = list(rows)
    labels = list(rows[0][0]) if rows else []
    made = GaugeMetricFamily(f"oneton_{name}", text, labels=labels)
    for values, value in rows:
        made.add_metric(list(values.values()), value)
    return made
