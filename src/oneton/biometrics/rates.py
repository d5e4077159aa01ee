"""Measure a recogniser: cosines of pairs of different people and of one person."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.tail import Tail, fit_tail

LEAST_PAIRS = 10
"""A rate is measured when so many pairs are above its cosine."""
TAIL_FMR = 3e-3
"""Where the tail begins. Fitted from here, the cosine at FMR 1e-4 varied least between halves of
LFW by people: measured on the other half its rate was off by 8 % (root mean square of 24), as
single pairs give it by 9 %; from 1e-2 or 3e-2 on it was off by 9 and 20 %."""
LAST_DECADE = 9
_BINS = 200_000
_KEPT_SHARE = 0.15
_KEPT_PAIRS = 4_000_000
_ROWS = 2048
RESAMPLES = 200
_CONFIDENCE = (0.025, 0.975)
# A pair of strangers so alike is expected once in so many data sets of this size.
_SUSPECT_COUNT = 0.02
_UNLIKE_FMR = 1e-1


class Rate(msgspec.Struct, frozen=True):
    """The cosine that a share `fmr` of pairs of different people reaches.

    Attributes:
        cosine: within the tail that of the fit, which is steadier than single pairs.
        observed: that of the measured pairs; None where they are fewer than ten.
        low: of the 95 % interval, by resampling people; None where it is not known.
        high: likewise.
        extrapolated: beyond what the measured pairs can show.
    """

    fmr: float
    cosine: float
    observed: float | None
    low: float | None
    high: float | None
    extrapolated: bool


class Suspect(msgspec.Struct, frozen=True):
    """Two photos under two names that are as alike as one person's.

    Attributes:
        rows: of the embeddings.
    """

    rows: tuple[int, int]
    cosine: float


class Measured(msgspec.Struct, frozen=True):
    """What labelled embeddings show.

    Attributes:
        impostor_bins: counts of cosines in equal bins from -1 to 1, suspects left out.
        rates: FMR 1e-1 to 1e-9, a decade each.
        genuine: (G,) cosines of pairs of one person's photos, rising.
        suspects: the likeliest label errors, the most alike first; the names that they join are
            not compared with each other.
        unlike: rows whose person has other photos, none of them like it.
    """

    people: int
    photos: int
    impostor_pairs: int
    impostor_bins: NDArray[np.int64]
    rates: tuple[Rate, ...]
    tail: Tail
    genuine: NDArray[np.float64]
    suspects: tuple[Suspect, ...]
    unlike: tuple[int, ...]


class _Pairs(msgspec.Struct):
    """All pairs of different people in bins, and the most alike ones one by one.

    Attributes:
        cosines: (M,), falling.
        rows: (M, 2) int32.
    """

    bins: NDArray[np.int64]
    cosines: NDArray[np.float64]
    rows: NDArray[np.int32]

    @property
    def count(self) -> int:
        return int(self.bins.sum())

    def cosine_at(self, fmr: float) -> float:
        """The cosine that this share of pairs reaches: of single pairs where there are any."""
        wanted = fmr * self.count
        if wanted <= len(self.cosines):
            return float(self.cosines[max(0, math.ceil(wanted) - 1)])
        above = np.cumsum(self.bins[::-1])
        return 1.0 - 2.0 * int(np.searchsorted(above, wanted)) / _BINS


def measure(
    embeddings: NDArray[np.float32],
    people: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Measured:
    """Measure the cosines of all pairs.

    Args:
        embeddings: (N, D) of unit L2 norm.
        people: (N,) whose each is; from 0 without gaps.
        seed: of the resampling.
        resamples: 0 leaves the intervals out.

    Raises:
        ValueError: there are too few people to say anything at FMR 1e-4.
    """
    pairs = _compare(embeddings, people)
    if pairs.count * 1e-4 < LEAST_PAIRS:
        raise ValueError(
            f"{pairs.count:,} pairs of different people; at least {LEAST_PAIRS * 10_000:,} are "
            "needed, as 450 people give"
        )
    pairs, suspects = _without_suspects(pairs, embeddings, people)
    tail = _tail(pairs, np.ones(len(pairs.cosines)), pairs.count)
    genuine = _genuine(embeddings, people)
    return Measured(
        people=int(people.max()) + 1,
        photos=len(people),
        impostor_pairs=pairs.count,
        impostor_bins=pairs.bins,
        rates=tuple(_rates(pairs, people, tail, np.random.default_rng(seed), resamples)),
        tail=tail,
        genuine=genuine,
        suspects=suspects,
        unlike=_unlike(embeddings, people, pairs.cosine_at(_UNLIKE_FMR)),
    )


def false_match_rate(
    embeddings: NDArray[np.float32], people: NDArray[np.int64], cosines: NDArray[np.float64]
) -> tuple[NDArray[np.float64], int]:
    """The share of pairs of different people, suspects left out, that reaches each cosine.

    Returns:
        shares: as `cosines`.
        pairs: their number.
    """
    pairs, _ = _without_suspects(_compare(embeddings, people), embeddings, people)
    above = np.concatenate([np.cumsum(pairs.bins[::-1])[::-1], [0]])
    singly = np.searchsorted(-pairs.cosines, -cosines, side="right")
    exact = cosines > (pairs.cosines[-1] if len(pairs.cosines) else 1.0)
    shares: NDArray[np.float64] = np.where(exact, singly, above[_bin(cosines)]) / pairs.count
    return shares, pairs.count


def _bin(cosines: NDArray[np.floating]) -> NDArray[np.int64]:
    bins: NDArray[np.int64] = np.clip((cosines + 1.0) * (_BINS / 2), 0, _BINS - 1).astype(np.int64)
    return bins


def _blocks(
    embeddings: NDArray[np.float32], people: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Each pair once.

    Yields:
        the first row, cosines of a block with all rows from there, and which are of two people.
    """
    for first in range(0, len(people), _ROWS):
        block = slice(first, first + _ROWS)
        cosines = embeddings[block] @ embeddings[first:].T
        differ = people[block, None] != people[None, first:]
        yield first, cosines, np.triu(differ, 1)


