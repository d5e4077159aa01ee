"""Enroll: put a face in a gallery, always or only when nobody there matches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from time import monotonic

import numpy as np
import structlog
from uuid_utils.compat import uuid7

from oneton.biometrics.quality import check as check_quality
from oneton.domain.audit import Act, Action
from oneton.domain.errors import (
    ConflictError,
    NotFoundError,
    ProbeError,
    QuotaError,
    StoreDownError,
    UnavailableError,
)
from oneton.domain.model import (
    NO_NOTE,
    Analysis,
    Candidate,
    Cosine,
    Embedding,
    Enrolment,
    FaceId,
    FaceNo,
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
from oneton.records.locked_gallery import LockedGallery
from oneton.records.trail import Trail
from oneton.verbs.analyse import Picture, Ranking
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.identify import Find
from oneton.verbs.judge import threshold_of
from oneton.verbs.load_model import LoadModel, Model
from oneton.verbs.searches_first import SearchesFirst

log = structlog.get_logger()

Also = Callable[[LockedGallery, FaceId], Awaitable[None]]
"""What is written with a new record, in its transaction; a ConflictError of it undoes both."""


class Verdict(Enum):
    """What the look under the lock came to, when it found nobody."""

    FREE = "nobody matches, insert"
    AGAIN = "the gallery changed in a way that needs a new search"


@dataclass(frozen=True)
class _Probe:
    """A picture under every pack of its gallery.

    Attributes:
        analysis: under the pack that was searched with.
        model: that pack.
        embeddings: by pack number; None where a pack finds no face.
        ranking: None when the index proved damaged.
        head: of the index that was searched.
    """

    picture: Picture
    analysis: Analysis
    model: Model
    embeddings: dict[int, Embedding | None]
    ranking: Ranking | None
    head: int

    def covers(self, gallery: Gallery) -> bool:
        """Whether the gallery can still be searched, and added to, with what was embedded."""
        embedded = set(self.embeddings)
        return (
            gallery.answers_under(self.model.number)
            and set(gallery.pack_nos) <= embedded
            # What answers from now on has to have found the face.
            and self.embeddings[gallery.model_pack_no] is not None
        )

    def fits(self, current: Current) -> bool:
        """Whether an index is of the same pack, too."""
        return current.pack_no == self.model.number and self.covers(current.gallery)


@dataclass(frozen=True)
class Enroll:
    """Of any number of concurrent enroll-if-missing calls with photos of one person, one adds.

    Args:
        commit_within_s: time from storing the image to the insert; past it the sweeper might take
            the image for a leftover, so the enrolment is given up.
    """

    load_model: LoadModel
    catch_up: CatchUp
    find: Find
    faces: Faces
    images: ImageStore
    commit_within_s: float
    trail: Trail
    searches_first: SearchesFirst = field(default_factory=SearchesFirst)
    also: Also | None = None

    def writing(self, also: Also) -> Enroll:
        """The same, with something that is written with every record that it adds."""
        return replace(self, also=also)

    async def __call__(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        picture: Picture,
        *,
        if_missing: bool,
        idempotency_key: str | None = None,
        note: FaceNote = NO_NOTE,
        known: Mapping[int, Analysis] | None = None,
    ) -> Enrolment:
        """Add the largest face in a picture.

        Args:
            if_missing: return the matching record when there is one.
            idempotency_key: a second call with the same key returns the first call's record.
            note: what goes with a record that is added.
            known: analyses of this very picture, by the number of the model pack.

        Raises:
            ProbeError: the picture cannot be used, or is below the gallery's floor.
            ConflictError: of `also`; nothing was added.
            NotFoundError: the tenant has no such gallery.
            UnavailableError: try again. When Postgres went away during the commit, the face may
                have been added: an idempotency key, or `if_missing`, makes the second try safe.
        """
        while True:
            current = await self.catch_up(tenant, gallery_id)
            async with self.searches_first.change():
                probe = await self._embed(current, picture, known or {}, search=if_missing)
            enrolment = await self._search_and_add(
                tenant,
                current,
                probe,
                if_missing=if_missing,
                idempotency_key=idempotency_key,
                note=note,
            )
            if enrolment is not None:
                if not enrolment.added:
                    act = Act(Action.ENROLL_FOUND, (enrolment.face_id,), gallery_id)
                    self.trail.note(tenant, act)
                return enrolment

    async def _embed(
        self, current: Current, picture: Picture, known: Mapping[int, Analysis], *, search: bool
    ) -> _Probe:
        """Analyse under each of the gallery's packs, and search under the index's."""
        model = await self.load_model(current.pack_no)
        head = current.index.head
        found, ranking = known.get(current.pack_no), None
        if found is not None and search:
            ranking = await self.find.search(current, found.embedding, 1)
        elif found is None and search:
            found, ranking = await model.analyse.and_search(picture, current.index, 1)
        elif found is None:
            found = await model.analyse(picture)
        analysis = found
        embeddings: dict[int, Embedding | None] = {current.pack_no: analysis.embedding}
        for pack_no in current.gallery.pack_nos:
            if pack_no in known:
                embeddings[pack_no] = known[pack_no].embedding
            elif pack_no not in embeddings:
                embeddings[pack_no] = await self._embed_second(pack_no, picture)
        return _Probe(picture, analysis, model, embeddings, ranking, head)

    async def _embed_second(self, pack_no: int, picture: Picture) -> Embedding | None:
        """None where the other pack cannot: a reindex looks at the stored image again."""
        try:
            second = await self.load_model(pack_no)
            return (await second.analyse(picture)).embedding
        except (ProbeError, ConflictError) as error:
            log.warning("enrolled without the second template", pack_no=pack_no, why=str(error))
            return None

    async def _search_and_add(
        self,
        tenant: TenantId,
        current: Current,
        probe: _Probe,
        *,
        if_missing: bool,
        idempotency_key: str | None,
        note: FaceNote,
    ) -> Enrolment | None:
        """None when the gallery's packs changed, so that the picture has to be embedded anew."""
        analysis, ranking, head = probe.analysis, probe.ranking, probe.head
        gallery_id = current.gallery.gallery_id
        while True:
            if ranking is None and if_missing:
                current = await self.catch_up(tenant, gallery_id)
                if not probe.fits(current):
                    return None
                head = current.index.head
                ranking = await self.find.search(current, analysis.embedding, 1)
            if idempotency_key is not None:
                earlier = await self.enrolled_before(tenant, gallery_id, idempotency_key)
                if earlier is not None:
                    return Enrolment(earlier, added=False, score=None, faces=analysis.faces)
            threshold = threshold_of(current.gallery, len(current.index), probe.model.calibration)
            structlog.contextvars.bind_contextvars(
                threshold=round(threshold, 2), model_pack=probe.model.pack.name
            )
            if ranking is not None and if_missing:
                best = await self.find(
                    tenant,
                    current,
                    probe.model.calibration,
                    analysis.embedding,
                    ranking,
                    threshold,
                )
                if best:
                    return _existing(best[0], analysis)
            check_quality(analysis.faces[0].quality, current.gallery.quality_floor)
            searched = head if if_missing else None
            done = await self._add(current, probe, threshold, searched, idempotency_key, note)
            if done is not None:
                return done
            if not if_missing:
                current = await self.catch_up(tenant, gallery_id)
                if not probe.fits(current):
                    return None
            ranking = None

    async def enrolled_before(
        self, tenant: TenantId, gallery_id: GalleryId, idempotency_key: str
    ) -> FaceId | None:
        """The record that an earlier call with this key came to."""
        return await self.faces.enrolled_with(tenant, gallery_id, idempotency_key)

    async def _add(
        self,
        current: Current,
        probe: _Probe,
        threshold: Score,
        searched_head: int | None,
        idempotency_key: str | None,
        note: FaceNote,
    ) -> Enrolment | None:
        """Store the image, then decide and insert under the gallery's lock.

        None means that the picture has to be judged again. Only an outcome that is known deletes
        the image: after a failure of Postgres the row may be there all the same.
        """
        tenant, gallery, analysis = current.gallery.tenant_id, current.gallery, probe.analysis
        face_id = FaceId(uuid7())
        key = image_key(tenant, gallery.gallery_id, face_id)
        stored_s = monotonic()
        with stage("store"):
            await self.images.put(key, probe.picture.data, analysis.content_type)
        try:
            with stage("commit"):
                async with self.faces.locked(tenant, gallery) as locked:
                    verdict = await self._judge(
                        locked, probe, threshold, searched_head, idempotency_key
                    )
                    if verdict is Verdict.FREE:
                        if monotonic() - stored_s > self.commit_within_s:
                            raise UnavailableError("the enrolment took too long")
                        await locked.add(
                            face_id,
                            {no: probe.embeddings[no] for no in locked.gallery.pack_nos},
                            content_type=analysis.content_type,
                            idempotency_key=idempotency_key,
                            note=note,
                        )
                        if self.also is not None:
                            await self.also(locked, face_id)
        except (ConflictError, NotFoundError, QuotaError):
            # There is a face of this key, or no such gallery any more, or no room.
            await self._drop(key)
            raise
        if verdict is Verdict.FREE:
            return Enrolment(face_id, added=True, score=None, faces=analysis.faces)
        await self._drop(key)
        return _existing(verdict, analysis) if isinstance(verdict, Candidate) else None

    async def _judge(
        self,
        locked: LockedGallery,
        probe: _Probe,
        threshold: Score,
        searched_head: int | None,
        idempotency_key: str | None,
    ) -> Candidate | Verdict:
        """Under the lock: compare with only the faces added since the search."""
        pack_no = probe.model.number
        if not probe.covers(locked.gallery):
            return Verdict.AGAIN
        if idempotency_key is not None and await locked.enrolled_with(idempotency_key):
            return Verdict.AGAIN
        second = locked.gallery.second_pack_no
        if (
            locked.gallery.second is SecondPack.FILLED
            and second is not None
            and probe.embeddings[second] is None
        ):
            # An index of the new pack that has passed this head would never hear of the face.
            raise UnavailableError("the gallery is changing its model pack", retry_after_s=2)
        if searched_head is None or searched_head >= locked.gallery.head:
            return Verdict.FREE
        embedding = probe.analysis.embedding
        changes = await locked.changes(searched_head, len(embedding), pack_no)
        if len(changes.added_face_nos) == 0:
            return Verdict.FREE
        with stage("delta"):
            cosines = changes.added_embeddings @ embedding
            best = int(np.argmax(cosines))
        score = probe.model.calibration.score(Cosine(float(cosines[best])))
        if score < threshold:
            return Verdict.FREE
        face_id = await locked.face_id(FaceNo(int(changes.added_face_nos[best])))
        return Candidate(1, face_id, score)

    async def _drop(self, key: str) -> None:
        try:
            await self.images.delete(key)
        except StoreDownError as error:
            log.warning("a leftover image is left to the sweeper", key=key, error=str(error))


def _existing(candidate: Candidate, analysis: Analysis) -> Enrolment:
    return Enrolment(candidate.face_id, added=False, score=candidate.score, faces=analysis.faces)
