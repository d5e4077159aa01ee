"""Make a calibration of labelled embeddings, and check it on people it was not made of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.calibration import (
    FORMAT,
    SCORE_DECADES,
    Calibration,
    GenuinePoint,
)
from oneton.biometrics.rates import Measured, Rate, false_match_rate, measure

_SHARES = (
    0,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1,
)
_HALVINGS = 10


class Held(msgspec.Struct, frozen=True):
    """A calibration by half of the people, measured on the other half.

    Attributes:
        ratios: measured FMR over the stated one, for FMR 1e-1 to 1e-6; NaN below ten pairs.
    """

    halving: int
    people: int
    pairs: int
    ratios: tuple[float, ...]


def make_calibration(
    measured: Measured, recogniser_sha256: str, *, source: str, made_on: date
) -> Calibration:
    """Put what was measured into the form that is kept beside a pack.

    Raises:
        ValueError: no person has two photos, or the rates are not in order.
    """
    if len(measured.genuine) < 2:
        raise ValueError("too few people have two photos")
    cosines = np.quantile(measured.genuine, _SHARES)
    return Calibration(
        format=FORMAT,
        recogniser_sha256=recogniser_sha256,
        made_on=made_on.isoformat(),
        source=source,
        people=measured.people,
        photos=measured.photos,
        impostor_pairs=measured.impostor_pairs,
        genuine_pairs=len(measured.genuine),
        suspects=len(measured.suspects),
        impostor=tuple(_rounded(rate) for rate in measured.rates),
        tail=measured.tail,
        genuine=tuple(
            GenuinePoint(share, round(float(cosine), 5))
            for share, cosine in zip(_SHARES, cosines, strict=True)
        ),
        genuine_median=round(float(np.median(measured.genuine)), 5),
    )


def _rounded(rate: Rate) -> Rate:
    cosines = {name: getattr(rate, name) for name in ("cosine", "observed", "low", "high")}
    return msgspec.structs.replace(
        rate,
        fmr=float(f"{rate.fmr:.6g}"),
        **{name: None if each is None else round(each, 5) for name, each in cosines.items()},
    )


def check_by_halves(
    embeddings: NDArray[np.float32], people: NDArray[np.int64]
) -> Iterator[tuple[Held, Held]]:
    """Calibrate on half of the people and measure on the other, both ways, halving ten times.

    The first halving is every other person in order; the others are drawn.
    """
    count = int(people.max()) + 1
    for halving in range(_HALVINGS):
        order = (
            np.arange(count) if halving == 0 else np.random.default_rng(halving).permutation(count)
        )
        chosen = np.zeros(count, dtype=np.bool_)
        chosen[order[::2]] = True
        halves = [_rows_of(embeddings, people, side) for side in (chosen, ~chosen)]
        yield (
            _measure_other(halving, halves[0], halves[1]),
            _measure_other(halving, halves[1], halves[0]),
        )


_Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


def _rows_of(
    embeddings: NDArray[np.float32], people: NDArray[np.int64], wanted: NDArray[np.bool_]
) -> _Labelled:
    mask = wanted[people]
    _, numbers = np.unique(people[mask], return_inverse=True)
    return embeddings[mask], numbers.astype(np.int64)


def _measure_other(halving: int, own: _Labelled, other: _Labelled) -> Held:
    rates = measure(*own, resamples=0).rates[:SCORE_DECADES]
    seen, pairs = false_match_rate(*other, np.array([rate.cosine for rate in rates]))
    ratios = tuple(
        float(found / rate.fmr) if rate.fmr * pairs >= 10 else float("nan")
        for found, rate in zip(seen, rates, strict=True)
    )
    return Held(halving, int(other[1].max()) + 1, pairs, ratios)
