"""A model pack's calibration: cosine to score, and what a score means."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from oneton.biometrics.rates import LAST_DECADE, Rate
from oneton.biometrics.tail import Tail
from oneton.domain.errors import SettingError
from oneton.domain.model import Cosine, Score

FOLDER = Path(__file__).with_name("calibrations")
FILE = "calibration.json"
"""Beside a pack's networks."""
FORMAT = 2
SCORE_DECADES = 6
"""As far the score is ten times the decades of false match rate."""
MEDIAN_GENUINE_SCORE = 95.0
LEVELS = 5


class GenuinePoint(msgspec.Struct, frozen=True):
    """A share `fnmr` of pairs of one person's photos is below this cosine."""

    fnmr: float
    cosine: float


class Calibration(msgspec.Struct, frozen=True, dict=True):
    """A recogniser's measured distributions, and the score made of them.

    Up to 60 the score is ten times the decades of false match rate, linear in cosine between
    decades. From there it rises to 100 at cosine 1, so that the median genuine pair scores 95.
    Source: the design; the numbers are those of `scripts/calibrate`.

    Attributes:
        made_on: a date, as 2026-11-21.
        source: what the photos are.
        suspects: pairs of photos of two names, likely of one person, that were left out.
        impostor: one point a decade, FMR 1e-1 first, 1e-9 last.
        tail: from FMR 1e-3 on; what is extrapolated comes from it.
        genuine: rising.
        genuine_median: cosine of the median pair of one person's photos.
    """

    format: int
    recogniser_sha256: str
    made_on: str
    source: str
    people: int
    photos: int
    impostor_pairs: int
    genuine_pairs: int
    suspects: int
    impostor: tuple[Rate, ...]
    tail: Tail
    genuine: tuple[GenuinePoint, ...]
    genuine_median: float

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"a calibration of format {self.format}; this version reads {FORMAT}")
        decades = [-math.log10(rate.fmr) for rate in self.impostor]
        if not np.allclose(decades, np.arange(1, LAST_DECADE + 1)):
            raise ValueError(f"a calibration has a point for each FMR 1e-1 to 1e-{LAST_DECADE}")
        cosines = [rate.cosine for rate in self.impostor]
        scored = cosines[:SCORE_DECADES]
        if not np.all(np.diff(cosines) > 0) or not scored[-1] < self.genuine_median < 1:
            raise ValueError("a calibration's cosines rise, and its genuine pairs are above them")
        shares = [(point.fnmr, point.cosine) for point in self.genuine]
        if len(shares) < 2 or not np.all(np.diff(shares, axis=0) >= 0):
            raise ValueError("a calibration's genuine points rise")

    @cached_property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and scores of the linear part; below FMR 1e-1 its first slope goes on to 0."""
        cosines = [rate.cosine for rate in self.impostor[:SCORE_DECADES]]
        first = 2 * cosines[0] - cosines[1]
        return np.array([first, *cosines]), np.arange(SCORE_DECADES + 1) * 10.0

    @property
    def _upper_start(self) -> float:
        return self.impostor[SCORE_DECADES - 1].cosine

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
        start = self._upper_start
        share = math.expm1(-(cosine - start) / scale) / math.expm1(-(1 - start) / scale)
        return 60.0 + 40.0 * share

    def score(self, cosine: Cosine) -> Score:
        """The score, 0 to 100, of a cosine; never falls as the cosine rises."""
        if cosine >= self._upper_start:
            return Score(min(100.0, self._upper(cosine, self._scale)))
        cosines, scores = self._knots
        return Score(float(np.interp(cosine, cosines, scores)))

    def cosine(self, score: Score) -> Cosine:
        """The least cosine of a score, the inverse of `score`; of 0 it is -1."""
        if score <= 0:
            return Cosine(-1.0)
        if score <= SCORE_DECADES * 10:
            cosines, scores = self._knots
            return Cosine(float(np.interp(score, scores, cosines)))
        start, scale = self._upper_start, self._scale
        share = (min(score, 100.0) - 60.0) / 40.0
        return Cosine(start - scale * math.log1p(share * math.expm1(-(1 - start) / scale)))

    def cosine_at(self, fmr: float) -> Cosine:
        """The least cosine whose false match rate is at most `fmr`; 1 where none is lower."""
        if fmr >= 1:
            return Cosine(-1.0)
        decades = -math.log10(fmr)
        cosines = np.array([rate.cosine for rate in self.impostor])
        if decades > LAST_DECADE:
            return Cosine(min(1.0, max(float(cosines[-1]), self.tail.cosine_at(fmr))))
        if decades < 1:
            return self.cosine(Score(10 * decades))
        return Cosine(float(np.interp(decades, np.arange(1, LAST_DECADE + 1), cosines)))

    def fmr(self, cosine: Cosine) -> float:
        """The share of pairs of different people that reaches a cosine."""
        cosines = [rate.cosine for rate in self.impostor]
        if cosine > cosines[-1]:
            return self.tail.fmr_at(cosine)
        if cosine < cosines[0]:
            return float(10 ** (-self.score(cosine) / 10))
        return float(10 ** -np.interp(cosine, cosines, np.arange(1, LAST_DECADE + 1)))

    def fnmr(self, cosine: Cosine) -> float:
        """The share of pairs of one person's photos that is below a cosine."""
        shares = [point.fnmr for point in self.genuine]
        return float(np.interp(cosine, [point.cosine for point in self.genuine], shares))

    @property
    def measured_fmr(self) -> float:
        """The deepest false match rate that was measured and not extrapolated."""
        return min(rate.fmr for rate in self.impostor if not rate.extrapolated)


def match_level(score: Score) -> int:
    """0 to 5; level n is score >= 10 (n + 1), so that level 3 is FMR 1e-4."""
    return max(0, min(LEVELS, math.floor(score / 10) - 1))


def read_calibration(path: Path) -> Calibration:
    """Read a calibration's file.

    Raises:
        SettingError: it cannot be read, or is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingError(f"{path} is no calibration: {error}") from error


def load_calibration(recogniser_sha256: str, *folders: Path) -> Calibration:
    """The calibration that belongs to a recogniser's file; the first folder's goes first.

    Args:
        folders: where to look before those that oneton ships.

    Raises:
        SettingError: there is none, so no score would mean anything.
    """
    searched = (*folders, FOLDER)
    for folder in searched:
        for path in sorted(folder.glob("*.json" if folder == FOLDER else FILE)):
            calibration = read_calibration(path)
            if calibration.recogniser_sha256 == recogniser_sha256:
                return calibration
    raise SettingError(
        f"no calibration in {', '.join(str(each) for each in searched)} for the recogniser with "
        f"SHA-256 {recogniser_sha256}: scripts/calibrate makes one"
    )
