"""The report of `oneton models calibrate`: thresholds, DET curve, histograms, suspects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.calibrate import Held
from oneton.biometrics.calibration import SCORE_DECADES, Calibration
from oneton.biometrics.rates import TAIL_FMR, Measured
from oneton.domain.model import Cosine, Score


class Labelled(msgspec.Struct, frozen=True):
    """Photos of known people.

    Attributes:
        embeddings: (N, D) float32 of unit L2 norm.
        people: (N,) whose each is; from 0 without gaps.
        photos: (N) paths.
        refused: photos without a usable face, and why.
    """

    embeddings: NDArray[np.float32]
    people: NDArray[np.int64]
    photos: tuple[Path, ...]
    refused: tuple[tuple[Path, str], ...]


class Calibrated(msgspec.Struct, frozen=True):
    """A calibration, and all that its report shows."""

    calibration: Calibration
    measured: Measured
    labelled: Labelled
    held: tuple[tuple[Held, Held], ...]


_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 320, 56, 40
_SCORES = (10, 20, 27, 30, 40, 50, 60, 70, 80, 90, 95)
_BARS = 100
_RIGHT = 24
_SHOWN = 100
_Place = Callable[[float, float], tuple[float, float]]


def make_report(pack: str, made: Calibrated) -> str:
    """One HTML file that needs nothing else."""
    calibration, measured = made.calibration, made.measured
    sections = [
        ("False match rates", _rates_table(calibration)),
        ("Scores", _scores_table(calibration)),
        ("Detection error trade-off", _det(calibration, measured)),
        ("Cosines", _histograms(measured)),
        ("On people it was not made of", _held_table(made.held)),
        ("Likely label errors", _suspects(made)),
        ("Photos without a usable face", _refused(made)),
    ]
    body = "".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in sections)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Calibration of {escape(pack)}"
        f"</title><meta name=viewport content='width=device-width'><style>{_STYLE}</style><main>"
        f"<h1>Calibration of {escape(pack)}</h1>{_facts(calibration)}{body}</main></html>\n"
    )


def _facts(calibration: Calibration) -> str:
    return (
        f"<p>{escape(calibration.source)}: {calibration.photos:,} photos of "
        f"{calibration.people:,} people, {calibration.impostor_pairs:,} pairs of different people, "
        f"{calibration.genuine_pairs:,} of one person. Made on {calibration.made_on} for the "
        f"recogniser <code>{calibration.recogniser_sha256}</code>.</p>"
    )


def _rates_table(calibration: Calibration) -> str:
    rows = []
    for rate in calibration.impostor:
        interval = (
            "" if rate.low is None or rate.high is None else f"{rate.low:.4f} to {rate.high:.4f}"
        )
        observed = "extrapolated" if rate.observed is None else f"{rate.observed:.4f}"
        fnmr = calibration.fnmr(Cosine(rate.cosine))
        rows.append((f"{rate.fmr:.0e}", f"{rate.cosine:.4f}", interval, observed, f"{fnmr:.2%}"))
    tail = calibration.tail
    note = (
        f"Below FMR {TAIL_FMR:g} the cosine is that of a {tail.method}: "
        f"from {tail.cosine:.4f}, scale {tail.scale:.4f}, shape {tail.shape:.3f}. Rates with fewer "
        "than ten pairs are extrapolated: relatives and twins, of whom such data has few, may do "
        "worse. Intervals of 95 % by resampling people."
    )
    head = ("FMR", "cosine", "95 % interval", "of single pairs", "FNMR there")
    return _table(head, rows) + f"<p>{note}</p>"


def _scores_table(calibration: Calibration) -> str:
    rows = []
    for score in _SCORES:
        cosine = calibration.cosine(Score(score))
        fmr = calibration.fmr(cosine)
        rows.append((str(score), f"{cosine:.4f}", f"{fmr:.1e}", f"{calibration.fnmr(cosine):.2%}"))
    return _table(("score", "cosine", "FMR", "FNMR"), rows)


def _held_table(held: Sequence[tuple[Held, Held]]) -> str:
    if not held:
        return "<p>Too few people to halve them.</p>"
    flat = [each for both in held for each in both]
    rows = [
        (str(each.halving + 1), f"{each.pairs:,}", *(_ratio(ratio) for ratio in each.ratios))
        for each in flat
    ]
    ratios = np.array([each.ratios for each in flat])
    rows.append(("mean", "", *(_ratio(float(each)) for each in ratios.mean(axis=0))))
    head = ("halving", "pairs", *(f"FMR 1e-{decade}" for decade in range(1, SCORE_DECADES + 1)))
    return (
        "<p>Calibrated on half of the people, measured on the other half, both ways: the measured "
        "rate over the stated one. At the deeper rates a half has few pairs, and chance alone "
        "moves the ratio.</p>" + _table(head, rows)
    )


def _ratio(ratio: float) -> str:
    return "" if math.isnan(ratio) else f"{ratio:.2f}"


def _suspects(made: Calibrated) -> str:
    suspects, unlike = made.measured.suspects, made.measured.unlike
    photos = [_name(photo) for photo in made.labelled.photos]
    rows = [
        (f"{each.cosine:.3f}", *(escape(photos[row]) for row in each.rows))
        for each in suspects[:_SHOWN]
    ]
    text = (
        "<p>Photos under two names, more alike than strangers are once in fifty such data sets. "
        "All pairs of the two names are left out of the impostor rates.</p>"
        + _table(("cosine", "photo", "photo"), rows)
        if rows
        else "<p>No photos under two names are as alike as one person's.</p>"
    )
    if unlike:
        names = ", ".join(escape(photos[row]) for row in unlike[:_SHOWN])
        text += f"<p>Like none of the others under their name, and kept: {names}.</p>"
    return text


def _refused(made: Calibrated) -> str:
    rows = [(escape(_name(photo)), escape(why)) for photo, why in made.labelled.refused[:_SHOWN]]
    return _table(("photo", "reason"), rows) if rows else "<p>None.</p>"


def _name(photo: Path) -> str:
    return f"{photo.parent.name}/{photo.name}"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{each}</th>" for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{each}</td>' for each in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _det(calibration: Calibration, measured: Measured) -> str:
    """FNMR over FMR, both as decades."""
    edges = np.linspace(-1, 1, len(measured.impostor_bins) + 1)[:-1]
    above = np.cumsum(measured.impostor_bins[::-1])[::-1] / measured.impostor_pairs
    seen = [
        (float(np.interp(decade, -np.log10(np.maximum(above, 1e-12)), edges)), 10.0**-decade)
        for decade in np.arange(0.3, 1, 0.05)
    ]
    deep = [
        (calibration.cosine_at(10.0**-decade), 10.0**-decade)
        for decade in np.arange(1, len(calibration.impostor) + 0.01, 0.05)
    ]
    points = [
        (-math.log10(fmr), -math.log10(max(_fnmr(measured.genuine, cosine), 1e-4)))
        for cosine, fmr in [*seen, *deep]
    ]
    deepest = -math.log10(calibration.measured_fmr)
    measured_part = [point for point in points if point[0] <= deepest + 0.01]
    rest = [point for point in points if point[0] >= deepest - 0.01]
    x_most = float(len(calibration.impostor))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / x_most,
            10 + (_HEIGHT - _BOTTOM - 10) * y / 4,
        )

    ticks = [_tick_x(place(x, 0)[0], f"1e-{x}" if x else "1") for x in range(int(x_most) + 1)]
    ticks += [_tick_y(place(0, y)[1], f"{10.0**-y:.4g}") for y in range(5)]
    lines = _line(measured_part, place, "") + _line(rest, place, " stroke-dasharray='5 4'")
    return _svg("FNMR over FMR; dashed where FMR is extrapolated", "".join(ticks) + lines)


def _fnmr(genuine: NDArray[np.float64], cosine: float) -> float:
    return float(np.searchsorted(genuine, cosine) / max(1, len(genuine)))


def _histograms(measured: Measured) -> str:
    bars = measured.impostor_bins.reshape(_BARS, -1).sum(axis=1)
    impostor = bars / bars.max()
    counts, _ = np.histogram(measured.genuine, bins=len(bars), range=(-1, 1))
    genuine = counts / max(1, counts.max())

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x + 1) / 2,
            10 + (_HEIGHT - _BOTTOM - 10) * (1 - y),
        )

    middles = np.linspace(-1, 1, 2 * len(bars) + 1)[1::2]
    ticks = [_tick_x(place(x, 0)[0], f"{x:g}") for x in (-1, -0.5, 0, 0.5, 1)]
    lines = _line(list(zip(middles, impostor, strict=True)), place, " class='impostor'")
    lines += _line(list(zip(middles, genuine, strict=True)), place, "")
    return _svg(
        "Cosines of pairs of different people (left) and of one person (right), each to its own "
        "greatest bar",
        "".join(ticks) + lines,
    )


def _line(points: Sequence[tuple[float, float]], place: _Place, how: str) -> str:
    path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
    return f"<polyline points='{path}'{how}/>"


def _tick_x(x: float, text: str) -> str:
    end = _HEIGHT - _BOTTOM
    return (
        f"<line x1={x:.1f} x2={x:.1f} y1=10 y2={end} /><text x={x:.1f} y={end + 18} "
        f"text-anchor=middle>{text}</text>"
    )


def _tick_y(y: float, text: str) -> str:
    return (
        f"<line x1={_LEFT} x2={_WIDTH - _RIGHT} y1={y:.1f} y2={y:.1f} /><text x={_LEFT - 6} "
        f"y={y + 4:.1f} text-anchor=end>{text}</text>"
    )


def _svg(title: str, content: str) -> str:
    return (
        f"<figure><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img aria-label='{title}'>{content}"
        f"</svg><figcaption>{title}</figcaption></figure>"
    )


_STYLE = """
:root { color-scheme: light dark; --line: #8885; --one: #2563c9; --other: #c2562d }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif }
main { margin: 0 auto; max-width: 900px; padding: 24px 16px 64px }
h1 { font-size: 24px; overflow-wrap: anywhere } h2 { font-size: 18px; margin: 32px 0 8px }
code { overflow-wrap: anywhere }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid var(--line); padding: 3px 14px 3px 0; text-align: left;
  font-variant-numeric: tabular-nums }
svg { width: 100%; max-width: 720px } svg text { font-size: 12px; fill: currentColor }
svg line { stroke: var(--line) } svg polyline { fill: none; stroke: var(--one); stroke-width: 2 }
svg .impostor { stroke: var(--other) }
figure { margin: 0 } figcaption { font-size: 13px; opacity: 0.8 }
"""
