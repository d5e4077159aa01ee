"""The report of a calibration is whole, and says what it was made of."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from oneton.biometrics.calibrate import check_by_halves, make_calibration
from oneton.biometrics.rates import measure
from oneton.cli.calibration_page import Calibrated, Labelled, make_report


def test_report_shows_rates_curves_and_likely_label_errors(rng: np.random.Generator) -> None:
    centres = np.repeat(rng.normal(size=(500, 64)), 2, axis=0)
    rows = (centres + 0.35 * rng.normal(size=centres.shape)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    people = np.repeat(np.arange(500), 2)
    people[-1], people[-2] = 498, 499
    photos = tuple(Path(f"p{who}/<{number}>.jpg") for number, who in enumerate(people.tolist()))
    labelled = Labelled(rows, people, photos, ((Path("p1/none.jpg"), "no face found"),))
    measured = measure(rows, people, resamples=5)
    calibration = make_calibration(
        measured, "a" * 64, source="drawn & labelled", made_on=date(2026, 1, 2)
    )
    held = tuple(check_by_halves(rows, people))
    page = make_report("turned", Calibrated(calibration, measured, labelled, held))
    assert "drawn &amp; labelled" in page
    assert "p1/none.jpg" in page
    assert "&lt;999&gt;.jpg" in page
    assert "1e-09" in page
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    lines = []
    for chart in charts:
        # Attributes of numbers are not quoted, which is HTML and no XML.
        quoted = re.sub(r"(\w+)=([-\w.]+)(?=[ />])", r'\1="\2"', chart)
        lines += ET.fromstring(quoted).findall("polyline")
    assert len(lines) == 4
    for line in lines:
        points = [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
        assert len(points) > 3
        assert all(0 <= x <= 640 and 0 <= y <= 320 for x, y in points)
