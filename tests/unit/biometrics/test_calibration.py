"""The score: anchored at false match rates, rising to 100."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneton.biometrics.calibration import (
    FILE,
    FOLDER,
    Calibration,
    load_calibration,
    match_level,
)
from oneton.domain.errors import SettingError
from oneton.domain.model import Cosine, Score

BUFFALO_SC = msgspec.json.decode((FOLDER / "buffalo_sc.json").read_bytes(), type=Calibration)

cosines = st.floats(-1, 1)


@pytest.mark.parametrize(
    ("cosine", "score"), [(0.091, 10), (0.165, 20), (0.226, 30), (0.281, 40), (0.332, 50), (1, 100)]
)
def test_score_is_ten_times_the_decades_at_the_designs_points(cosine: float, score: float) -> None:
    # The design gives three digits; the calibration is what scripts/calibrate measured.
    assert BUFFALO_SC.score(Cosine(cosine)) == pytest.approx(score, abs=1.1)


def test_score_is_ten_times_the_decades_at_the_calibrations_own_points() -> None:
    scores = [BUFFALO_SC.score(Cosine(rate.cosine)) for rate in BUFFALO_SC.impostor[:6]]
    assert scores == pytest.approx([10, 20, 30, 40, 50, 60])


@given(st.floats(-13, -0.1))
def test_fmr_is_the_inverse_of_cosine_at(decades: float) -> None:
    fmr = 10**decades
    assert BUFFALO_SC.fmr(BUFFALO_SC.cosine_at(fmr)) == pytest.approx(fmr, rel=0.02)


@given(st.floats(-15, 0), st.floats(-15, 0))
def test_a_lower_fmr_takes_a_higher_cosine(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert BUFFALO_SC.cosine_at(10**low) >= BUFFALO_SC.cosine_at(10**high)


def test_fnmr_rises_from_0_to_1() -> None:
    shares = [BUFFALO_SC.fnmr(Cosine(each)) for each in (-1, 0.28, 0.612, 1)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert shares[2] == pytest.approx(0.5, abs=0.01)


def test_the_shipped_calibration_says_what_it_was_made_of() -> None:
    assert BUFFALO_SC.people > 2000
    assert BUFFALO_SC.measured_fmr == 1e-5
    assert [rate.extrapolated for rate in BUFFALO_SC.impostor] == [False] * 5 + [True] * 4


def test_a_calibration_beside_the_pack_goes_before_a_shipped_one(tmp_path: Path) -> None:
    own = msgspec.structs.replace(BUFFALO_SC, source="ours")
    (tmp_path / FILE).write_bytes(msgspec.json.encode(own))
    digest = BUFFALO_SC.recogniser_sha256
    assert load_calibration(digest, tmp_path).source == "ours"
    (tmp_path / FILE).write_bytes(b"{}")
    with pytest.raises(SettingError, match=FILE):
        load_calibration(digest, tmp_path)


def test_score_of_the_median_genuine_pair_is_95() -> None:
    assert BUFFALO_SC.score(Cosine(BUFFALO_SC.genuine_median)) == pytest.approx(95, abs=1e-6)


@given(cosines, cosines)
def test_score_never_falls_and_stays_within_0_and_100(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= BUFFALO_SC.score(Cosine(low)) <= BUFFALO_SC.score(Cosine(high)) <= 100


@given(st.floats(0.01, 100))
def test_cosine_is_the_inverse_of_score(score: float) -> None:
    assert BUFFALO_SC.score(BUFFALO_SC.cosine(Score(score))) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize(
    ("score", "level"),
    [(0, 0), (19.99, 0), (20, 1), (39.99, 2), (40, 3), (50, 4), (60, 5), (100, 5)],
)
def test_match_level_n_is_a_score_of_ten_n_plus_ten(score: float, level: int) -> None:
    assert match_level(Score(score)) == level


def test_the_score_of_an_unknown_recogniser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no calibration"):
        load_calibration("0" * 64, tmp_path)


def test_a_calibration_whose_cosines_fall_is_refused() -> None:
    broken = msgspec.to_builtins(BUFFALO_SC)
    broken["impostor"][2]["cosine"] = 0.01
    with pytest.raises(msgspec.ValidationError, match="rise"):
        msgspec.convert(broken, Calibration)
