"""What `scripts/bench index` found, as rows of docs/bench/index.csv; and the engines' names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """An engine as it is named to a reader.

    Attributes:
        made_by: its class, as "module:class" among the scripts.
        effort: what its `efforts` set, in its own words.
        colour: of Okabe and Ito's palette, which colour-blind readers tell apart; grey in place
            of its yellow, which white paper swallows.
        dash: of its line, where two engines share a colour.
    """

    title: str
    made_by: str
    colour: str
    marker: str
    effort: str = ""
    dash: str = "-"


OURS = "oneton"
FLAT, FLAT_ONE_THREAD = "faiss-flat", "faiss-flat-1t"
_ENGINES = "_bench_index_engines"
KINDS = {
    OURS: Kind("oneton", "_bench_index_oneton:Oneton", "#D55E00", "*"),
    FLAT: Kind("FAISS FlatIP", f"{_ENGINES}:FaissFlat", "#000000", "o"),
    FLAT_ONE_THREAD: Kind(
        "FAISS FlatIP, one thread", f"{_ENGINES}:FaissFlatOneThread", "#000000", "o", dash=":"
    ),
    "faiss-sq8": Kind("FAISS SQ8", f"{_ENGINES}:FaissSQ8", "#E69F00", "s"),
    "faiss-rabitq": Kind("FAISS RaBitQ 1 bit", f"{_ENGINES}:FaissRaBitQ", "#7F7F7F", "P"),
    "faiss-hnsw": Kind("FAISS HNSW", f"{_ENGINES}:FaissHNSW", "#56B4E9", "^", "efSearch"),
    "hnswlib": Kind("hnswlib", f"{_ENGINES}:Hnswlib", "#0072B2", "v", "ef"),
    "usearch": Kind("usearch", f"{_ENGINES}:Usearch", "#009E73", "D", "expansion"),
    "pgvector": Kind(
        "pgvector HNSW", "_bench_index_pgvector:Pgvector", "#CC79A7", "X", "ef_search"
    ),
}
"""In the order in which they are measured and shown."""


class Row(msgspec.Struct, frozen=True):
    """An engine at one size and effort; None was not measured.

    Attributes:
        effort: None where there is none to set.
        shown: the effort of the table: the least that finds 99 % of the mates, else the best.
        resident_mb: growth of anonymous memory; with `is_index_size`, the index in its server.
        mapped_mb: of the engine's own files, mapped and in memory.
        guarded: while faces are inserted, a lock keeps searches out.
        inserts_per_s: one face a call while another thread searches; of the shown effort only.
        search_ms_inserting: p50 of those searches.
        search_ms_paced: the same while 100 faces a second are inserted.
        mates: found, of `mates_of` that the full product finds.
        cosine_error: what 99 % of the listed cosines are off by at most.
        note: why something is missing.
    """

    engine: str
    size: int
    effort: int | None
    shown: bool
    build_s: float | None
    resident_mb: float | None
    mapped_mb: float | None
    is_index_size: bool
    p50_ms: float | None
    p95_ms: float | None
    batch_per_s: float | None
    inserts_per_s: float | None
    search_ms_inserting: float | None
    search_ms_paced: float | None
    guarded: bool
    mates: int | None
    cosine_error: float | None
    mates_of: int | None
    note: str
    version: str
    date: str
    machine: str
    command: str

    @property
    def found(self) -> float | None:
        """Share of mates, 0 to 1."""
        return self.mates / self.mates_of if self.mates is not None and self.mates_of else None


class Point(msgspec.Struct, frozen=True):
    """What one effort gives."""

    effort: int | None
    p50_ms: float
    p95_ms: float
    batch_per_s: float
    mates: int
    cosine_error: float


class Measured(msgspec.Struct):
    """What the process of one engine prints, filled as it goes; the fields are as in `Row`."""

    version: str = ""
    build_s: float | None = None
    resident_mb: float | None = None
    mapped_mb: float | None = None
    is_index_size: bool = False
    points: list[Point] = msgspec.field(default_factory=list)
    shown: int | None = None
    inserts_per_s: float | None = None
    search_ms_inserting: float | None = None
    search_ms_paced: float | None = None
    guarded: bool = False
    mates_of: int | None = None
    note: str = ""

    def rows(self, engine: str, size: int, date: str, machine: str, command: str) -> list[Row]:
        """One for each effort; one without figures when there is none."""
        common: dict[str, Any] = {
            "engine": engine,
            "size": size,
            "date": date,
            "machine": machine,
            "command": command,
            **{name: getattr(self, name) for name in _COMMON},
        }
        if not self.points:
            nothing: dict[str, Any] = dict.fromkeys(["effort", *_OF_POINT, *_OF_SHOWN])
            return [Row(**common, **nothing, shown=True)]
        made = []
        for point in self.points:
            shown = point.effort == self.shown
            figures: dict[str, Any] = {
                name: getattr(point, name) for name in ["effort", *_OF_POINT]
            }
            inserted: dict[str, Any] = {
                name: getattr(self, name) if shown else None for name in _OF_SHOWN
            }
            made.append(Row(**common, **figures, **inserted, shown=shown))
        return made


_COMMON = (
    *("version", "build_s", "resident_mb", "mapped_mb", "is_index_size"),
    *("guarded", "mates_of", "note"),
)
_OF_POINT = ("p50_ms", "p95_ms", "batch_per_s", "mates", "cosine_error")
_OF_SHOWN = ("inserts_per_s", "search_ms_inserting", "search_ms_paced")


def start_csv(path: Path) -> None:
    """Write the head, over whatever was there."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(Row.__struct_fields__)


def append_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write at the end, so that a run that is cut off keeps what it measured."""
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:
            writer.writerow(_cell(value) for value in msgspec.structs.astuple(row))


def read_csv(path: Path) -> list[Row]:
    """The rows of a file that this module wrote."""
    with path.open(newline="") as file:
        return [
            msgspec.convert(
                # Only a note is text that may be empty.
                {name: text or None if name != "note" else text for name, text in line.items()},
                Row,
                strict=False,
            )
            for line in csv.DictReader(file)
        ]


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value
