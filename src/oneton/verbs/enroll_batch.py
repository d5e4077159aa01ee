"""Enroll a batch: many pictures into one gallery, with one search and one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.biometrics.quality import check as check_quality
from oneton.domain.audit import Act, Action
from oneton.domain.errors import (
    BadTextError,
    ConflictError,
    OnetonError,
    ProbeError,
    SnapshotError,
    StoreDownError,
    UnavailableError,
)
from oneton.domain.model import (
    NO_NOTE,
    Analysis,
    Cosine,
    Embedding,
    Enrolment,
    FaceId,
    FaceNote,
    Gallery,
    GalleryId,
    Score,
    SecondPack,
    TenantId,
    image_key,
)
from oneton.domain.stages import stage
from oneton.images import ImageStore
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.locked_gallery import LockedGallery, NewFace
from oneton.records.trail import Trail
from oneton.verbs.analyse import Picture
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.cpu import Cpu
from oneton.verbs.identify import Find
from oneton.verbs.judge import threshold_of
from oneton.verbs.load_model import LoadModel, Model

log = structlog.get_logger()

AT_ONCE = 16
"""Images that are stored side by side."""


class Later(msgspec.Struct, frozen=True):
    """A picture that was not added, and may be another time."""

    why: str


Outcome = Enrolment | Later | OnetonError
"""A ProbeError is of its picture, and a BadTextError of what goes with it; any other error ends the
batch, and stands for all that follow.
"""


@dataclass(frozen=True)
class Embedded:
    """A picture under every pack of its gallery.

    Attributes:
        embeddings: by pack number; None where a pack finds no face.
        key: an idempotency key, unique within the gallery.
        name: what reports call it.
    """

    picture: Picture
    analysis: Analysis
    embeddings: Mapping[int, Embedding | None]
    key: str | None = None
    note: FaceNote = NO_NOTE
    name: str = ""

    def covers(self, gallery: Gallery) -> bool:
        """Whether the gallery can be added to with what was embedded."""
        return (
            set(gallery.pack_nos) <= set(self.embeddings)
            and self.embeddings[gallery.model_pack_no] is not None
        )


@dataclass(frozen=True)
class Planned:
    """A picture that nobody in the index matches, nor one before it in the batch.

    Attributes:
        place: in the batch.
        embedding: under the index's pack.
    """

    place: int
    each: Embedded
    embedding: Embedding
    threshold: Score
    face_id: FaceId


@dataclass(frozen=True)
class EnrollBatch:
    """As `Enroll` one after another in the batch's order, at a fraction of the database's work.

    What a batch finds under the gallery's lock, or within itself, it searches for again in a second
    round, where the index has it.

    Args:
        commit_within_s: as of `Enroll`.
    """

    load_model: LoadModel
    catch_up: CatchUp
    find: Find
    galleries: Galleries
    faces: Faces
    images: ImageStore
    cpu: Cpu
    commit_within_s: float
    trail: Trail

    async def embed(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        picture: Picture,
        *,
        key: str | None = None,
        note: FaceNote = NO_NOTE,
        name: str = "",
    ) -> Embedded:
        """Analyse a picture under each of the gallery's packs.

        Raises:
            ProbeError: the picture cannot be used.
            BusyError: more work is queued than the CPU budget allows.
        """
        gallery = await self.galleries.read(tenant, gallery_id)
        model = await self.load_model(gallery.model_pack_no)
        analysis = await model.analyse(picture)
        made = Embedded(picture, analysis, {model.number: analysis.embedding}, key, note, name)
        return await self._under(made, gallery.pack_nos)

    async def _under(self, each: Embedded, pack_nos: Sequence[int]) -> Embedded:
        """The same under these packs too."""
        embeddings = dict(each.embeddings)
        for pack_no in pack_nos:
            if pack_no in embeddings:
                continue
            try:
                model = await self.load_model(pack_no)
                embeddings[pack_no] = (await model.analyse(each.picture)).embedding
            except (ProbeError, ConflictError) as error:
                log.warning("no template of the second pack", pack_no=pack_no, why=str(error))
                embeddings[pack_no] = None
        return replace(each, embeddings=embeddings)

    async def __call__(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        batch: Sequence[Embedded],
        *,
        if_missing: bool,
    ) -> list[Outcome]:
        """Add the pictures; the outcomes are in their order."""
        outcomes = await self._outcomes(tenant, gallery_id, batch, if_missing)
        for each in outcomes:
            if isinstance(each, Enrolment) and not each.added:
                self.trail.note(tenant, Act(Action.ENROLL_FOUND, (each.face_id,), gallery_id))
        return outcomes

    async def judge(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        batch: Sequence[Embedded],
        *,
        if_missing: bool,
    ) -> tuple[dict[int, Outcome], list[Planned], Model]:
        """What is known of a batch before anything is added, by place.

        Returns:
            outcomes: of those that would not be added.
            plan: the others, each as if the others of the batch were not.
            model: whose scores these are.
        """
        current = await self.catch_up(tenant, gallery_id)
        model = await self.load_model(current.pack_no)
        wanted = (current.pack_no, *current.gallery.pack_nos)
        left = {n: await self._under(each, wanted) for n, each in enumerate(batch)}
        outcomes: dict[int, Outcome] = {}
        plan = await self._plan(
            outcomes, tenant, current, model, left, if_missing=if_missing, each_alone=True
        )
        return outcomes, plan, model

    async def _outcomes(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        batch: Sequence[Embedded],
        if_missing: bool,
    ) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        try:
            await self._fill(outcomes, tenant, gallery_id, dict(enumerate(batch)), if_missing)
        except UnavailableError as error:
            return [outcomes.get(place, error) for place in range(len(batch))]
        except OnetonError as error:
            left = [place for place in range(len(batch)) if place not in outcomes]
            if len(left) > 1:
                # Some of them may be added yet, as where a quota ends within the batch, or one of
                # them is at fault.
                await self._halve(outcomes, tenant, gallery_id, batch, left, if_missing)
            return [outcomes.get(place, error) for place in range(len(batch))]
        return [outcomes[place] for place in range(len(batch))]

    async def _halve(
        self,
        outcomes: dict[int, Outcome],
        tenant: TenantId,
        gallery_id: GalleryId,
        batch: Sequence[Embedded],
        left: list[int],
        if_missing: bool,
    ) -> None:
        middle = len(left) // 2
        for half in (left[:middle], left[middle:]):
            some = [batch[place] for place in half]
            done = await self._outcomes(tenant, gallery_id, some, if_missing)
            outcomes.update(zip(half, done, strict=True))
            ended = next((each for each in done if _ends(each)), None)
            if ended is not None:
                outcomes.update({place: ended for place in left if place not in outcomes})
                return

    async def _fill(
        self,
        outcomes: dict[int, Outcome],
        tenant: TenantId,
        gallery_id: GalleryId,
        batch: dict[int, Embedded],
        if_missing: bool,
    ) -> None:
        while left := {place: each for place, each in batch.items() if place not in outcomes}:
            current = await self.catch_up(tenant, gallery_id)
            model = await self.load_model(current.pack_no)
            for place, each in left.items():
                wanted = (current.pack_no, *current.gallery.pack_nos)
                left[place] = batch[place] = await self._under(each, wanted)
            try:
                plan = await self._plan(
                    outcomes, tenant, current, model, left, if_missing=if_missing
                )
            except SnapshotError as error:
                log.warning("the index is loaded anew", error=str(error))
                continue
            if plan:
                await self._add(outcomes, current, model, plan, if_missing)

    async def _plan(
        self,
        outcomes: dict[int, Outcome],
        tenant: TenantId,
        current: Current,
        model: Model,
        left: Mapping[int, Embedded],
        *,
        if_missing: bool,
        each_alone: bool = False,
    ) -> list[Planned]:
        """Judge by the index; what waits for another round has no outcome and is not planned."""
        gallery = current.gallery
        keys = [each.key for each in left.values() if each.key is not None]
        earlier = await self.faces.enrolled_with_each(tenant, gallery, keys) if keys else {}
        rankings = await self._search(current, model, left) if if_missing else None
        plan: list[Planned] = []
        for nth, (place, each) in enumerate(left.items()):
            if each.key in earlier:
                outcomes[place] = _existing(earlier[each.key], None, each)
                continue
            embedding = each.embeddings[current.pack_no]
            if embedding is None or not each.covers(gallery):
                outcomes[place] = ProbeError("the gallery's model pack finds no face")
                continue
            threshold = threshold_of(gallery, len(current.index) + len(plan), model.calibration)
            if rankings is not None:
                ranking = rankings[0][nth : nth + 1], rankings[1][nth : nth + 1]
                best = await self.find(
                    tenant, current, model.calibration, embedding, ranking, threshold
                )
                if best:
                    outcomes[place] = _existing(best[0].face_id, best[0].score, each)
                    continue
            try:
                check_quality(each.analysis.faces[0].quality, gallery.quality_floor)
            except ProbeError as error:
                outcomes[place] = error
                continue
            planned = Planned(place, each, embedding, threshold, FaceId(uuid7()))
            if each_alone or not _waits(planned, plan, model, if_missing):
                plan.append(planned)
        return plan

    async def _search(
        self, current: Current, model: Model, left: Mapping[int, Embedded]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """A row for each; that of a picture without an embedding says nothing."""
        nobody = np.eye(1, model.pack.dimension, dtype=np.float32)[0]
        probes = [each.embeddings[current.pack_no] for each in left.values()]
        stacked = np.stack([nobody if each is None else each for each in probes])
        with stage("search"):
            return await self.cpu.run_upkeep(partial(current.index.search, stacked, 1))

    async def _add(
        self,
        outcomes: dict[int, Outcome],
        current: Current,
        model: Model,
        plan: list[Planned],
        if_missing: bool,
    ) -> None:
        """Store the images, then look once more and insert under the gallery's lock."""
        gallery = current.gallery
        stored_s = monotonic()
        with stage("store"):
            await _side_by_side([self._store(gallery, each) for each in plan])
        try:
            with stage("commit"):
                async with self.faces.locked(gallery.tenant_id, gallery) as locked:
                    head = current.index.head if if_missing else None
                    late = await _late(locked, model, plan)
                    others = [each for each in plan if each not in late]
                    free = await _free(locked, model, others, head)
                    if monotonic() - stored_s > self.commit_within_s:
                        raise UnavailableError("the enrolment took too long")
                    if free:
                        await locked.add_many([_new_face(each, locked.gallery) for each in free])
        except UnavailableError:
            # The rows may be there all the same; if not, the sweeper deletes the images.
            raise
        except OnetonError:
            await _side_by_side([self._drop(gallery, each) for each in plan])
            raise
        kept = {each.place for each in free}
        dropped = [each for each in plan if each.place not in kept]
        await _side_by_side([self._drop(gallery, each) for each in dropped])
        for each in free:
            faces = each.each.analysis.faces
            outcomes[each.place] = Enrolment(each.face_id, added=True, score=None, faces=faces)
        for each in late:
            outcomes[each.place] = Later("the gallery is changing its model pack; import it again")

    async def _store(self, gallery: Gallery, planned: Planned) -> None:
        key = image_key(gallery.tenant_id, gallery.gallery_id, planned.face_id)
        each = planned.each
        await self.images.put(key, each.picture.data, each.analysis.content_type)

    async def _drop(self, gallery: Gallery, planned: Planned) -> None:
        key = image_key(gallery.tenant_id, gallery.gallery_id, planned.face_id)
        try:
            await self.images.delete(key)
        except StoreDownError as error:
            log.warning("a leftover image is left to the sweeper", key=key, error=str(error))


