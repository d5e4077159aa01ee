"""The threshold of a gallery, and what is said of it."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from oneton.biometrics.calibration import FOLDER, Calibration
from oneton.domain.model import (
    DEFAULT_GALLERY,
    Gallery,
    GalleryKind,
    ModelPack,
    QualityFloor,
    Score,
    TenantId,
)
from oneton.records.galleries import FaceCounts
from oneton.verbs.judge import threshold_of
from oneton.verbs.show_gallery import make_view

CALIBRATION = msgspec.json.decode((FOLDER / "buffalo_sc.json").read_bytes(), type=Calibration)
PACK = ModelPack("buffalo_sc", "0" * 64, 512)


def a_gallery(target_fpir: float | None = None) -> Gallery:
    return Gallery(
        TenantId(UUID(int=1)),
        DEFAULT_GALLERY,
        1,
        GalleryKind.ENROLLMENT,
        1,
        0,
        Score(50),
        QualityFloor(),
        target_fpir,
    )


def test_a_fixed_threshold_stays_whatever_the_size() -> None:
    for faces in (0, 1, 10**9):
        assert threshold_of(a_gallery(), faces, CALIBRATION) == Score(50)


@pytest.mark.parametrize(
    ("faces", "score"), [(0, 20), (1, 20), (10, 30), (100, 40), (1000, 50), (10_000, 60)]
)
def test_a_target_takes_ten_points_for_ten_times_the_faces(faces: int, score: float) -> None:
    assert threshold_of(a_gallery(0.01), faces, CALIBRATION) == pytest.approx(score)


def test_a_view_says_what_the_threshold_means() -> None:
    view = make_view(a_gallery(0.01), FaceCounts(1000, 3), PACK, None, CALIBRATION)
    assert (view.faces, view.erased, view.warnings) == (1000, 3, ())
    assert view.fpir == pytest.approx(0.01, rel=0.02)
    assert view.fmr == pytest.approx(1e-5, rel=0.02)
    assert 0 < view.fnmr < 0.05


def test_a_target_out_of_reach_is_said_with_what_it_loses() -> None:
    view = make_view(a_gallery(0.001), FaceCounts(1_000_000, 0), PACK, None, CALIBRATION)
    extrapolated, lost = view.warnings
    assert "1e-09" in extrapolated
    assert "1e-05" in extrapolated
    assert f"{view.fnmr:.1%}" in lost
    assert make_view(a_gallery(), FaceCounts(10**6, 0), PACK, None, CALIBRATION).warnings == ()


def test_a_fixed_threshold_says_how_many_strangers_match() -> None:
    view = make_view(a_gallery(), FaceCounts(5000, 0), PACK, None, CALIBRATION)
    assert view.fpir == pytest.approx(0.05, rel=0.02)
