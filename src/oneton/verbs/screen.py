"""Screen: who in several galleries is this, and what is known of them?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from oneton.biometrics.calibration import Calibration
from oneton.domain.audit import Act, Action
from oneton.domain.model import (
    Analysis,
    Gallery,
    GalleryId,
    Score,
    TenantId,
)
from oneton.domain.screening import (
    FaceDetails,
    ScreenedFace,
    ScreenedGallery,
    Screening,
)
from oneton.records.trail import Trail
from oneton.verbs.analyse import Picture, Ranking
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.identify import NO_SCORE, Find
from oneton.verbs.judge import threshold_of
from oneton.verbs.load_model import LoadModel, Model
from oneton.verbs.searches_first import SearchesFirst

MOST = 1000
"""Candidates of a gallery that are looked at when most of them are left out."""
FIRST = 10
_WIDER = 4

Wanted = Callable[[FaceDetails], bool]


@dataclass(frozen=True)
class Terms:
    """What is looked for.

    Attributes:
        limit: candidates at most, over all galleries.
        each: that many of each gallery instead, so that none hides what is in another.
        least: candidates of a lower score are left out.
        threshold: from which a candidate is a match; None is each gallery's own.
        target_fpir: instead: the threshold follows each gallery's size.
        matches_only: leave out candidates that are none.
        wanted: leave out candidates of which it says no; the next best take their places.
    """

    limit: int = 1
    each: bool = False
    least: Score = NO_SCORE
    threshold: Score | None = None
    target_fpir: float | None = None
    matches_only: bool = False
    wanted: Wanted | None = None

    @property
    def first(self) -> int:
        """Candidates of a gallery to begin with: seldom do more than a few reach a score."""
        reaches = self.matches_only or self.least > NO_SCORE
        return min(self.limit, FIRST) if reaches else self.limit


ANY = Terms()


@dataclass(frozen=True)
class _Asked:
    """One gallery in a screening."""

    current: Current
    model: Model
    analysis: Analysis
    threshold: Score


@dataclass(frozen=True)
class Screen:
    """Answers for every change committed before the call, in each gallery, on any replica."""

    load_model: LoadModel
    catch_up: CatchUp
    find: Find
    trail: Trail
    searches_first: SearchesFirst = field(default_factory=SearchesFirst)

    async def __call__(
        self,
        tenant: TenantId,
        gallery_ids: Sequence[GalleryId],
        picture: Picture,
        terms: Terms = ANY,
    ) -> Screening:
        """Search galleries for the largest face in one picture.

        Args:
            gallery_ids: at least one.

        Raises:
            ProbeError: the picture cannot be used.
            NotFoundError: the tenant has no such gallery.
            UnavailableError: try again.
        """
        with self.searches_first.search():
            currents = await self._currents(tenant, gallery_ids)
            analyses, rankings = await self._search(currents, picture, terms.first)
        asked = []
        for current in currents:
            model = await self.load_model(current.pack_no)
            gallery = _judged(current, terms)
            of_its = threshold_of(gallery, len(current.index), model.calibration)
            asked.append(_Asked(current, model, analyses[current.pack_no], of_its))
        found: list[tuple[Score, FaceDetails, _Asked]] = []
        for each, ranking in zip(asked, rankings, strict=True):
            found += [
                (score, details, each)
                for score, details in await self._candidates(tenant, each, ranking, terms)
            ]
        found.sort(key=lambda each: -each[0])
        shown = found if terms.each else found[: terms.limit]
        structlog.contextvars.bind_contextvars(
            threshold=round(asked[0].threshold, 2), model_pack=asked[0].model.pack.name
        )
        candidates = tuple(
            _screened(rank, score, details, of_gallery)
            for rank, (score, details, of_gallery) in enumerate(shown, start=1)
        )
        self.trail.note(tenant, _act(gallery_ids, candidates))
        return Screening(
            candidates=candidates,
            total=len(found),
            galleries=tuple(_gallery(each) for each in asked),
            analysis=asked[0].analysis,
            analyses=analyses,
        )

    async def _currents(self, tenant: TenantId, gallery_ids: Sequence[GalleryId]) -> list[Current]:
        if len(gallery_ids) == 1:
            return [await self.catch_up(tenant, gallery_ids[0])]
        return list(await asyncio.gather(*(self.catch_up(tenant, each) for each in gallery_ids)))

    async def _search(
        self, currents: Sequence[Current], picture: Picture, limit: int
    ) -> tuple[dict[int, Analysis], list[Ranking]]:
        """Analyse once under each pack, and rank all of its galleries meanwhile."""
        analyses: dict[int, Analysis] = {}
        rankings: dict[int, Ranking | None] = {}
        for pack_no in dict.fromkeys(each.pack_no for each in currents):
            model = await self.load_model(pack_no)
            places = [at for at, each in enumerate(currents) if each.pack_no == pack_no]
            analyses[pack_no], ranked = await model.analyse.and_search_each(
                picture, [currents[at].index for at in places], limit
            )
            rankings |= dict(zip(places, ranked, strict=True))
        whole: list[Ranking] = []
        for at, current in enumerate(currents):
            ranking = rankings[at]
            if ranking is None:
                again = await self.catch_up(
                    current.gallery.tenant_id, current.gallery.gallery_id, pack_no=current.pack_no
                )
                ranking = await self.find.search(again, analyses[current.pack_no].embedding, limit)
            whole.append(ranking)
        return analyses, whole

    async def _candidates(
        self,
        tenant: TenantId,
        asked: _Asked,
        ranking: Ranking,
        terms: Terms,
    ) -> list[tuple[Score, FaceDetails]]:
        """A gallery's candidates, best first; more are looked at while too many are left out."""
        calibration: Calibration = asked.model.calibration
        embedding, wanted = asked.analysis.embedding, terms.wanted
        least = max(terms.least, asked.threshold) if terms.matches_only else terms.least
        while True:
            looked_at = ranking[0].shape[1]
            found = await self.find.shown(
                tenant, asked.current, calibration, embedding, ranking, least
            )
            kept = [(score, face) for score, face in found if wanted is None or wanted(face)]
            is_all = len(found) < looked_at or looked_at >= len(asked.current.index)
            if len(kept) >= terms.limit or is_all or looked_at >= MOST:
                return kept
            ranking = await self.find.search(
                asked.current, embedding, min(MOST, looked_at * _WIDER)
            )


