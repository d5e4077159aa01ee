"""The tail of an impostor distribution, beyond what the measured pairs can show."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

METHOD = "generalised Pareto distribution over a threshold, by probability-weighted moments"
# A shape nearer to 0 than this is an exponential tail: the formulas divide by it.
_EXPONENTIAL = 1e-6


class Tail(msgspec.Struct, frozen=True):
    """A generalised Pareto distribution of the cosines above `cosine`.

    Source: Pickands 1975 (peaks over threshold); Hosking and Wallis 1987 (the fit).

    Attributes:
        fmr: share of all pairs of different people above `cosine`.
        cosine: where the tail begins.
        scale: above 0.
        shape: below 0 the tail has an end, above 0 it is heavier than exponential.
    """

    fmr: float
    cosine: float
    scale: float
    shape: float
    method: str = METHOD

    def cosine_at(self, fmr: float) -> float:
        """The cosine that a share `fmr` of pairs reaches; `fmr` is at most that of the tail."""
        decades = math.log(self.fmr / fmr)
        if abs(self.shape) < _EXPONENTIAL:
            return self.cosine + self.scale * decades
        return self.cosine + self.scale * math.expm1(self.shape * decades) / self.shape

    def fmr_at(self, cosine: float) -> float:
        """The share of pairs that reaches a cosine within the tail; 0 past its end."""
        excess = (cosine - self.cosine) / self.scale
        if abs(self.shape) < _EXPONENTIAL:
            return self.fmr * math.exp(-excess)
        base = 1 + self.shape * excess
        return 0.0 if base <= 0 else self.fmr * math.exp(-math.log(base) / self.shape)


def fit_tail(
    cosines: NDArray[np.float64], weights: NDArray[np.float64], start: float, fmr: float
) -> Tail:
    """Fit the tail to cosines above `start`.

    Args:
        cosines: (M,), falling, all above `start`.
        weights: (M,), how often each counts; not negative.
        start: where the tail begins.
        fmr: share of all pairs above `start`.

    Raises:
        ValueError: fewer than ten count.
    """
    counts = weights > 0
    excesses, weights = cosines[counts] - start, weights[counts]
    if weights.sum() < 10:
        raise ValueError("a tail takes at least ten pairs")
    above = (np.cumsum(weights) - 0.5 * weights) / weights.sum()
    mean = float(np.average(excesses, weights=weights))
    weighted = float(np.average(excesses * above, weights=weights))
    shape = 2 - mean / (mean - 2 * weighted)
    scale = 2 * mean * weighted / (mean - 2 * weighted)
    return Tail(fmr, start, scale, shape)