def _compare(embeddings: NDArray[np.float32], people: NDArray[np.int64]) -> _Pairs:
    bins = np.zeros(_BINS, dtype=np.int64)
    for _, cosines, differ in _blocks(embeddings, people):
        bins += np.bincount(_bin(cosines[differ]), minlength=_BINS)
    wanted = min(_KEPT_PAIRS, _KEPT_SHARE * bins.sum())
    above = np.cumsum(bins[::-1])
    least = 1.0 - 2.0 * (int(np.searchsorted(above, wanted)) + 1) / _BINS
    kept: list[NDArray[np.float32]] = []
    rows: list[NDArray[np.int32]] = []
    for first, cosines, differ in _blocks(embeddings, people):
        found = np.argwhere(differ & (cosines >= least))
        kept.append(cosines[found[:, 0], found[:, 1]])
        rows.append((found + first).astype(np.int32))
    every = np.concatenate(kept).astype(np.float64)
    order = np.argsort(-every, kind="stable")
    return _Pairs(bins, every[order], np.concatenate(rows)[order])


def _without_suspects(
    pairs: _Pairs, embeddings: NDArray[np.float32], people: NDArray[np.int64]
) -> tuple[_Pairs, tuple[Suspect, ...]]:
    """Leave out all pairs of two names of which one pair is too alike for strangers.

    What strangers reach is told by the slope between FMR 1e-3 and 1e-4, which label errors, being
    a few pairs, hardly move; the true tail falls faster than this exponential one.
    """
    at_3, at_4 = pairs.cosine_at(1e-3), pairs.cosine_at(1e-4)
    decades = -math.log10(_SUSPECT_COUNT / pairs.count)
    least = at_4 + (at_4 - at_3) * max(0.0, decades - 4)
    count = int(np.searchsorted(-pairs.cosines, -least, side="right"))
    suspects = tuple(
        Suspect((int(one), int(other)), float(cosine))
        for (one, other), cosine in zip(pairs.rows[:count], pairs.cosines[:count], strict=True)
    )
    if not suspects:
        return pairs, ()
    joined = np.unique(np.sort(people[pairs.rows[:count]], axis=1), axis=0)
    bins = pairs.bins.copy()
    for one, other in joined:
        between = embeddings[people == one] @ embeddings[people == other].T
        bins -= np.bincount(_bin(between.reshape(-1)), minlength=_BINS)
    names = int(people.max()) + 1
    keys = np.sort(people[pairs.rows], axis=1) @ np.array([names, 1])
    stays = ~np.isin(keys, joined @ np.array([names, 1]))
    # Recomputed one by one, a cosine may fall into the next bin.
    bins = np.maximum(bins, 0)
    return _Pairs(bins, pairs.cosines[stays], pairs.rows[stays]), suspects


