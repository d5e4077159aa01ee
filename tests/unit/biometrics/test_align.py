"""The alignment puts five points where InsightFace's own would."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from oneton.biometrics.align import CHIP_SIDE, TEMPLATE, align, similarity


@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.05, 20),
    x=st.floats(-2000, 2000),
    y=st.floats(-2000, 2000),
)
def test_similarity_undoes_any_turn_scale_and_shift(
    angle: float, scale: float, x: float, y: float
) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (TEMPLATE @ turn.T + (x, y)).astype(np.float32)
    matrix = similarity(moved)
    back = np.c_[moved, np.ones(5)] @ matrix.T
    np.testing.assert_allclose(back, TEMPLATE, atol=0.05)


def test_similarity_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(7)
    points = (TEMPLATE * 2 + rng.normal(0, 5, TEMPLATE.shape)).astype(np.float32)
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points.astype(np.float64)]
    a, b, c, d = np.linalg.lstsq(np.reshape(rows, (10, 4)), TEMPLATE.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(similarity(points), [[a, -b, c], [b, a, d]], atol=1e-6)


def test_align_copies_a_face_that_already_fits() -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (CHIP_SIDE, CHIP_SIDE, 3), dtype=np.uint8)
    chip = align(pixels, TEMPLATE.astype(np.float32))
    assert np.abs(chip.astype(int) - pixels).max() <= 1


def test_align_averages_a_large_face_instead_of_skipping_pixels() -> None:
    checks = np.indices((1120, 1120)).sum(axis=0) % 2 * 255
    pixels = np.repeat(checks[:, :, np.newaxis].astype(np.uint8), 3, axis=2)
    chip = align(pixels, (TEMPLATE * 10 + 4.5).astype(np.float32))
    assert np.abs(chip[1:-1, 1:-1].astype(int) - 127).max() <= 2


def test_align_keeps_a_large_face_in_its_place() -> None:
    spot = np.zeros((900, 900, 3), dtype=np.uint8)
    marks = (TEMPLATE * 6.5 + (120, 90)).astype(np.float32)
    x, y = marks[2]
    spot[round(y) - 13 : round(y) + 14, round(x) - 13 : round(x) + 14] = 255
    chip = align(spot, marks)[:, :, 0].astype(float)
    rows, columns = np.indices(chip.shape)
    centre = (columns * chip).sum() / chip.sum(), (rows * chip).sum() / chip.sum()
    np.testing.assert_allclose(centre, TEMPLATE[2], atol=0.15)


def test_align_is_black_beyond_the_picture() -> None:
    pixels = np.full((50, 50, 3), 200, dtype=np.uint8)
    chip = align(pixels, (TEMPLATE - 60).astype(np.float32))
    assert chip[0, 0].max() == 0
