"""Rates are those of the pairs, the tail's those of the law behind them."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray

from oneton.biometrics.calibrate import check_by_halves, make_calibration
from oneton.biometrics.rates import false_match_rate, measure
from oneton.biometrics.tail import Tail, fit_tail

DIMENSION = 64


def people(
    rng: np.random.Generator, count: int, photos: int, spread: float = 0.6
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Photos about a centre for each person."""
    centres = np.repeat(rng.normal(size=(count, DIMENSION)), photos, axis=0)
    rows = centres + spread * rng.normal(size=centres.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), np.repeat(np.arange(count), photos)


def test_rates_are_those_of_all_pairs(rng: np.random.Generator) -> None:
    embeddings, whose = people(rng, 400, 3)
    measured = measure(embeddings, whose, resamples=20)
    cosines = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    above = np.triu(np.ones_like(cosines, dtype=np.bool_), 1)
    same = whose[:, None] == whose
    impostors = np.sort(cosines[above & ~same])[::-1]
    assert measured.impostor_pairs == len(impostors) == int(measured.impostor_bins.sum())
    assert measured.genuine == pytest.approx(np.sort(cosines[above & same]), abs=1e-5)
    for rate in measured.rates:
        if rate.observed is not None:
            assert rate.observed == pytest.approx(
                impostors[int(rate.fmr * len(impostors)) - 1], abs=2e-3
            )
            assert rate.cosine == pytest.approx(rate.observed, abs=0.01)
        assert rate.extrapolated == (rate.fmr * len(impostors) < 10)
        if rate.low is not None and rate.high is not None:
            assert rate.low <= rate.cosine + 0.005
            assert rate.cosine - 0.005 <= rate.high
    assert all(rate.low is not None for rate in measured.rates[1:])


def test_a_few_wrong_names_are_found_and_change_little(rng: np.random.Generator) -> None:
    embeddings, whose = people(rng, 400, 3, spread=0.35)
    clean = measure(embeddings, whose, resamples=0)
    assert clean.suspects == ()
    wrong = whose.copy()
    # A photo under another's name, and one person under two names.
    wrong[0] = 7
    wrong[whose == 399] = np.array([398, 399, 399])
    broken = measure(embeddings, wrong, resamples=0)
    named = {tuple(sorted(wrong[list(each.rows)].tolist())) for each in broken.suspects}
    assert named == {(0, 7), (398, 399)}
    for before, after in zip(clean.rates, broken.rates, strict=True):
        assert after.cosine == pytest.approx(before.cosine, abs=0.004)
    assert 0 in broken.unlike


def test_the_tail_is_the_law_that_it_was_drawn_from(rng: np.random.Generator) -> None:
    law = Tail(1e-3, 0.2, 0.025, -0.08)
    shares = rng.random(60_000)
    drawn = np.sort([law.cosine_at(law.fmr * share) for share in shares])[::-1]
    found = fit_tail(drawn, np.ones(len(drawn)), law.cosine, law.fmr)
    assert found.scale == pytest.approx(law.scale, rel=0.03)
    assert found.shape == pytest.approx(law.shape, abs=0.02)
    for fmr in (1e-4, 1e-6, 1e-9):
        assert law.fmr_at(law.cosine_at(fmr)) == pytest.approx(fmr)
        assert found.cosine_at(fmr) == pytest.approx(law.cosine_at(fmr), abs=0.01)


def test_a_tail_has_an_end_when_its_shape_is_negative() -> None:
    assert Tail(1e-3, 0.2, 0.01, -0.1).fmr_at(0.9) == 0
    assert Tail(1e-3, 0.2, 0.01, 0.0).fmr_at(0.21) == pytest.approx(1e-3 / np.e)


def test_a_tail_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="ten"):
        fit_tail(np.array([0.5]), np.ones(1), 0.4, 1e-3)


def test_too_few_people_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="450 people"):
        measure(*people(rng, 100, 2))


def test_a_calibration_by_one_half_holds_on_the_other(rng: np.random.Generator) -> None:
    embeddings, whose = people(rng, 1000, 2)
    held = [each for both in check_by_halves(embeddings, whose) for each in both]
    assert len(held) == 20
    ratios = np.array([each.ratios for each in held])
    assert ratios[:, :3].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.1)
    assert np.isnan(ratios[:, 5]).all()


def test_a_calibration_says_what_was_measured(rng: np.random.Generator) -> None:
    embeddings, whose = people(rng, 500, 2, spread=0.35)
    measured = measure(embeddings, whose, resamples=0)
    made = make_calibration(measured, "0" * 64, source="drawn", made_on=date(2026, 1, 2))
    assert (made.people, made.photos, made.made_on) == (500, 1000, "2026-01-02")
    assert made.genuine_median == pytest.approx(float(np.median(measured.genuine)), abs=1e-4)
    shares, pairs = false_match_rate(embeddings, whose, np.array([made.cosine_at(1e-2)]))
    assert pairs == made.impostor_pairs
    assert shares[0] == pytest.approx(1e-2, rel=0.05)
