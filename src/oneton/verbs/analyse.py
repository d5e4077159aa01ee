"""Analyse: a picture's faces and the embedding of its largest, within the CPU budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.decode import ALL_TYPES, sniff
from oneton.domain.errors import SnapshotError
from oneton.domain.model import Analysis
from oneton.domain.stages import stage
from oneton.index import GalleryIndex
from oneton.verbs.cpu import Cpu


@dataclass(frozen=True)
class Picture:
    """What a caller sent, and how it wants it read.

    Attributes:
        accepted: the content types that the caller's dialect allows.
        rotate: look for upright faces at every right angle.
        attributes: estimate age and gender.
        liveness: assess it, where there is a model.
        limit_side: of its longer side, in pixels; None is as long as settings allow.
    """

    data: bytes
    accepted: tuple[str, ...] = ALL_TYPES
    rotate: bool = False
    attributes: bool = False
    liveness: bool = False
    limit_side: int | None = None

    @property
    def content_type(self) -> str | None:
        """By the first bytes; None when it is no known one. Nothing is decoded."""
        return sniff(self.data)


Ranking = tuple[NDArray[np.float32], NDArray[np.int64]]
"""What `GalleryIndex.search` returns for one probe."""


@dataclass(frozen=True)
class Analyse:
    """Errors are those of `biometrics.analyse` and BusyError."""

    analyser: Analyser
    cpu: Cpu

    async def __call__(self, picture: Picture) -> Analysis:
        """Analyse in a thread of the budget."""
        return await self.cpu.run(partial(self._analyse, picture))

    async def and_search(
        self, picture: Picture, index: GalleryIndex, k: int
    ) -> tuple[Analysis, Ranking | None]:
        """The same, and rank an index for the embedding while the thread is at it.

        Returns:
            no ranking when the index proved damaged; `CatchUp` loads it anew.
        """
        return await self.cpu.run(partial(self._analyse_and_search, picture, index, k))

    async def and_search_each(
        self, picture: Picture, indexes: Sequence[GalleryIndex], k: int
    ) -> tuple[Analysis, list[Ranking | None]]:
        """The same with several indexes of one model pack."""
        return await self.cpu.run(partial(self._analyse_and_search_each, picture, indexes, k))

    def _analyse(self, picture: Picture) -> Analysis:
        return self.analyser.analyse(
            picture.data,
            accepted=picture.accepted,
            rotate=picture.rotate,
            attributes=picture.attributes,
            liveness=picture.liveness,
            limit_side=picture.limit_side,
        )

    def _analyse_and_search(
        self, picture: Picture, index: GalleryIndex, k: int
    ) -> tuple[Analysis, Ranking | None]:
        analysis, rankings = self._analyse_and_search_each(picture, (index,), k)
        return analysis, rankings[0]

    def _analyse_and_search_each(
        self, picture: Picture, indexes: Sequence[GalleryIndex], k: int
    ) -> tuple[Analysis, list[Ranking | None]]:
        analysis = self._analyse(picture)
        probes = analysis.embedding[np.newaxis]
        with stage("search"):
            return analysis, [_search(index, probes, k) for index in indexes]


def _search(index: GalleryIndex, probes: NDArray[np.float32], k: int) -> Ranking | None:
    try:
        return index.search(probes, k)
    except SnapshotError:
        return None
