"""Which face counts, which way is up, and how often a picture is looked at."""

from __future__ import annotations

import numpy as np
import pytest

from oneton.biometrics.align import TEMPLATE
from oneton.biometrics.detect import Detection, looks, ranked, turn


def _face(x: float, y: float, side: float, confidence: float = 0.8) -> Detection:
    landmarks = (TEMPLATE / 112 * side + (x, y)).astype(np.float32)
    return Detection((x, y, x + side, y + side), landmarks, confidence)


def test_ranked_puts_the_largest_first() -> None:
    small, large = _face(100, 100, 50), _face(0, 0, 90)
    assert ranked([small, large], 250, 250) == [large, small]


def test_ranked_prefers_the_centre_between_faces_of_one_size() -> None:
    edge, middle, small = _face(0, 0, 100), _face(80, 80, 95), _face(10, 180, 40)
    assert ranked([edge, small, middle], 250, 250) == [middle, edge, small]


def test_ranked_puts_a_doubtful_huge_face_last() -> None:
    real, doubtful = _face(50, 50, 60, 0.85), _face(0, 0, 240, 0.55)
    assert ranked([doubtful, real], 250, 250) == [real, doubtful]


def test_ranked_keeps_a_single_doubtful_face() -> None:
    only = _face(0, 0, 50, 0.5)
    assert ranked([only], 250, 250) == [only]


@pytest.mark.parametrize(("degrees", "upright"), [(0, True), (30, True), (90, False), (180, False)])
def test_is_upright_tells_by_the_landmarks(degrees: float, upright: bool) -> None:
    angle = np.radians(degrees)
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = ((TEMPLATE - 56) @ spin.T + 56).astype(np.float32)
    assert Detection((0, 0, 112, 112), landmarks, 0.8).is_upright is upright


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((250, 250), [(256,), (640,)]),
        ((640, 480), [(256, 640)]),
        ((1000, 1200), [(256, 640), (1280,)]),
        ((2000, 1500), [(256, 640), (1280,), (1920,)]),
    ],
)
def test_looks_go_on_to_what_the_picture_has(
    size: tuple[int, int], sides: list[tuple[int, ...]]
) -> None:
    assert list(looks(*size)) == sides


def test_turn_is_clockwise() -> None:
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0, 0] = 9
    assert turn(pixels, 90)[0, 1, 0] == 9
    assert turn(pixels, 180)[1, 2, 0] == 9
    assert turn(pixels, 270)[2, 0, 0] == 9
    assert turn(pixels, 0) is pixels
