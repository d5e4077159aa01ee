"""Enroll: put a face in a gallery, always or only when nobody there matches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from time import monotonic

import numpy as np
import structlog
from uuid_utils.compat import uuid7

from oneton.biometrics.quality import check as check_quality
from oneton.domain.errors import StoreDownError, UnavailableError
from oneton.domain.model import (
    Analysis,
    Candidate,
    Cosine,
    Enrolment,
    FaceId,
    FaceNo,
    Gallery,
    GalleryId,
    TenantId,
    image_key,
)
from oneton.domain.stages import stage
from oneton.images import ImageStore
from oneton.records.faces import Faces, LockedGallery
from oneton.verbs.analyse import Analyse, Picture
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.identify import Find

log = structlog.get_logger()


class Verdict(Enum):
    """What the look under the lock came to, when it found nobody."""

    FREE = "nobody matches, insert"
    AGAIN = "the gallery changed in a way that needs a new search"


@dataclass(frozen=True)
class Enroll:
    """Of any number of concurrent enroll-if-missing calls with photos of one person, one adds.

    Args:
        commit_within_s: time from storing the image to the insert; past it the sweeper might take
            the image for a leftover, so the enrolment is given up.
    """

    analyse: Analyse
    catch_up: CatchUp
    find: Find
    faces: Faces
    images: ImageStore
    commit_within_s: float

    async def __call__(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        picture: Picture,
        *,
        if_missing: bool,
        idempotency_key: str | None = None,
    ) -> Enrolment:
        """Add the largest face in a picture.

        Args:
            if_missing: return the matching record when there is one.
            idempotency_key: a second call with the same key returns the first call's record.

        Raises:
            ProbeError: the picture cannot be used, or is below the gallery's floor.
            NotFoundError: the tenant has no such gallery.
            UnavailableError: try again. When Postgres went away during the commit, the face may
                have been added: an idempotency key, or `if_missing`, makes the second try safe.
        """
        current = await self.catch_up(tenant, gallery_id)
        head = current.index.head
        analysis, ranking = await self.analyse.and_search(picture, current.index, 1)
        while True:
            if ranking is None:
                current = await self.catch_up(tenant, gallery_id)
                head = current.index.head
                ranking = await self.find.search(current, analysis.embedding, 1)
            if idempotency_key is not None:
                earlier = await self.enrolled_before(tenant, gallery_id, idempotency_key)
                if earlier is not None:
                    return Enrolment(earlier, added=False, score=None, faces=analysis.faces)
            if if_missing:
                best = await self.find(
                    tenant, current, analysis.embedding, ranking, current.gallery.threshold
                )
                if best:
                    return _existing(best[0], analysis)
            check_quality(analysis.faces[0].quality, current.gallery.quality_floor)
            done = await self._add(
                current, analysis, picture, head if if_missing else None, idempotency_key
            )
            if done is not None:
                return done
            ranking = None

    async def enrolled_before(
        self, tenant: TenantId, gallery_id: GalleryId, idempotency_key: str
    ) -> FaceId | None:
        """The record that an earlier call with this key came to."""
        return await self.faces.enrolled_with(tenant, gallery_id, idempotency_key)

    async def _add(
        self,
        current: Current,
        analysis: Analysis,
        picture: Picture,
        searched_head: int | None,
        idempotency_key: str | None,
    ) -> Enrolment | None:
        """Store the image, then decide and insert under the gallery's lock.

        None means that the picture has to be judged again. Only an outcome that is known deletes
        the image: after a failure of Postgres the row may be there all the same.
        """
        tenant, gallery = current.gallery.tenant_id, current.gallery
        face_id = FaceId(uuid7())
        key = image_key(tenant, gallery.gallery_id, face_id)
        stored_s = monotonic()
        with stage("store"):
            await self.images.put(key, picture.data, analysis.content_type)
        with stage("commit"):
            async with self.faces.locked(tenant, gallery) as locked:
                verdict = await self._judge(
                    locked, gallery, analysis, searched_head, idempotency_key
                )
                if verdict is Verdict.FREE:
                    if monotonic() - stored_s > self.commit_within_s:
                        raise UnavailableError("the enrolment took too long")
                    await locked.add(
                        face_id,
                        analysis.embedding,
                        content_type=analysis.content_type,
                        idempotency_key=idempotency_key,
                    )
        if verdict is Verdict.FREE:
            return Enrolment(face_id, added=True, score=None, faces=analysis.faces)
        await self._drop(key)
        return _existing(verdict, analysis) if isinstance(verdict, Candidate) else None

    async def _judge(
        self,
        locked: LockedGallery,
        gallery: Gallery,
        analysis: Analysis,
        searched_head: int | None,
        idempotency_key: str | None,
    ) -> Candidate | Verdict:
        """Under the lock: compare with only the faces added since the search."""
        if locked.gallery.model_pack_no != gallery.model_pack_no:
            return Verdict.AGAIN
        if idempotency_key is not None and await locked.enrolled_with(idempotency_key):
            return Verdict.AGAIN
        if searched_head is None or searched_head >= locked.gallery.head:
            return Verdict.FREE
        changes = await locked.changes(searched_head, len(analysis.embedding))
        if len(changes.added_face_nos) == 0:
            return Verdict.FREE
        cosines = changes.added_embeddings @ analysis.embedding
        best = int(np.argmax(cosines))
        score = self.find.calibration.score(Cosine(float(cosines[best])))
        if score < locked.gallery.threshold:
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