def _waits(planned: Planned, plan: Sequence[Planned], model: Model, if_missing: bool) -> bool:
    """Whether another of the batch has to be added first, for this may be the same."""
    each = planned.each
    if each.key is not None and any(before.each.key == each.key for before in plan):
        return True
    if not if_missing or not plan:
        return False
    cosines = np.stack([before.embedding for before in plan]) @ planned.embedding
    return model.calibration.score(Cosine(float(cosines.max()))) >= planned.threshold


async def _late(locked: LockedGallery, model: Model, plan: Sequence[Planned]) -> list[Planned]:
    """Those that the gallery cannot take just now."""
    gallery, second = locked.gallery, locked.gallery.second_pack_no
    if gallery.second is not SecondPack.FILLED or second is None or not _fits(gallery, model, plan):
        return []
    # An index of the new pack that has passed this head would never hear of the face.
    late = [each for each in plan if each.each.embeddings[second] is None]
    keys = [each.each.key for each in late if each.each.key is not None]
    taken = await locked.enrolled_with_each(keys) if keys else {}
    return [each for each in late if each.each.key not in taken]


def _fits(gallery: Gallery, model: Model, plan: Sequence[Planned]) -> bool:
    """Whether the gallery has the packs that the plan was made for."""
    return gallery.answers_under(model.number) and all(p.each.covers(gallery) for p in plan)


