"""What every index must do, judged against the full matrix product."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from oneton.domain.errors import DimensionError
from oneton.domain.model import Changes
from oneton.index import GalleryIndex, ranking, templates
from oneton.index.merging import Policy
from oneton.index.segmented import SegmentedIndex

DIMENSION = 32
NOBODY = np.array([], dtype=np.int64)
TOLERANCE = 1e-4
"""A template is fp16 once it is sealed."""


class Index(SegmentedIndex):
    """Seals 64 faces at a time and merges as soon as it may, and reads every face exactly."""

    SEAL_FACES = 64

    def __init__(self, dimension: int) -> None:
        policy = Policy(seal_faces=self.SEAL_FACES, fanout=2, removed_share=0.3)
        super().__init__(dimension, policy=policy)

    def catch_up(self, changes: Changes) -> None:
        super().catch_up(changes)
        while self.upkeep():
            pass


class TailIndex(Index):
    """Never seals."""

    SEAL_FACES = 1_000_000


make = pytest.mark.parametrize("make_index", [Index, TailIndex])


@pytest.fixture(autouse=True)
def every_face_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the margin leaves out is judged in `tests/accuracy`; here nothing is."""
    monkeypatch.setattr(ranking, "MARGIN", 1e6)


def unit_rows(
    rng: np.random.Generator, count: int, dimension: int = DIMENSION
) -> NDArray[np.float32]:
    """As Postgres gives them: fp16 made unit length again."""
    rows = rng.normal(size=(count, dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return templates.unit_rows(rows.astype(np.float16))


def added(since: int, face_nos: NDArray[np.int64], rows: NDArray[np.float32]) -> Changes:
    return Changes(since, since + len(face_nos), face_nos, rows, NOBODY)


def removed(since: int, face_nos: list[int]) -> Changes:
    gone = np.array(face_nos, dtype=np.int64)
    return Changes(since, since + len(gone), NOBODY, np.empty((0, DIMENSION), np.float32), gone)


def check(
    index: GalleryIndex, kept: dict[int, NDArray[np.float32]], probes: NDArray[np.float32], k: int
) -> None:
    """The index ranks `kept` as the full product does; ties may come in any order."""
    cosines, face_nos = index.search(probes, k)
    assert cosines.shape == face_nos.shape == (len(probes), k)
    assert len(index) == len(kept)
    depth = min(k, len(kept))
    assert (face_nos[:, depth:] == -1).all()
    assert (cosines[:, depth:] == -2).all()
    for probe, row_cosines, row_nos in zip(probes, cosines, face_nos, strict=True):
        truth = {no: float(row @ probe) for no, row in kept.items()}
        best = sorted(truth.values(), reverse=True)[:depth]
        np.testing.assert_allclose(row_cosines[:depth], best, atol=TOLERANCE)
        assert len(set(row_nos[:depth].tolist())) == depth
        for cosine, no in zip(row_cosines[:depth], row_nos[:depth], strict=True):
            assert abs(truth[int(no)] - cosine) < TOLERANCE


@make
def test_an_empty_index_answers_with_nothing(make_index: type[Index]) -> None:
    index = make_index(DIMENSION)
    check(index, {}, np.eye(2, DIMENSION, dtype=np.float32), 3)
    assert index.head == 0


@make
@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 150), st.floats(0, 1)), min_size=1, max_size=8),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_search_equals_the_full_product_whatever_was_added_and_removed(
    make_index: type[Index], steps: list[tuple[int, float]], k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    index, next_no = make_index(DIMENSION), 100
    kept: dict[int, NDArray[np.float32]] = {}
    for count, share_removed in steps:
        numbers = np.arange(next_no, next_no + count, dtype=np.int64)
        next_no += count
        rows = unit_rows(rng, count)
        index.catch_up(added(index.head, numbers, rows))
        kept |= dict(zip(numbers.tolist(), rows, strict=True))
        gone = [no for no in kept if rng.random() < share_removed]
        index.catch_up(removed(index.head, gone))
        kept = {no: row for no, row in kept.items() if no not in gone}
        check(index, kept, unit_rows(rng, 3), k)


@make
def test_a_removed_face_is_gone_from_search_and_from_memory(
    make_index: type[Index], rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 10)
    index = make_index(DIMENSION)
    index.catch_up(added(0, np.arange(10), rows))
    index.catch_up(removed(10, [4]))
    cosines, face_nos = index.search(rows[4:5], 10)
    assert 4 not in face_nos
    assert cosines[0, 0] < 0.9999
    held = index.view.tail.rows
    assert not np.isclose(held @ rows[4], 1).any()


@make
def test_removal_of_a_face_that_never_came_is_no_error(make_index: type[Index]) -> None:
    index = make_index(DIMENSION)
    index.catch_up(removed(0, [7]))
    assert (index.head, len(index)) == (1, 0)


@make
def test_another_dimension_is_refused_and_changes_nothing(
    make_index: type[Index], rng: np.random.Generator
) -> None:
    index = make_index(DIMENSION)
    with pytest.raises(DimensionError):
        index.catch_up(added(0, np.arange(3), unit_rows(rng, 3, DIMENSION + 1)))
    assert (index.head, len(index)) == (0, 0)
    with pytest.raises(DimensionError):
        index.search(unit_rows(rng, 1, DIMENSION - 1), 1)


@make
def test_searches_in_threads_never_see_half_a_change(
    make_index: type[Index], rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 3000)
    index = make_index(DIMENSION)
    index.catch_up(added(0, np.arange(1), rows[:1]))
    wrong: list[object] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            cosines, face_nos = index.search(rows[:1], 3)
            if face_nos[0, 0] != 0 or cosines[0, 0] < 0.9999 or (np.diff(cosines[0]) > 0).any():
                wrong.append((cosines, face_nos))

    searching = [threading.Thread(target=search) for _ in range(3)]
    for thread in searching:
        thread.start()
    for start in range(1, 3000, 7):
        numbers = np.arange(start, min(start + 7, 3000))
        index.catch_up(added(index.head, numbers, rows[numbers]))
    done.set()
    for thread in searching:
        thread.join()
    assert wrong == []
