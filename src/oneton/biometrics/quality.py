"""How usable a face is, and the floor that a gallery may set for enrolling."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import LowQualityError
from oneton.domain.model import Quality, QualityFloor

_CRUSHED = 16
_BLOWN_OUT = 239
# The chip's middle: brow to chin without background. Source: align.TEMPLATE with its margins.
_FACE = (slice(24, 108), slice(20, 92))


def measure(chip: NDArray[np.uint8], size_px: float) -> Quality:
    """Measure an aligned face.

    Args:
        chip: (112, 112, 3) uint8, blue-green-red.
        size_px: shorter side of its box in pixels of the upright original.
    """
    luma = cv2.cvtColor(chip, cv2.COLOR_BGR2GRAY)[_FACE]
    edges = cv2.Laplacian(np.ascontiguousarray(luma), cv2.CV_32F)
    usable = float(np.count_nonzero((luma > _CRUSHED) & (luma < _BLOWN_OUT)) / luma.size)
    return Quality(
        size_px=float(size_px),
        sharpness=float(edges.var()),
        exposure=usable,
        luminance=float(luma.mean() / 255 * 100),
    )


def check(quality: Quality, floor: QualityFloor) -> None:
    """Raise LowQualityError for the first measure below the floor."""
    for name in ("size_px", "sharpness", "exposure"):
        value, least = getattr(quality, name), getattr(floor, name)
        if value < least:
            raise LowQualityError(name, value, least)
