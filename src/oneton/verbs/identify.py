"""Identify: who in a gallery is this?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import structlog

from oneton.biometrics.calibration import Calibration
from oneton.domain.audit import Act, Action
from oneton.domain.errors import IndexLoadingError
from oneton.domain.model import (
    Candidate,
    CandidateList,
    Cosine,
    Embedding,
    FaceNo,
    GalleryId,
    Score,
    TenantId,
)
from oneton.domain.screening import FaceDetails
from oneton.domain.stages import stage
from oneton.records.faces import Faces
from oneton.records.trail import Trail
from oneton.verbs.analyse import Picture, Ranking
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.cpu import Cpu
from oneton.verbs.judge import threshold_of
from oneton.verbs.load_model import LoadModel
from oneton.verbs.searches_first import SearchesFirst

NO_SCORE = Score(0.0)
TRIES = 4
Known = TypeVar("Known")


@dataclass(frozen=True)
class Find:
    """From an index's ranking to candidates; the part that identify and enroll share."""

    catch_up: CatchUp
    cpu: Cpu
    faces: Faces

    async def __call__(
        self,
        tenant: TenantId,
        current: Current,
        calibration: Calibration,
        embedding: Embedding,
        ranking: Ranking,
        least: Score = NO_SCORE,
    ) -> list[Candidate]:
        """The candidates of a ranking whose score is at least `least`, best first.

        Args:
            calibration: of the pack that the embedding and the index are of.

        Raises:
            IndexLoadingError: the index disagreed with Postgres, and was dropped.
        """
        found = await self._ranked(
            tenant, current, calibration, embedding, ranking, least, self.faces.ids
        )
        return [
            Candidate(rank, face_id, score) for rank, (score, face_id) in enumerate(found, start=1)
        ]

    async def shown(
        self,
        tenant: TenantId,
        current: Current,
        calibration: Calibration,
        embedding: Embedding,
        ranking: Ranking,
        least: Score,
    ) -> list[tuple[Score, FaceDetails]]:
        """The same with all that is known of each."""
        return await self._ranked(
            tenant, current, calibration, embedding, ranking, least, self.faces.details_of
        )

    async def _ranked(
        self,
        tenant: TenantId,
        current: Current,
        calibration: Calibration,
        embedding: Embedding,
        ranking: Ranking,
        least: Score,
        look_up: Callable[[TenantId, Sequence[FaceNo]], Awaitable[dict[FaceNo, Known]]],
    ) -> list[tuple[Score, Known]]:
        for _ in range(TRIES):
            cosines, face_nos = ranking
            ranked = [
                (FaceNo(face_no), score)
                for face_no, cosine in zip(face_nos[0].tolist(), cosines[0].tolist(), strict=True)
                if face_no >= 0 and (score := calibration.score(Cosine(cosine))) >= least
            ]
            with stage("ids"):
                known = await look_up(tenant, [no for no, _ in ranked]) if ranked else {}
            if len(known) == len(ranked):
                return [(score, known[face_no]) for face_no, score in ranked]
            # One was purged after the search: the next best takes its place.
            current = await self.catch_up(
                tenant, current.gallery.gallery_id, pack_no=current.pack_no
            )
            ranking = await self.search(current, embedding, cosines.shape[1])
        # The index knows faces that Postgres does not, as after a restore of a backup.
        self.catch_up.forget(current, "it knows faces that Postgres does not")
        raise IndexLoadingError("the gallery's index is loaded anew")

    async def search(self, current: Current, embedding: Embedding, k: int) -> Ranking:
        """Rank an index again, for an embedding that is known."""
        with stage("search"):
            return await self.cpu.run_upkeep(
                partial(current.index.search, embedding[np.newaxis], k)
            )


@dataclass(frozen=True)
class Identify:
    """Answers for every change committed before the call, on any replica.

    A question is answered under one model pack throughout: the gallery's when it began.
    """

    load_model: LoadModel
    catch_up: CatchUp
    find: Find
    trail: Trail
    searches_first: SearchesFirst = field(default_factory=SearchesFirst)

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
        with self.searches_first.search():
            current = await self.catch_up(tenant, gallery_id)
            model = await self.load_model(current.pack_no)
            analysis, ranking = await model.analyse.and_search(picture, current.index, limit)
        if ranking is None:
            current = await self.catch_up(tenant, gallery_id, pack_no=current.pack_no)
            ranking = await self.find.search(current, analysis.embedding, limit)
        threshold = threshold_of(current.gallery, len(current.index), model.calibration)
        least = threshold if matches_only else NO_SCORE
        candidates = await self.find(
            tenant, current, model.calibration, analysis.embedding, ranking, least
        )
        structlog.contextvars.bind_contextvars(
            threshold=round(threshold, 2), model_pack=model.pack.name
        )
        matches = tuple(each.face_id for each in candidates if each.score >= threshold)
        details = {"candidates": len(candidates)}
        self.trail.note(tenant, Act(Action.SEARCH, matches, gallery_id, details))
        return CandidateList(
            match=bool(candidates) and candidates[0].score >= threshold,
            threshold=threshold,
            candidates=tuple(candidates),
            faces=analysis.faces,
        )
