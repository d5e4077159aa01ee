"""Small galleries of arrays, and places for their snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from oneton.domain.model import Changes
from oneton.index import ranking, templates
from oneton.index.manifest import Identity
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.segmented import SegmentedIndex
from oneton.index.store import IndexStore

DIMENSION = 32
IDENTITY = Identity("tenant", "default", 1, "test", "0" * 64, DIMENSION)
POLICY = Policy(seal_faces=64, fanout=2, removed_share=0.5)
TOLERANCE = 1e-4
"""A template is fp16 once it is sealed."""

MakeStore = Callable[..., IndexStore]
Kept = dict[int, NDArray[np.float32]]
"""Templates that a search has to rank, by face number."""


@pytest.fixture(autouse=True)
def every_face_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the margin leaves out is judged in `tests/accuracy`; here nothing is."""
    monkeypatch.setattr(ranking, "MARGIN", 1e6)


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """Make stores of one folder, each as a process has it."""
    made: list[IndexStore] = []
    threads = ScanThreads(1)

    def make(root: Path = tmp_path / "snapshots") -> IndexStore:
        made.append(IndexStore(root, POLICY, threads, least_faces=1))
        return made[-1]

    yield make
    for each in made:
        each.close()
    threads.close()


def unit_rows(
    rng: np.random.Generator, count: int, dimension: int = DIMENSION
) -> NDArray[np.float32]:
    """As Postgres gives them: fp16 made unit length again."""
    rows = rng.normal(size=(count, dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return templates.unit_rows(rows.astype(np.float16))


def add(index: SegmentedIndex, kept: Kept, rng: np.random.Generator, count: int) -> None:
    """Add faces whose numbers follow the head, and do what upkeep is due."""
    rows = unit_rows(rng, count)
    numbers = np.arange(index.head + 1, index.head + 1 + count)
    nobody = np.empty(0, dtype=np.int64)
    index.catch_up(Changes(index.head, index.head + count, numbers, rows, nobody))
    kept |= dict(zip(numbers.tolist(), rows, strict=True))
    while index.upkeep():
        pass


def remove(index: SegmentedIndex, kept: Kept, *face_nos: int) -> None:
    """Remove faces."""
    nothing = np.empty((0, DIMENSION), dtype=np.float32)
    nobody, gone = np.empty(0, dtype=np.int64), np.array(face_nos)
    index.catch_up(Changes(index.head, index.head + len(gone), nobody, nothing, gone))
    for face_no in face_nos:
        del kept[face_no]


def check(index: SegmentedIndex, kept: Kept, rng: np.random.Generator) -> None:
    """The index ranks exactly these faces, each as the full product does."""
    assert len(index) == len(kept)
    face_nos = np.array(list(kept))
    rows = np.array(list(kept.values())).reshape(-1, DIMENSION)
    probes = np.concatenate([rows, unit_rows(rng, 3)])
    cosines, found = index.search(probes, 5)
    depth = min(5, len(kept))
    truth = np.sort(probes @ rows.T, axis=1)[:, ::-1][:, :depth]
    np.testing.assert_allclose(cosines[:, :depth], truth, atol=TOLERANCE)
    np.testing.assert_array_equal(found[: len(rows), 0] if depth else found[:0, 0], face_nos)


def fill(index: SegmentedIndex, rng: np.random.Generator) -> Kept:
    """Two segments and a tail, with faces removed from each."""
    kept: Kept = {}
    add(index, kept, rng, 150)
    add(index, kept, rng, 70)
    add(index, kept, rng, 20)
    remove(index, kept, 3, 151, 240)
    return kept
