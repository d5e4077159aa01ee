"""How long an index takes from a snapshot to its first answer, and the memory it holds.

Faces are drawn as for `scripts/bench index` and built straight into segments; each start is a
process of its own, with the snapshot's files in the system's cache and without. Writes
docs/bench/start.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

FOLDER = Path(".oneton/bench")
SIZES = "1000000,10000000"
STARTS = 5
SEARCHES = 200
PROBES = 64
LIST_LENGTH = 5
PROBES_CHUNK = 2_000_000


class Built(msgspec.Struct, frozen=True):
    """What building told.

    Attributes:
        memory_mb: growth of anonymous memory by building.
    """

    build_s: float
    snapshot_s: float
    memory_mb: float


class Started(msgspec.Struct, frozen=True):
    """One start.

    Attributes:
        imported_s: from the process's start until the index can be opened.
        opened_s: from there until it is open.
        first_ms: of the first search, which reads templates that are not in memory yet.
        p50_ms: of searches after it.
        memory_mb: growth of anonymous memory by opening and searching.
        mapped_mb: of the snapshot's files, mapped and in memory.
    """

    imported_s: float
    opened_s: float
    first_ms: float
    p50_ms: float
    memory_mb: float
    mapped_mb: float

    @property
    def answered_s(self) -> float:
        """From the process's start to the first answer."""
        return self.imported_s + self.opened_s + self.first_ms / 1000


Work = TypeVar("Work", Built, Started)


def build(size: int, folder: Path, photos: Path) -> Built:
    """Build an index of drawn faces and take a snapshot."""
    from _bench_index_faces import CHUNK, grouped, spread_of  # noqa: PLC0415 - in its process only

    from oneton.biometrics.packs import assemble_buffalo_sc, open_pack  # noqa: PLC0415
    from oneton.domain.model import Changes  # noqa: PLC0415

    pack = open_pack("buffalo_sc", assemble_buffalo_sc(FOLDER / "models").parent)
    real = grouped(FOLDER / "lfw.npz", photos, pack)
    spread = spread_of(real.embeddings[real.first])
    np.save(folder / "probes.npy", spread.draw(PROBES, PROBES_CHUNK))
    identity, store = _store(folder)
    before_mb = anonymous_mb()
    index, _ = store.open(identity)
    took_s = 0.0
    for chunk, start in enumerate(range(0, size, CHUNK)):
        rows = spread.draw(min(CHUNK, size - start), chunk)
        began_s = time.perf_counter()
        index.catch_up(
            Changes(
                since=start,
                head=start + len(rows),
                added_face_nos=np.arange(start, start + len(rows)),
                added_embeddings=rows,
                removed_face_nos=np.empty(0, dtype=np.int64),
            )
        )
        index.upkeep()
        took_s += time.perf_counter() - began_s
    began_s = time.perf_counter()
    while index.upkeep():
        pass
    took_s += time.perf_counter() - began_s
    began_s = time.perf_counter()
    assert store.take(identity, index) is not None
    del rows
    return Built(took_s, time.perf_counter() - began_s, anonymous_mb() - before_mb)


def start(folder: Path, began_s: float) -> Started:
    """Open the snapshot and search; `began_s` is when this process was started."""
    from _bench_index_measure import mapped_mb  # noqa: PLC0415

    identity, store = _store(folder)
    imported_s = time.time() - began_s
    before_mb = anonymous_mb()
    probes = np.load(folder / "probes.npy")
    opening_s = time.perf_counter()
    index, manifest = store.open(identity)
    opened_s = time.perf_counter() - opening_s
    assert manifest is not None, "there is a snapshot"
    took_ms = [_search_ms(index, probes[each % PROBES]) for each in range(SEARCHES)]
    memory_mb = anonymous_mb() - before_mb
    return Started(
        imported_s,
        opened_s,
        took_ms[0],
        float(np.median(took_ms[PROBES:])),
        memory_mb,
        mapped_mb(folder),
    )


def _search_ms(index, probe) -> float:  # type: ignore[no-untyped-def]  # noqa: ANN001
    began_s = time.perf_counter()
    index.search(probe[np.newaxis], LIST_LENGTH)
    return (time.perf_counter() - began_s) * 1000


