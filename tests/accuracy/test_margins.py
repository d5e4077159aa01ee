"""What the index's margins leave out, judged against the full matrix product."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from oneton.domain.model import Changes
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.segmented import SegmentedIndex
from oneton.index.templates import unit_rows

FACES = 20_000
DIMENSION = 128
PROBES = 400
MATED_COSINES = (0.3, 0.7)
TOLERANCE = 1e-4
NOBODY = np.empty(0, dtype=np.int64)

SPECTRA = {
    # Like a face model's, whose strongest half of the directions holds nine tenths of the variance.
    "falling": np.exp(-np.arange(DIMENSION) / 28 / 2),
    "flat": np.ones(DIMENSION),
    "few directions": np.where(np.arange(DIMENSION) < 16, 1.0, 1e-3),
}


def drawn(
    rng: np.random.Generator, spectrum: NDArray[np.float64], count: int
) -> NDArray[np.float32]:
    """Templates as Postgres gives them."""
    rows = (rng.standard_normal((count, DIMENSION)) * spectrum).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return unit_rows(rows.astype(np.float16))


def mates_of(rng: np.random.Generator, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probes at known cosines of some rows, turned towards other people."""
    cosines = rng.uniform(*MATED_COSINES, (len(rows), 1)).astype(np.float32)
    others = np.roll(rows, 1, axis=0)
    aside = others - np.vecdot(others, rows)[:, np.newaxis] * rows
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return np.asarray(cosines * rows + np.sqrt(1 - cosines**2) * aside, dtype=np.float32)


def filled(rows: NDArray[np.float32]) -> SegmentedIndex:
    """An index of segments of several sizes and a tail."""
    index = SegmentedIndex(DIMENSION, policy=Policy(seal_faces=8192), threads=ScanThreads(2))
    for start in range(0, len(rows), 5000):
        some = rows[start : start + 5000]
        numbers = np.arange(start, start + len(some))
        index.catch_up(Changes(index.head, index.head + len(some), numbers, some, NOBODY))
        index.upkeep()
    return index


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("k", [1, 10])
def test_the_best_are_those_of_the_full_product(
    name: str, k: int, rng: np.random.Generator
) -> None:
    rows = drawn(rng, SPECTRA[name], FACES)
    index = filled(rows)
    mated = mates_of(rng, rows[rng.permutation(FACES)[: PROBES // 2]])
    probes = np.concatenate([mated, drawn(rng, SPECTRA[name], PROBES // 2)])
    cosines, face_nos = index.search(probes, k)
    full = probes @ rows.T
    truth = -np.sort(-full, axis=1)[:, :k]
    # What is returned is exact; what is missed is as rare as the margin makes it.
    np.testing.assert_allclose(cosines, np.take_along_axis(full, face_nos, axis=1), atol=TOLERANCE)
    best = np.argpartition(-full, k - 1, axis=1)[:, :k]
    found = [len(set(mine) & set(theirs)) for mine, theirs in zip(face_nos, best, strict=True)]
    assert sum(found) >= 0.999 * k * len(probes)
    sure = truth[:, 0] > np.median(truth[:, 0])
    np.testing.assert_allclose(cosines[sure, 0], truth[sure, 0], atol=TOLERANCE)


def test_one_probe_and_many_give_the_same(rng: np.random.Generator) -> None:
    rows = drawn(rng, SPECTRA["falling"], 20_000)
    index = filled(rows)
    probes = mates_of(rng, rows[:100])
    together = index.search(probes, 3)
    alone = [index.search(probe[np.newaxis], 3) for probe in probes]
    np.testing.assert_allclose(
        together[0], np.concatenate([each[0] for each in alone]), atol=TOLERANCE
    )
    assert (together[1] == np.concatenate([each[1] for each in alone])).mean() > 0.99
