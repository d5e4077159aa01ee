"""From estimates to the exact best: what is read again, and when that is enough."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.index.codec import Codec
from oneton.index.scan import WORTH_ROWS, ScanThreads
from oneton.index.segment import Segment, chunks, read_templates
from oneton.index.tail import Tail
from oneton.index.templates import exact_cosines, unit_rows

MARGIN = 3.5
"""Standard deviations of the estimates' error within which a face is read exactly."""
LEAST_DEPTH = 64
READ = 3600
READ_GROWTH = 0.4
"""So many k^0.4 estimates are asked for of all segments together. Within the coarse margin of the
best are about 1000 faces of a million drawn like LFW's, and of ten million, for the margin is so
many decades of false match rate; asking twice for one probe costs more than three times as many."""
DEEPER = 4
FIRST_READ = 16
PROBES_AT_ONCE = 64
SAME = 1 - 1e-5
"""From here on, templates are equal but for rounding: one is as good as another."""


class Part(msgspec.Struct, frozen=True, eq=False):
    """A segment and which of its faces are still there.

    Attributes:
        alive: (N,) bool; a removal is written in place.
        removed: how many are not.
    """

    segment: Segment
    alive: NDArray[np.bool_]
    removed: int

    @classmethod
    def whole(cls, segment: Segment) -> Part:
        """All of a segment."""
        return cls(segment, np.ones(len(segment), dtype=np.bool_), 0)

    def __len__(self) -> int:
        return len(self.segment) - self.removed

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return int(self.segment.size_bytes + self.alive.nbytes)

    @property
    def codec(self) -> Codec:
        """What its templates are encoded with."""
        return self.segment.codes.codec

    @property
    def coarse_margin(self) -> float:
        """How far a cosine may be above its coarse estimate."""
        return MARGIN * self.segment.codes.coarse.error

    @property
    def fine_margin(self) -> float:
        """How far a cosine may be above its fine estimate."""
        return MARGIN * self.segment.codes.fine.error

    def without(self, face_nos: NDArray[np.int64]) -> Part:
        """Without those of these faces that are here."""
        rows = self.segment.rows_of(face_nos)
        rows = rows[self.alive[rows]]
        if not len(rows):
            return self
        self.alive[rows] = False
        return Part(self.segment, self.alive, self.removed + len(np.unique(rows)))

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(len(rows), D) of unit L2 norm."""
        return unit_rows(self.segment.templates(rows))


class _Best:
    """The exact best k of one probe so far."""

    def __init__(self, cosines: NDArray[np.float32], face_nos: NDArray[np.int64], k: int) -> None:
        self.cosines = cosines
        self.face_nos = face_nos
        self.k = k

    @property
    def floor(self) -> float:
        """What a face has to reach to be among them; -2 while there are fewer than k."""
        return float(self.cosines[-1])

    def add(self, cosines: NDArray[np.float32], face_nos: NDArray[np.int64]) -> None:
        cosines = np.concatenate([self.cosines, np.clip(cosines, -1, 1)])
        order = np.argsort(-cosines, kind="stable")[: self.k]
        self.cosines = cosines[order]
        self.face_nos = np.concatenate([self.face_nos, face_nos])[order]


_Found = tuple[Part, NDArray[np.float32], NDArray[np.int64]]
"""A part, and the estimates and rows that its first stage put forward for one probe."""


def rank(
    parts: Sequence[Part],
    tail: Tail,
    probes: NDArray[np.float32],
    k: int,
    threads: ScanThreads,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The exact best k of each probe.

    A face that the first stage did not put forward has an estimate below the last that it did. It
    is among the best k only if its estimate is too low by more than the difference; while that is
    less than `MARGIN` standard deviations, the first stage is asked for more, in the end for all.

    Returns:
        cosines: (Q, k), never rising along a row; -2 past the end.
        face_nos: (Q, k); -1 past the end.

    Raises:
        SnapshotError: a template is not what was written.
    """
    parts = sorted(parts, key=lambda part: -len(part.segment))
    if len(probes) == 1:
        return _rank_one(parts, tail, probes, k, threads)
    pieces = [probes[at : at + PROBES_AT_ONCE] for at in range(0, len(probes), PROBES_AT_ONCE)]
    ranked = threads.map(lambda piece: _rank_some(parts, tail, piece, k), pieces)
    if not ranked:
        return tail.search(probes, k)
    return np.concatenate([each[0] for each in ranked]), np.concatenate(
        [each[1] for each in ranked]
    )


