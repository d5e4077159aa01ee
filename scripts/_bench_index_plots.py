"""The plots of `scripts/bench index`: latency against mates found, and against size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from _bench_index_rows import KINDS, OURS, Row
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

FOUND_TICKS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1)
# On an axis of decades of what is missed, all found has no place; one of 2,000 is 0.0005.
NONE_MISSED = 0.0003


def plot(rows: Sequence[Row], folder: Path) -> None:
    """Write both, the same bytes for the same rows."""
    style: dict[Any, Any] = {
        "svg.hashsalt": "oneton",
        "font.size": 10,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }
    measured = [row for row in rows if row.p50_ms]
    if not measured:
        return
    with mpl.rc_context(style):
        _save(_latency_mates(measured), folder / "index-latency-mates.svg")
        _save(_latency_size(measured), folder / "index-latency-size.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    # Matplotlib leaves blanks at line ends.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))


def _latency_mates(rows: Sequence[Row]) -> Figure:
    """A panel for each size at which there is something to compare."""
    sizes = [
        size
        for size in sorted({row.size for row in rows})
        if len({row.engine for row in rows if row.size == size}) > 1
    ] or sorted({row.size for row in rows})
    figure = Figure(figsize=(max(7.2, 4.2 * len(sizes) + 0.6), 5.2), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(sizes), sharey=True, squeeze=False))
    for panel, size in zip(panels, sizes, strict=True):
        for engine, points in _by_engine([row for row in rows if row.size == size]):
            found = [_decades(row.found or 0) for row in points]
            _line(panel, engine, [row.p50_ms or 0 for row in points], found)
        panel.set_title(f"{size:,} faces")
        panel.set_xlabel("p50 of one probe, ms (log)")
        _time_axis(panel, "x")
    panels[0].set_yticks([_decades(tick) for tick in FOUND_TICKS])
    panels[0].set_yticklabels([f"{tick:.4g} %" for tick in np.array(FOUND_TICKS) * 100])
    least = min(_decades(row.found or 0) for row in rows)
    panels[0].set_ylim(least - 0.15, _decades(1) + 0.25)
    panels[0].set_ylabel("mates found at the default threshold (log of the missed)")
    figure.suptitle("Latency against mates found: up and left is better")
    _legend(figure, rows)
    return figure


def _latency_size(rows: Sequence[Row]) -> Figure:
    """At the effort that the table shows."""
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    panel = figure.subplots()
    for engine, points in _by_engine([row for row in rows if row.shown]):
        _line(panel, engine, [row.size for row in points], [row.p50_ms or 0 for row in points])
    panel.set_xscale("log")
    sizes = sorted({row.size for row in rows})
    panel.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    panel.set_xticks([], minor=True)
    panel.set_xlabel("faces (log)")
    panel.set_ylabel("p50 of one probe, ms (log)")
    _time_axis(panel, "y")
    figure.suptitle("Latency against size: down is better")
    _legend(figure, rows)
    return figure


def _by_engine(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Ours last, so that it is drawn over the others."""
    order = [*(name for name in KINDS if name != OURS), OURS]
    ordered = sorted(rows, key=lambda row: (order.index(row.engine), row.size, row.effort or 0))
    return [(name, list(some)) for name, some in groupby(ordered, lambda row: row.engine)]


def _line(panel: Axes, engine: str, x: Sequence[float], y: Sequence[float]) -> None:
    kind, ours = KINDS[engine], engine == OURS
    panel.plot(
        x,
        y,
        color=kind.colour,
        marker=kind.marker,
        linestyle=kind.dash,
        linewidth=3 if ours else 1.5,
        markersize=16 if ours else 7,
        markerfacecolor="white" if kind.dash == ":" else kind.colour,
        markeredgecolor="black" if ours else kind.colour,
        label=kind.title,
    )


def _decades(found: float) -> float:
    return float(-np.log10(max(1 - found, NONE_MISSED)))


def _time_axis(panel: Axes, which: str) -> None:
    """Decades as plain numbers."""
    if which == "x":
        panel.set_xscale("log")
    else:
        panel.set_yscale("log")
    axis = panel.xaxis if which == "x" else panel.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(_minor))


def _minor(value: float, _: int) -> str:
    """Of the marks between decades only 2 and 5 are named, for the rest would overlap."""
    digit = round(value / 10 ** np.floor(np.log10(value)))
    return f"{value:g}" if digit in {2, 5} else ""


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    """One for all panels, in the table's order, each engine once."""
    known: dict[str, Artist] = {}
    for panel in figure.axes:
        handles, titles = panel.get_legend_handles_labels()
        known.update(zip(titles, handles, strict=True))
    titles = [kind.title for name, kind in KINDS.items() if name in {row.engine for row in rows}]
    figure.legend([known[title] for title in titles], titles, loc="outside lower center", ncols=3)
