"""Identify: who in a gallery is this?"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial

import numpy as np

from oneton.biometrics.calibration import Calibration
from oneton.domain.errors import IndexLoadingError
from oneton.domain.model import (
    Analysis,
    Candidate,
    CandidateList,
    Cosine,
    Embedding,
    FaceNo,
    GalleryId,
    Score,
    TenantId,
)
from oneton.domain.stages import stage
from oneton.records.faces import Faces
from oneton.verbs.analyse import Analyse, Picture
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.cpu import Cpu

NO_SCORE = Score(0.0)
TRIES = 4


@dataclass(frozen=True)
class Find:
    """Rank an index for one embedding; the part that identify and enroll share."""

    catch_up: CatchUp
    cpu: Cpu
    faces: Faces
    calibration: Calibration

    async def __call__(
        self,
        tenant: TenantId,
        current: Current,
        embedding: Embedding,
        limit: int,
        least: Score = NO_SCORE,
    ) -> list[Candidate]:
        """The best `limit` candidates whose score is at least `least`, best first.

        Raises:
            IndexLoadingError: the index disagreed with Postgres, and was dropped.
        """
        for _ in range(TRIES):
            with stage("search"):
                cosines, face_nos = await self.cpu.run_upkeep(
                    partial(current.index.search, embedding[np.newaxis], limit)
                )
            ranked = [
                (FaceNo(face_no), score)
                for face_no, cosine in zip(face_nos[0].tolist(), cosines[0].tolist(), strict=True)
                if face_no >= 0 and (score := self.calibration.score(Cosine(cosine))) >= least
            ]
            with stage("ids"):
                names = await self.faces.ids(tenant, [no for no, _ in ranked]) if ranked else {}
            if len(names) == len(ranked):
                return [
                    Candidate(rank, names[face_no], score)
                    for rank, (face_no, score) in enumerate(ranked, start=1)
                ]
            # One was purged after the search: the next best takes its place.
            current = await self.catch_up(tenant, current.gallery.gallery_id)
        # The index knows faces that Postgres does not, as after a restore of a backup.
        self.catch_up.forget(current.gallery)
        raise IndexLoadingError("the gallery's index is loaded anew")


@dataclass(frozen=True)
class Identify:
    """Answers for every change committed before the call, on any replica."""

    analyse: Analyse
    catch_up: CatchUp
    find: Find

    async def __call__(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        picture: Picture,
        *,
        limit: int = 1,
        matches_only: bool = False,
    ) -> CandidateList:
        """Search a gallery for the largest face in one picture.

        Args:
            limit: candidates at most.
            matches_only: leave out candidates below the threshold.

        Raises:
            ProbeError: the picture cannot be used.
            NotFoundError: the tenant has no such gallery.
            UnavailableError: try again.
        """
        analysis, current = await side_by_side(
            self.analyse(picture), self.catch_up(tenant, gallery_id)
        )
        threshold = current.gallery.threshold
        least = threshold if matches_only else NO_SCORE
        candidates = await self.find(tenant, current, analysis.embedding, limit, least)
        return CandidateList(
            match=bool(candidates) and candidates[0].score >= threshold,
            threshold=Score(threshold),
            candidates=tuple(candidates),
            faces=analysis.faces,
        )


async def side_by_side(
    analysing: Coroutine[None, None, Analysis], catching_up: Coroutine[None, None, Current]
) -> tuple[Analysis, Current]:
    """Wait for Postgres while a thread computes; the picture's errors come first."""
    following = asyncio.create_task(catching_up)
    try:
        analysis = await analysing
    except BaseException:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        raise
    return analysis, await following