def _store(folder: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from oneton.index.manifest import Identity  # noqa: PLC0415
    from oneton.index.merging import Policy  # noqa: PLC0415
    from oneton.index.scan import ScanThreads  # noqa: PLC0415
    from oneton.index.store import IndexStore  # noqa: PLC0415

    threads = ScanThreads(os.cpu_count() or 1)
    identity = Identity("bench", "default", 1, "buffalo_sc", "0" * 64, 512)
    return identity, IndexStore(folder / "snapshots", Policy(), threads, least_faces=1)


def anonymous_mb() -> float:
    """This process's anonymous memory, with all that allocators keep back."""
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if "RssAnon" in line)
    return int(kilobytes) * 1024 / 1e6


def forget(folder: Path) -> None:
    """Have the system drop the snapshot's files from its cache."""
    for path in (folder / "snapshots").rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def in_own_process(work: str, kind: type[Work], *arguments: object) -> Work:
    """Run this script for one piece of work."""
    done = subprocess.run(
        [sys.executable, __file__, "--work", work, *map(str, arguments)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=kind)


def rows(sizes: Sequence[int], photos: Path) -> Iterator[str]:
    """The table's rows, as they come."""
    for size in sizes:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as name:
            folder = Path(name)
            built = in_own_process("build", Built, size, folder, photos)
            print(f"{size:,}: {built}", file=sys.stderr)
            for cached in (True, False):
                starts = []
                for _ in range(STARTS):
                    if not cached:
                        forget(folder)
                    starts.append(in_own_process("start", Started, folder, time.time()))
                    print(f"  {starts[-1]}", file=sys.stderr)
                yield _row(size, built, starts, cached=cached)


def _row(size: int, built: Built, starts: Sequence[Started], *, cached: bool) -> str:
    def middle(name: str) -> float:
        return float(np.median([getattr(each, name) for each in starts]))

    cells = [
        f"{size:,}",
        "cached" if cached else "on the disk",
        f"{built.build_s:.0f}",
        f"{built.snapshot_s:.2f}",
        f"{built.memory_mb:.0f}",
        f"{middle('imported_s'):.2f}",
        f"{middle('opened_s'):.2f}",
        f"{middle('first_ms'):.1f}",
        f"{middle('answered_s'):.2f}",
        f"{middle('p50_ms'):.2f}",
        f"{middle('memory_mb'):.0f}",
        f"{middle('mapped_mb'):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| faces | snapshot's files | build, s | snapshot, s | memory then, MB | import, s | open, s |"
    " first search, ms | process start to first answer, s | p50, ms | memory, MB | mapped, MB |"
)


def main() -> None:
    """Measure, write and print."""
    if sys.argv[1:2] == ["--work"]:
        work, *arguments = sys.argv[2:]
        done: Built | Started
        if work == "build":
            done = build(int(arguments[0]), Path(arguments[1]), Path(arguments[2]))
        else:
            done = start(Path(arguments[0]), float(arguments[1]))
        print(msgspec.json.encode(done).decode(), flush=True)
        os._exit(0)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=SIZES, help="numbers of faces, with commas")
    parser.add_argument("--photos", type=Path, default=Path("../shared/data/lfw"))
    parser.add_argument("--out", type=Path, default=Path("docs/bench/start.md"))
    asked = parser.parse_args()
    lines = [
        "# From a snapshot to the first answer",
        "",
        f"`scripts/bench start --sizes {asked.sizes}`, {datetime.now(UTC):%Y-%m-%d},"
        f" {os.cpu_count()} cores ({platform.machine()}); medians of {STARTS} starts, each a"
        " process of its own that opens the newest snapshot and searches.",
        "",
        HEAD,
        "| ---: | --- |" + " ---: |" * 10,
        *rows([int(size) for size in asked.sizes.split(",")], asked.photos),
        "",
        "**Open** reads and checks every code and maps the templates; **memory** is how much the",
        f"process's anonymous memory grew by opening and {SEARCHES} searches, with all that",
        "allocators keep back; **memory then** is the same right after building. Mapped is what",
        "the system may drop. **On the disk**: the system was told to forget the files before.",
        "",
    ]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