def _act(gallery_ids: Sequence[GalleryId], candidates: Sequence[ScreenedFace]) -> Act:
    matches = tuple(each.face.face_id for each in candidates if each.is_match)
    details = {"candidates": len(candidates)}
    if len(gallery_ids) == 1:
        return Act(Action.SEARCH, matches, gallery_ids[0], details)
    return Act(Action.SEARCH, matches, details={**details, "galleries": gallery_ids})


def _judged(current: Current, terms: Terms) -> Gallery:
    """The gallery with the caller's threshold or target, if there is one."""
    if terms.threshold is not None:
        threshold = terms.threshold
        return msgspec.structs.replace(current.gallery, threshold=threshold, target_fpir=None)
    if terms.target_fpir is not None:
        return msgspec.structs.replace(current.gallery, target_fpir=terms.target_fpir)
    return current.gallery


def _screened(rank: int, score: Score, details: FaceDetails, asked: _Asked) -> ScreenedFace:
    cosine = asked.model.calibration.cosine(score)
    return ScreenedFace(
        rank=rank,
        score=score,
        is_match=score >= asked.threshold,
        face=details,
        cosine=cosine,
        fmr=asked.model.calibration.fmr(cosine),
    )


def _gallery(asked: _Asked) -> ScreenedGallery:
    cosine = asked.model.calibration.cosine(asked.threshold)
    return ScreenedGallery(
        gallery_id=asked.current.gallery.gallery_id,
        kind=asked.current.gallery.kind,
        model_pack=asked.model.pack.name,
        head=asked.current.index.head,
        faces=len(asked.current.index),
        threshold=asked.threshold,
        cosine=cosine,
        fmr=asked.model.calibration.fmr(cosine),
    )