def _rank_one(
    parts: Sequence[Part],
    tail: Tail,
    probe: NDArray[np.float32],
    k: int,
    threads: ScanThreads,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One probe: the segments are scanned side by side when they are large."""

    def scan(each: tuple[Part, int]) -> _Found:
        part, depth = each
        return (part, *part.segment.codes.search(probe, depth)[0])

    asked = list(zip(parts, _depths(parts, k), strict=True))
    if sum(len(part.segment) for part in parts) >= WORTH_ROWS:
        scanned = threads.map(scan, asked)
    else:
        faiss.omp_set_num_threads(1)
        scanned = [scan(each) for each in asked]
    cosines, face_nos = tail.search(probe, k)
    best = _Best(cosines[0], face_nos[0], k)
    _finish(scanned, probe[0], best)
    return best.cosines[np.newaxis], best.face_nos[np.newaxis]


def _rank_some(
    parts: Sequence[Part], tail: Tail, probes: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Several probes on one thread, by FAISS's batched scan."""
    asked = zip(parts, _depths(parts, k), strict=True)
    scanned = [part.segment.codes.search(probes, depth) for part, depth in asked]
    cosines, face_nos = tail.search(probes, k)
    for each, probe in enumerate(probes):
        best = _Best(cosines[each], face_nos[each], k)
        found = [(part, *those[each]) for part, those in zip(parts, scanned, strict=True)]
        _finish(found, probe, best)
        cosines[each], face_nos[each] = best.cosines, best.face_nos
    return cosines, face_nos


def _depths(parts: Sequence[Part], k: int) -> list[int]:
    """How many estimates to ask each segment for at first."""
    faces = [len(part.segment) for part in parts]
    wanted = READ * k**READ_GROWTH / max(1, sum(faces))
    return [min(each, max(k, LEAST_DEPTH + int(wanted * each))) for each in faces]


def _finish(found: Sequence[_Found], probe: NDArray[np.float32], best: _Best) -> None:
    """Read exactly what may be among the best, and look deeper where that is not enough.

    The exact cosines of the first few say what the others have to reach; those that may by their
    coarse estimate are estimated again by the fine codes, and so on.
    """
    if not found:
        return
    possible = _read_first(found, probe, best)
    possible = [
        (part, estimates[near], rows[near])
        for part, estimates, rows in possible
        if (near := estimates + part.coarse_margin > best.floor).any()
    ]
    if sum(len(rows) for _, _, rows in possible) > FIRST_READ:
        tables = {codec: codec.tables(probe) for codec in {part.codec for part, _, _ in possible}}
        refined = [
            (part, part.segment.codes.refine(estimates, rows, tables[part.codec]), rows)
            for part, estimates, rows in possible
        ]
        possible = [
            (part, estimates[near], rows[near])
            for part, estimates, rows in _read_first(refined, probe, best)
            if (near := estimates + part.fine_margin > best.floor).any()
        ]
    _read([(part, rows) for part, _, rows in possible], probe, best)
    for part, estimates, rows in found:
        _deepen(part, estimates, rows, probe, best)


def _read_first(
    found: Sequence[_Found], probe: NDArray[np.float32], best: _Best
) -> Sequence[_Found]:
    """Read those of the highest estimates exactly; return the others."""
    every = np.concatenate([estimates for _, estimates, _ in found])
    first = FIRST_READ + 2 * best.k
    if len(every) <= first:
        _read([(part, rows) for part, _, rows in found], probe, best)
        return []
    sure = -np.partition(-every, first - 1)[first - 1]
    _read([(part, rows[estimates >= sure]) for part, estimates, rows in found], probe, best)
    return [
        (part, estimates[estimates < sure], rows[estimates < sure])
        for part, estimates, rows in found
    ]


def _deepen(
    part: Part,
    estimates: NDArray[np.float32],
    rows: NDArray[np.int64],
    probe: NDArray[np.float32],
    best: _Best,
) -> None:
    """Ask the first stage for more while a face below its last may be among the best."""
    codes, faces = part.segment.codes, len(part.segment)
    while len(rows) < faces and best.floor < SAME:
        if len(rows) and estimates[-1] + part.coarse_margin <= best.floor:
            return
        depth = len(rows) * DEEPER
        known = np.zeros(faces, dtype=np.bool_)
        known[rows] = True
        if depth >= faces // DEEPER:
            for every in chunks(faces):
                _read([(part, every[~known[every]])], probe, best)
            return
        estimates, rows = codes.search(probe[np.newaxis], depth)[0]
        new = ~known[rows]
        refined = codes.refine(estimates[new], rows[new], part.codec.tables(probe))
        _read([(part, rows[new][refined + part.fine_margin > best.floor])], probe, best)


def _read(
    wanted: Sequence[tuple[Part, NDArray[np.int64]]], probe: NDArray[np.float32], best: _Best
) -> None:
    """Read the exact cosines of those of these rows that are still there.

    Raises:
        SnapshotError: a template is not what was written.
    """
    live = [(part.segment, rows[part.alive[rows]]) for part, rows in wanted]
    templates, face_nos = read_templates([each for each in live if len(each[1])])
    if len(face_nos):
        best.add(exact_cosines(templates, probe), face_nos)