def _tail(pairs: _Pairs, weights: NDArray[np.float64], total: float) -> Tail:
    """Fit what is above `TAIL_FMR`; a pair counts as often as its weight says."""
    above = np.cumsum(weights)
    end = int(np.searchsorted(above, TAIL_FMR * total))
    if end >= len(above):
        raise ValueError("too few pairs are kept one by one")
    return fit_tail(pairs.cosines[:end], weights[:end], float(pairs.cosines[end]), TAIL_FMR)


def _rates(
    pairs: _Pairs,
    people: NDArray[np.int64],
    tail: Tail,
    rng: np.random.Generator,
    resamples: int,
) -> Iterator[Rate]:
    decades = [10.0**-decade for decade in range(1, LAST_DECADE + 1)]
    resampled: list[list[float]] = []
    for weights, total in _resamples(pairs, people, rng, resamples):
        above = np.cumsum(weights)
        fitted = _tail(pairs, weights, total)
        ends = [int(np.searchsorted(above, fmr * total)) for fmr in decades]
        resampled.append(
            [
                fitted.cosine_at(fmr)
                if fmr < TAIL_FMR
                else float(pairs.cosines[end] if end < len(above) else math.nan)
                for fmr, end in zip(decades, ends, strict=True)
            ]
        )
    unknown = np.full((1, len(decades)), math.nan)
    intervals = np.quantile(np.array(resampled) if resampled else unknown, _CONFIDENCE, axis=0)
    for number, fmr in enumerate(decades):
        extrapolated = fmr * pairs.count < LEAST_PAIRS
        observed = None if extrapolated else pairs.cosine_at(fmr)
        cosine = tail.cosine_at(fmr) if fmr < TAIL_FMR else pairs.cosine_at(fmr)
        low, high = (float(each) for each in intervals[:, number])
        known = math.isfinite(low) and math.isfinite(high)
        yield Rate(
            fmr, cosine, observed, low if known else None, high if known else None, extrapolated
        )


def _resamples(
    pairs: _Pairs, people: NDArray[np.int64], rng: np.random.Generator, resamples: int
) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Draw people again with replacement, for pairs that share a person say less than two do."""
    photos = np.bincount(people)
    one, other = people[pairs.rows[:, 0]], people[pairs.rows[:, 1]]
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(len(photos), size=len(photos)), minlength=len(photos))
        counted = (drawn * photos).astype(np.float64)
        total = (counted.sum() ** 2 - (counted**2).sum()) / 2
        yield (drawn[one] * drawn[other]).astype(np.float64), float(total)


def _genuine(embeddings: NDArray[np.float32], people: NDArray[np.int64]) -> NDArray[np.float64]:
    found = [
        (own @ own.T)[np.triu_indices(len(own), 1)].astype(np.float64)
        for own in _by_person(embeddings, people)
        if len(own) > 1
    ]
    return np.sort(np.concatenate(found)) if found else np.zeros(0)


def _by_person(
    embeddings: NDArray[np.float32], people: NDArray[np.int64]
) -> list[NDArray[np.float32]]:
    order = np.argsort(people, kind="stable")
    return np.split(embeddings[order], np.cumsum(np.bincount(people))[:-1])


def _unlike(
    embeddings: NDArray[np.float32], people: NDArray[np.int64], least: float
) -> tuple[int, ...]:
    """Photos that are like none of the two or more others under their name."""
    order = np.argsort(people, kind="stable")
    ends = np.cumsum(np.bincount(people))[:-1]
    found: list[int] = []
    for rows in np.split(order, ends):
        if len(rows) > 2:
            cosines = embeddings[rows] @ embeddings[rows].T
            np.fill_diagonal(cosines, -1.0)
            found += rows[cosines.max(axis=1) < least].tolist()
    return tuple(found)
