"""Quality measures fall with blur and bad light, and the floor names what is too low."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from oneton.biometrics.quality import check, measure
from oneton.domain.errors import LowQualityError
from oneton.domain.model import Quality, QualityFloor

_NOISE = np.random.default_rng(5).integers(40, 200, (112, 112, 3), dtype=np.uint8)


def test_sharpness_falls_with_blur() -> None:
    blurred = cv2.GaussianBlur(_NOISE, (0, 0), 3).astype(np.uint8)
    assert measure(blurred, 80).sharpness < measure(_NOISE, 80).sharpness / 10


@pytest.mark.parametrize("level", [0, 255])
def test_exposure_is_nothing_for_black_and_white(level: int) -> None:
    assert measure(np.full((112, 112, 3), level, dtype=np.uint8), 80).exposure == 0


def test_exposure_is_whole_for_middle_tones() -> None:
    assert measure(_NOISE, 80).exposure == 1


@pytest.mark.parametrize("name", ["size_px", "sharpness", "exposure"])
def test_check_names_the_measure_below_the_floor(name: str) -> None:
    quality = Quality(size_px=50, sharpness=50, exposure=0.5)
    least = getattr(quality, name)
    check(quality, QualityFloor(**{name: least}))
    with pytest.raises(LowQualityError) as caught:
        check(quality, QualityFloor(**{name: least + 0.1}))
    assert caught.value.measure == name
