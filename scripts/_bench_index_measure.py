"""Measures one engine at one size, in a process of its own; prints one line of JSON.

Started by `_bench_index.py`: only so is memory the engine's, and no peer's threads meet another's.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import importlib.metadata
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import numpy as np
from _bench_index_data import LIST_LENGTH, Arrays, Planted
from _bench_index_engines import Engine, Found, OverLimitError
from _bench_index_rows import KINDS, Measured, Point
from numpy.typing import NDArray

CHUNK = 131_072
WARM, SINGLE, BATCH = 20, 200, 250
SINGLE_AT_LEAST_S, SINGLE_AT_MOST_S, BATCH_AT_LEAST_S = 2.0, 20.0, 2.0
INSERT_S, PACE_S, UPKEEP_EVERY_S = 3.0, 0.01, 0.05
ENOUGH = 0.99


class TurnLock:
    """A lock that is had in turn: a plain one goes to whoever runs, and the other may starve."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


def in_memory_mb() -> float:
    """This process's anonymous memory, without what the allocator merely keeps back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if "RssAnon" in line)
    return int(kilobytes) * 1024 / 1e6


def mapped_mb(folder: Path) -> float:
    """What of the folder's files is mapped into this process and in memory."""
    kilobytes, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):
            ours = str(folder) in line
        elif ours and fields[0] == "Rss:":
            kilobytes += int(fields[1])
    return kilobytes * 1024 / 1e6


def build(engine: Engine, arrays: Arrays, ends_s: float) -> float:
    """Add all faces; the seconds that the engine took, without those of reading."""
    took_s = 0.0
    for start in range(0, arrays.size, CHUNK):
        rows = arrays.rows(start, min(arrays.size, start + CHUNK))
        started_s = time.perf_counter()
        engine.add(start, rows)
        engine.upkeep()
        took_s += time.perf_counter() - started_s
        if time.monotonic() > ends_s:
            raise OverLimitError
    started_s = time.perf_counter()
    engine.finish(ends_s - time.monotonic())
    return took_s + time.perf_counter() - started_s


