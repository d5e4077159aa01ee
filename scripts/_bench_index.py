"""Our index and its peers on the same faces, in one run; writes docs/bench/index*.

Faces are drawn with the mean and covariance of real embeddings, with real mates planted among
them. Each engine runs alone, in a process of its own, at one size after another.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from _bench_index_faces import prepare
from _bench_index_plots import plot
from _bench_index_rows import KINDS, OURS, Measured, Row, append_csv, read_csv, start_csv
from _bench_index_table import markdown

SIZES = "10000,100000,1000000"
TEN_MILLION = 10_000_000
FOLDER = Path(".oneton/bench")
# Past its limit an engine's process says so itself; past this too it is stuck, and ended.
GRACE_S, STOP_S = 600, 60


def machine() -> str:
    """The processor and what there is of it, without the machine's name."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if "model name" in line), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{os.cpu_count()} cores, {memory:.0f} GiB"
    return f"{model or platform.processor()} ({platform.machine()}), {cores}"


def run_alone(engine: str, size: int, limit_s: float) -> Measured:
    """Measure one engine at one size in a fresh process."""
    with tempfile.TemporaryDirectory(dir=FOLDER.resolve(), ignore_cleanup_errors=True) as folder:
        script = Path(__file__).with_name("_bench_index_measure.py")
        process = subprocess.Popen(
            [sys.executable, script, engine, str(size), FOLDER, folder, str(limit_s)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            printed, _ = process.communicate(timeout=limit_s + GRACE_S)
        except subprocess.TimeoutExpired:
            return Measured(note=f"over {limit_s:.0f} s")
        finally:
            _end(process)
    if process.returncode != 0 or not printed.strip():
        return Measured(note=f"ended with {process.returncode}")
    # A library may have printed before it.
    return msgspec.json.decode(printed.splitlines()[-1], type=Measured)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def told(rows: Sequence[Row]) -> str:
    """A line of progress for the effort that the table shows."""
    row = next(row for row in rows if row.shown)
    if row.p50_ms is None or row.found is None:
        return row.note
    return (
        f"build {row.build_s:.1f} s, {row.resident_mb:.0f} MB, p50 {row.p50_ms:.2f} ms,"
        f" {row.batch_per_s:.0f} probes/s, {row.inserts_per_s or 0:.0f} inserts/s,"
        f" mates {row.found:.2%} {row.note}"
    )


def measure_all(
    out: Path, sizes: Sequence[int], engines: Sequence[str], limit_s: float, command: str
) -> None:
    """Measure and append to the CSV as figures come."""
    start_csv(out)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for size in sizes:
        for engine in engines if size < TEN_MILLION else [OURS]:
            print(f"{size:,} {KINDS[engine].title} ...", file=sys.stderr)
            started_s = time.perf_counter()
            rows = run_alone(engine, size, limit_s).rows(engine, size, today, machine(), command)
            append_csv(out, rows)
            took_s = time.perf_counter() - started_s
            print(f"  {told(rows)} ({took_s:.0f} s in all)", file=sys.stderr)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=SIZES, help="numbers of faces, with commas")
    parser.add_argument("--engines", default=",".join(KINDS), help="names, with commas")
    parser.add_argument("--with-10m", action="store_true", help="ours at 10 million, too: 20 GB")
    parser.add_argument("--limit-s", type=float, default=1800, help="for one engine at one size")
    parser.add_argument(
        "--photos", type=Path, default=Path("../shared/data/lfw"), help="one folder a person"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/bench"))
    parser.add_argument("--plots-only", action="store_true", help="from the CSV that is there")
    asked = parser.parse_args()
    unknown = set(asked.engines.split(",")) - set(KINDS)
    if unknown:
        parser.error(f"no engine {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return asked


def main() -> None:
    """Measure, write and print."""
    asked = arguments()
    # So that the engine's process, and a server that it started, end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    listing: Path = asked.out / "index.csv"
    if not asked.plots_only:
        asked.out.mkdir(parents=True, exist_ok=True)
        sizes = sorted(int(size) for size in asked.sizes.split(","))
        sizes += [TEN_MILLION] if asked.with_10m else []
        engines = [name for name in KINDS if name in asked.engines.split(",")]
        command = f"scripts/bench index --sizes {asked.sizes} --limit-s {asked.limit_s:g}"
        command += f" --engines {','.join(engines)}" if len(engines) < len(KINDS) else ""
        command += " --with-10m" if asked.with_10m else ""
        prepare(FOLDER, asked.photos, sizes)
        measure_all(listing, sizes, engines, asked.limit_s, command)
    rows = read_csv(listing)
    text = markdown(rows)
    (asked.out / "index.md").write_text(text)
    plot(rows, asked.out)
    print(text)


if __name__ == "__main__":
    main()
