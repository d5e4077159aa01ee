"""A model pack's calibration: cosine to score, and what a score means."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from oneton.domain.errors import SettingError
from oneton.domain.model import Cosine, Score

FOLDER = Path(__file__).with_name("calibrations")
LAST_DECADE = 6
MEDIAN_GENUINE_SCORE = 95.0
LEVELS = 5


class ImpostorPoint(msgspec.Struct, frozen=True):
    """The cosine that a share `fmr` of pairs of different people reaches.

    Attributes:
        extrapolated: beyond what the measured pairs can show.
    """

    fmr: float
    cosine: float
    extrapolated: bool


class Calibration(msgspec.Struct, frozen=True, dict=True):
    """A recogniser's measured distributions, and the score made of them.

    Up to 60 the score is ten times the decades of false match rate, linear in cosine between
    decades. From there it rises to 100 at cosine 1, so that the median genuine pair scores 95.
    Source: the design; the points are those that it gives for this recogniser.

    Attributes:
        impostor: one point a decade, FMR 1e-1 first, 1e-6 last.
        genuine_median: cosine of the median pair of one person's photos.
    """

    format: int
    recogniser_sha256: str
    source: str
    impostor: tuple[ImpostorPoint, ...]
    genuine_median: float

    def __post_init__(self) -> None:
        decades = [-math.log10(point.fmr) for point in self.impostor]
        if not np.allclose(decades, np.arange(1, LAST_DECADE + 1)):
            raise ValueError(f"a calibration has a point for each FMR 1e-1 to 1e-{LAST_DECADE}")
        cosines = [point.cosine for point in self.impostor]
        if not np.all(np.diff([*cosines, self.genuine_median, 1.0]) > 0):
            raise ValueError("a calibration's cosines rise")

    @cached_property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and scores of the linear part; below FMR 1e-1 its first slope goes on to 0."""
        cosines = [point.cosine for point in self.impostor]
        first = 2 * cosines[0] - cosines[1]
        return np.array([first, *cosines]), np.arange(LAST_DECADE + 1) * 10.0

    @cached_property
    def _scale(self) -> float:
        """The s of the upper part, found by bisection: a larger s lowers the median's score."""
        low, high = 1e-3, 1e3
        while high - low > 1e-9 * high:
            middle = math.sqrt(low * high)
            if self._upper(self.genuine_median, middle) > MEDIAN_GENUINE_SCORE:
                low = middle
            else:
                high = middle
        return low

    def _upper(self, cosine: float, scale: float) -> float:
        start = self.impostor[-1].cosine
        share = math.expm1(-(cosine - start) / scale) / math.expm1(-(1 - start) / scale)
        return 60.0 + 40.0 * share

    def score(self, cosine: Cosine) -> Score:
        """The score, 0 to 100, of a cosine; never falls as the cosine rises."""
        if cosine >= self.impostor[-1].cosine:
            return Score(min(100.0, self._upper(cosine, self._scale)))
        cosines, scores = self._knots
        return Score(float(np.interp(cosine, cosines, scores)))

    def cosine(self, score: Score) -> Cosine:
        """The least cosine of a score, the inverse of `score`; of 0 it is -1."""
        if score <= 0:
            return Cosine(-1.0)
        if score <= LAST_DECADE * 10:
            cosines, scores = self._knots
            return Cosine(float(np.interp(score, scores, cosines)))
        start, scale = self.impostor[-1].cosine, self._scale
        share = (min(score, 100.0) - 60.0) / 40.0
        return Cosine(start - scale * math.log1p(share * math.expm1(-(1 - start) / scale)))


def match_level(score: Score) -> int:
    """0 to 5; level n is score >= 10 (n + 1), so that level 3 is FMR 1e-4."""
    return max(0, min(LEVELS, math.floor(score / 10) - 1))


def load_calibration(recogniser_sha256: str, folder: Path = FOLDER) -> Calibration:
    """The calibration that belongs to a recogniser's file.

    Raises:
        SettingError: there is none, so no score would mean anything.
    """
    for path in sorted(folder.glob("*.json")):
        calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
        if calibration.recogniser_sha256 == recogniser_sha256:
            return calibration
    raise SettingError(
        f"no calibration in {folder} for the recogniser with SHA-256 {recogniser_sha256}"
    )
