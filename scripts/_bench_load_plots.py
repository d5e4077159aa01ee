"""The plot of `scripts/bench load`: latency over time, and its distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

COLOURS = {"search": "#0072b2", "insert": "#d55e00", "match": "#009e73", "erase": "#cc79a7"}
POINTS = 120
"""Of a line over time: so many stretches of equal length."""

Series = Mapping[str, Sequence[tuple[float, float]]]
"""By operation: due time in s and latency in ms, in order of time."""


def plot(series: Series, title: str, path: Path) -> None:
    """Write an SVG, the same bytes for the same series."""
    style: dict[Any, Any] = {
        "svg.hashsalt": "oneton",
        "font.size": 10,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        over_time, shares = figure.subplots(1, 2, width_ratios=(2, 1))
        for name, points in series.items():
            if points:
                _over_time(over_time, name, np.array(points))
                _shares(shares, name, np.array(points)[:, 1])
        over_time.set_xlabel("s since the beginning (median, and the 95 % of each stretch)")
        over_time.set_ylabel("ms since the call was due (log)")
        over_time.set_yscale("log")
        shares.set_xlabel("ms since the call was due (log)")
        shares.set_ylabel("share of calls")
        shares.set_xscale("log")
        for axis in (over_time.yaxis, shares.xaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(_minor))
        shares.legend(loc="lower right")
        figure.suptitle(title)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")
    # Matplotlib leaves blanks at line ends.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))


def _over_time(panel: Axes, name: str, points: np.ndarray[Any, Any]) -> None:
    edges = np.linspace(0, points[-1, 0] + 1e-9, min(POINTS, max(2, len(points) // 5)) + 1)
    which = np.digitize(points[:, 0], edges)
    rows = [
        (edges[number - 1 : number + 1].mean(), *np.percentile(some, [50, 95]))
        for number in range(1, len(edges))
        if len(some := points[which == number, 1])
    ]
    when, middle, high = np.array(rows).T
    colour = COLOURS.get(name)
    panel.plot(when, middle, color=colour, linewidth=1.6, label=name)
    panel.plot(when, high, color=colour, linewidth=0.8, linestyle=":")


def _shares(panel: Axes, name: str, took: np.ndarray[Any, Any]) -> None:
    # A thousand steps show the same as one for each call, in a file that is read.
    share = np.linspace(0, 1, min(1000, len(took)))
    panel.plot(np.quantile(took, share), share, color=COLOURS.get(name), label=name)


def _minor(value: float, _: int) -> str:
    """Of the marks between decades only 2 and 5 are named, for the rest would overlap."""
    digit = round(value / 10 ** np.floor(np.log10(value)))
    return f"{value:g}" if digit in {2, 5} else ""