def single_ms(engine: Engine, probes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Times of searches with one probe, after warm ones."""
    for probe in probes[:WARM]:
        engine.search(probe[None], LIST_LENGTH)
    took_ms: list[float] = []
    started_s = time.perf_counter()
    for probe in itertools.cycle(probes):
        before_s = time.perf_counter()
        engine.search(probe[None], LIST_LENGTH)
        after_s = time.perf_counter()
        took_ms.append((after_s - before_s) * 1000)
        elapsed_s = after_s - started_s
        if elapsed_s > SINGLE_AT_MOST_S or (
            len(took_ms) >= SINGLE and elapsed_s > SINGLE_AT_LEAST_S
        ):
            break
    return np.array(took_ms)


def batches(engine: Engine, probes: NDArray[np.float32]) -> tuple[Found, float]:
    """Search with all probes, many in a call; what was found, and probes a second."""
    found, rates, took_s = [], [], 0.0
    calls = np.array_split(probes, max(1, len(probes) // BATCH))
    for number in itertools.count():
        asked = calls[number % len(calls)]
        before_s = time.perf_counter()
        lists = engine.search(asked, LIST_LENGTH)
        call_s = time.perf_counter() - before_s
        took_s += call_s
        rates.append(len(asked) / call_s)
        if number < len(calls):
            found.append(lists)
        elif took_s > BATCH_AT_LEAST_S:
            break
    cosines, rows = (np.concatenate(each) for each in zip(*found, strict=True))
    return (cosines, rows), float(np.median(rates))


def point(engine: Engine, arrays: Arrays, planted: Planted, effort: int | None) -> Point:
    """Latency, batch rate, mates found and how wrong the cosines are, at one effort."""
    if effort is not None:
        engine.set_effort(effort)
    p50_ms, p95_ms = np.percentile(single_ms(engine, planted.probes), [50, 95])
    (cosines, rows), rate = batches(engine, planted.probes)
    is_mate = (rows == planted.mates[:, None]) & (cosines >= planted.threshold)
    return Point(
        effort=effort,
        p50_ms=float(p50_ms),
        p95_ms=float(p95_ms),
        batch_per_s=rate,
        mates=int((is_mate.any(axis=1) & planted.findable).sum()),
        cosine_error=cosine_error(arrays, planted.probes, cosines, rows),
    )


def cosine_error(
    arrays: Arrays,
    probes: NDArray[np.float32],
    cosines: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> float:
    """What 99 % of the engine's cosines are off by at most."""
    true = np.einsum("qd,qkd->qk", probes, arrays.gathered(rows))
    return float(np.percentile(np.abs(cosines - true)[rows >= 0], 99))


class Inserting:
    """Single faces inserted while another thread searches, and a third keeps up, without pause."""

    def __init__(self, engine: Engine, arrays: Arrays, probes: NDArray[np.float32]) -> None:
        self._engine, self._probes = engine, probes
        self._guard: AbstractContextManager[None] = TurnLock() if engine.guarded else nullcontext()
        self._newcomers = arrays.newcomers()
        self._size, self._inserted = arrays.size, 0

    def run(self, every_s: float) -> tuple[float, float]:
        """Insert one face each so many seconds; inserts a second, and p50 of searches in ms."""
        stop = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            searched, kept = pool.submit(self._search, stop), pool.submit(self._keep_up, stop)
            try:
                rate = self._insert(every_s)
            finally:
                stop.set()
            kept.result()
            return rate, float(np.median(searched.result()))

    def _search(self, stop: threading.Event) -> list[float]:
        took_ms: list[float] = []
        for probe in itertools.cycle(self._probes):
            before_s = time.perf_counter()
            with self._guard:
                self._engine.search(probe[None], LIST_LENGTH)
            took_ms.append((time.perf_counter() - before_s) * 1000)
            if stop.is_set():
                break
        return took_ms

    def _keep_up(self, stop: threading.Event) -> None:
        while not stop.wait(UPKEEP_EVERY_S):
            self._engine.upkeep()

    def _insert(self, every_s: float) -> float:
        """For some seconds, or until no newcomer is left."""
        started_s = time.perf_counter()
        for count in itertools.count(1):
            row = self._inserted
            with self._guard:
                self._engine.add(self._size + row, self._newcomers[row : row + 1])
            self._inserted += 1
            elapsed_s = time.perf_counter() - started_s
            if elapsed_s > INSERT_S or self._inserted == len(self._newcomers):
                break
            if count * every_s > elapsed_s:
                time.sleep(count * every_s - elapsed_s)
        return count / elapsed_s


def measure(engine: Engine, arrays: Arrays, folder: Path, limit_s: float, into: Measured) -> None:
    """Fill in what was measured, as far as the limit lets it.

    Raises:
        OverLimitError: not even one point was measured.
    """
    ends_s = time.monotonic() + limit_s
    planted = arrays.planted()
    into.version, into.guarded = engine.version(), engine.guarded
    into.mates_of = int(planted.findable.sum())
    before_mb = in_memory_mb()
    into.build_s = build(engine, arrays, ends_s)
    for probe in planted.probes[:WARM]:
        engine.search(probe[None], LIST_LENGTH)
    index_bytes = engine.index_bytes()
    into.is_index_size = index_bytes is not None
    into.resident_mb = in_memory_mb() - before_mb if index_bytes is None else index_bytes / 1e6
    into.mapped_mb = mapped_mb(folder)
    for effort in engine.efforts or (None,):
        if into.points and time.monotonic() > ends_s:
            into.note = f"over {limit_s:.0f} s, so that not all efforts were tried"
            break
        into.points.append(point(engine, arrays, planted, effort))
    enough = [each for each in into.points if each.mates >= ENOUGH * into.mates_of]
    shown = enough[0] if enough else max(into.points, key=lambda each: each.mates)
    into.shown = shown.effort
    if shown.effort is not None:
        engine.set_effort(shown.effort)
    inserting = Inserting(engine, arrays, planted.probes)
    # Paced first: flat out, the index would have grown.
    _, into.search_ms_paced = inserting.run(PACE_S)
    into.inserts_per_s, into.search_ms_inserting = inserting.run(0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=KINDS)
    parser.add_argument("size", type=int)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path, help="an empty one, for the engine's files")
    parser.add_argument("limit_s", type=float)
    asked = parser.parse_args()
    # So that a server that the engine started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    module, name = KINDS[asked.engine].made_by.split(":")
    measured = Measured()
    engine: Engine | None = None
    try:
        engine = getattr(importlib.import_module(module), name)(asked.size, asked.folder)
        assert engine is not None
        arrays = Arrays(asked.data, asked.size)
        measure(engine, arrays, asked.folder, asked.limit_s, measured)
    except OverLimitError:
        measured.note = f"over {asked.limit_s:.0f} s"
    except ModuleNotFoundError as error:
        measured.note = f"{error.name} is not installed"
    except Exception as error:  # noqa: BLE001 - an engine's failure is its own row's
        traceback.print_exc()
        measured.note = f"failed: {type(error).__name__}"
    finally:
        if engine is not None:
            engine.close()
    print(msgspec.json.encode(measured).decode(), flush=True)
    # An index of gigabytes, let go of piece by piece, takes longer than a process that ends.
    os._exit(0)


if __name__ == "__main__":
    main()