async def _free(
    locked: LockedGallery, model: Model, plan: Sequence[Planned], searched_head: int | None
) -> list[Planned]:
    """Under the lock: those that nobody matches who was added since the search."""
    gallery = locked.gallery
    if not _fits(gallery, model, plan):
        return []
    keys = [each.each.key for each in plan if each.each.key is not None]
    taken = await locked.enrolled_with_each(keys) if keys else {}
    free = [each for each in plan if each.each.key not in taken]
    if searched_head is None or searched_head >= gallery.head or not free:
        return free
    changes = await locked.changes(searched_head, len(free[0].embedding), model.number)
    if len(changes.added_face_nos) == 0:
        return free
    best = (changes.added_embeddings @ np.stack([each.embedding for each in free]).T).max(axis=0)
    scores = [model.calibration.score(Cosine(float(cosine))) for cosine in best]
    return [each for each, score in zip(free, scores, strict=True) if score < each.threshold]


def _new_face(planned: Planned, gallery: Gallery) -> NewFace:
    each = planned.each
    return NewFace(
        planned.face_id,
        {no: each.embeddings[no] for no in gallery.pack_nos},
        each.analysis.content_type,
        each.key,
        each.note,
    )


def _existing(face_id: FaceId, score: Score | None, each: Embedded) -> Enrolment:
    return Enrolment(face_id, added=False, score=score, faces=each.analysis.faces)


def _ends(outcome: Outcome) -> bool:
    return isinstance(outcome, OnetonError) and not isinstance(outcome, ProbeError | BadTextError)


async def _side_by_side(calls: Sequence[Awaitable[None]]) -> None:
    """Await these, so many at once; the first error, once all are over."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(call: Awaitable[None]) -> None:
        async with limit:
            await call

    for done in await asyncio.gather(*(one(each) for each in calls), return_exceptions=True):
        if isinstance(done, BaseException):
            raise done
