"""On a full disk searching goes on, nothing half-written counts, and it is written later."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from oneton.index.snapshot import SnapshotFolder
from oneton.index.store import relative_folder
from tests.unit.index.conftest import (
    IDENTITY,
    Kept,
    MakeStore,
    add,
    check,
    fill,
    remove,
)

PATIENCE_S = 61.0
"""After a minute writing is tried again."""


class Disk:
    """Has no room from the n-th write, fsync, rename or new file on."""

    def __init__(self, calls_left: int) -> None:
        self.calls_left = calls_left
        self.refused = 0

    @contextmanager
    def full(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in ((os, "write"), (os, "fsync"), (os, "open"), (Path, "replace")):
                patch.setattr(owner, name, self._limit(getattr(owner, name)))
            yield

    def _limit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            reads = function.__name__ == "open" and not arguments[1] & os.O_CREAT
            if not reads:
                self.calls_left -= 1
                if self.calls_left < 0:
                    self.refused += 1
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **options)

        return call


def whole_snapshots(folder: Path) -> int:
    """How many there are; every one has to open, with all of its files."""
    kept_in = SnapshotFolder(folder, IDENTITY)
    return len([kept_in.open(path) for path in kept_in.manifests()])


@pytest.mark.parametrize("calls", [0, 1, 3, 6, 10, 13, 16, 20, 25, 31])
def test_a_disk_that_is_full_from_any_moment_on_spoils_nothing(
    make_store: MakeStore, rng: np.random.Generator, calls: int
) -> None:
    kept_by = make_store()
    assert kept_by.folder is not None
    index, _ = kept_by.open(IDENTITY)
    now_s = 0.0
    index._now = lambda: now_s
    disk, folder = Disk(calls), kept_by.folder / relative_folder(IDENTITY)
    with disk.full(), capture_logs() as logs:
        kept = fill(index, rng)
        kept_by.take(IDENTITY, index)
        add(index, kept, rng, 130)
        remove(index, kept, *range(20, 110))
        add(index, kept, rng, 10)
        kept_by.take(IDENTITY, index)
        check(index, kept, rng)
    warned = [line["error"] for line in logs if line["log_level"] == "warning"]
    assert set(warned) <= {"No space left on device"}
    assert bool(warned) == bool(disk.refused)
    assert list(folder.rglob("*.writing")) == []
    whole = whole_snapshots(folder)
    now_s += PATIENCE_S
    while index.upkeep():
        pass
    check(index, kept, rng)
    manifest = kept_by.take(IDENTITY, index)
    assert manifest is not None
    assert whole_snapshots(folder) == min(2, whole + 1)
    kept_by.close()
    check(make_store().open(IDENTITY)[0], kept, rng)


def test_while_the_disk_is_full_it_is_tried_once_a_minute(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    now_s = 0.0
    index._now = lambda: now_s
    kept: Kept = {}
    with Disk(0).full(), capture_logs() as logs:
        for _ in range(4):
            add(index, kept, rng, 70)
            assert kept_by.take(IDENTITY, index) is None
        assert [line["event"] for line in logs] == [
            "a segment is kept in memory, for it cannot be written"
        ]
        now_s += PATIENCE_S
        add(index, kept, rng, 70)
    assert len(logs) == 2
    assert all(part.segment.meta is None for part in index.view.parts)
    held_bytes = index.size_bytes
    now_s += PATIENCE_S
    while index.upkeep():
        pass
    assert all(part.segment.meta is not None for part in index.view.parts)
    assert index.size_bytes < held_bytes
    assert kept_by.take(IDENTITY, index) is not None


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from oneton.domain.model import Changes
from oneton.index.merging import Policy
from oneton.index.segmented import SegmentedIndex

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
now_s = 0.0
index = SegmentedIndex(
    128, folder=Path(sys.argv[1]), policy=Policy(seal_faces=500), now=lambda: now_s
)
rows = np.random.default_rng(1).normal(size=(500, 128)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
nobody = np.empty(0, dtype=np.int64)
index.catch_up(Changes(0, 500, np.arange(500), rows, nobody))
assert index.upkeep()
assert list(Path(sys.argv[1]).iterdir()) == []
assert (index.search(rows, 1)[1][:, 0] == np.arange(500)).all()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
now_s = 61.0
assert index.upkeep()
assert (index.search(rows, 1)[1][:, 0] == np.arange(500)).all()
print(sorted(path.suffix for path in Path(sys.argv[1]).iterdir()))
"""


def test_a_file_that_the_system_lets_grow_no_further_is_kept_in_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert done.stdout.splitlines()[-1] == "['.codes', '.templates']"
