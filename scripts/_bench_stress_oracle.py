"""What a search of a gallery that changes all the time may answer, by the full product."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.index.templates import unit_rows

DIMENSION = 512
DIRECTIONS = 128
TOLERANCE = 1e-4
"""Of a cosine: both sides read the same fp16 templates, and round in float32 only."""
NEVER = np.iinfo(np.int64).max
AT_ONCE = 512


class Kind(StrEnum):
    """Whose other photo a probe is."""

    ENROLLED = "enrolled"
    NEWEST = "newest"
    REMOVED = "removed"
    STRANGER = "stranger"


class Drawn:
    """Random templates that, as those of a face model, fill fewer directions than they have."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._directions = rng.standard_normal((DIRECTIONS, DIMENSION), dtype=np.float32)

    def draw(self, count: int) -> NDArray[np.float32]:
        """(count, D) as Postgres gives them back."""
        rows = self._rng.standard_normal((count, DIRECTIONS), dtype=np.float32) @ self._directions
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return unit_rows(rows.astype(np.float16))

    def near(self, row: NDArray[np.float32], cosine: float) -> NDArray[np.float32]:
        """A probe at a cosine of a template."""
        aside = self.draw(1)[0]
        aside -= (aside @ row) * row
        aside /= np.linalg.norm(aside)
        probe = cosine * row + np.sqrt(1 - cosine**2) * aside
        return np.asarray(probe / np.linalg.norm(probe), dtype=np.float32)


class Search(msgspec.Struct, frozen=True):
    """A probe and its answer.

    Attributes:
        mate: head at which the face was enrolled that the probe is near of; 0 for none.
        acknowledged: the newest head that a client had been told of when the search began.
        before: the gallery's head when it began.
        after: the index's head when it ended.
        stages_ms: what it took, by stage and as a whole.
    """

    kind: Kind
    probe: NDArray[np.float32]
    mate: int
    acknowledged: int
    before: int
    after: int
    cosines: NDArray[np.float32]
    face_nos: NDArray[np.int64]
    stages_ms: dict[str, float]


class Truth(msgspec.Struct, frozen=True):
    """Every face that a gallery ever had, in order of head and of face number.

    Attributes:
        removed: (N,) heads, `NEVER` for those that are there.
    """

    face_nos: NDArray[np.int64]
    added: NDArray[np.int64]
    removed: NDArray[np.int64]
    templates: NDArray[np.float16]


class Verdict(msgspec.Struct):
    """What came of judging.

    Attributes:
        wrong: a line for each wrong answer.
        judged: searches of each kind.
        mates: probes whose face was certainly there, and was found.
        short: other answers whose first was not the best there was, as `ranking.MARGIN` allows.
    """

    wrong: list[str]
    judged: dict[Kind, int]
    mates: int = 0
    short: int = 0


def judge(searches: Sequence[Search], truth: Truth) -> Verdict:
    """Compare every answer with the full product over the faces at its head."""
    verdict = Verdict([], dict.fromkeys(Kind, 0))
    for start in range(0, len(searches), AT_ONCE):
        some = searches[start : start + AT_ONCE]
        earliest, latest = min(each.before for each in some), max(each.after for each in some)
        near = np.flatnonzero((truth.added <= latest) & (truth.removed > earliest))
        faces = unit_rows(truth.templates[near])
        probes = np.stack([each.probe for each in some])
        for each, cosines in zip(some, probes @ faces.T, strict=True):
            verdict.judged[each.kind] += 1
            verdict.wrong += _judge(each, truth, near, cosines, verdict)
    return verdict


def _judge(
    search: Search,
    truth: Truth,
    near: NDArray[np.int64],
    cosines: NDArray[np.float32],
    verdict: Verdict,
) -> list[str]:
    """What is wrong with one answer.

    Args:
        near: (n,) places in the truth of all faces that it may be about.
        cosines: (n,) theirs with the probe.
    """
    added, removed = truth.added[near], truth.removed[near]
    certain = (added <= search.before) & (removed > search.after)
    maybe = (added <= search.after) & (removed > search.before)
    said = f"{search.kind} probe at heads {search.before} to {search.after}"
    if search.before < search.acknowledged:
        return [f"{said}: head {search.acknowledged} had been acknowledged"]
    found = np.searchsorted(truth.face_nos[near], search.face_nos).clip(max=len(near) - 1)
    known = truth.face_nos[near][found] == search.face_nos
    if not (known & maybe[found]).all() or len(np.unique(found)) < len(found):
        return [f"{said}: faces {search.face_nos} are not there, or twice"]
    if (off := np.abs(cosines[found] - search.cosines).max()) > TOLERANCE:
        return [f"{said}: a cosine is off by {off}"]
    best = cosines[certain].max()
    missed = bool(best > search.cosines[0] + TOLERANCE)
    mated = bool(certain[added == search.mate].any())
    if mated and missed:
        return [f"{said}: best {search.cosines[0]:.3f}, there is {best:.3f}"]
    verdict.mates += mated
    verdict.short += not mated and missed
    return []
