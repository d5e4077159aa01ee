"""Enroll by a saved call: the face record and the call are there both, or neither is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from oneton.domain.errors import ConflictError, ProbeError, QuotaError
from oneton.domain.model import Analysis, FaceId, FaceNote, GalleryId, TenantId
from oneton.domain.requests import NewPicture, NewRequest, SavedRequest, StoredPicture
from oneton.domain.stages import stage
from oneton.images import ImageStore
from oneton.records.locked_gallery import LockedGallery
from oneton.records.requests import EventsOf, insert_request, new_picture
from oneton.verbs.analyse import Picture
from oneton.verbs.enroll import Enroll
from oneton.verbs.keep_picture import delete_objects


@dataclass(frozen=True)
class EnrollRequest:
    """Always adds; one transaction writes the face, the call, and what webhooks are told."""

    enroll: Enroll
    images: ImageStore

    async def __call__(  # noqa: PLR0913 - what both are made of
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        picture: Picture,
        new: NewRequest,
        *,
        note: FaceNote,
        pictures: Sequence[NewPicture] = (),
        events: EventsOf = lambda _: (),
        known: Mapping[int, Analysis] | None = None,
    ) -> SavedRequest:
        """Enroll the largest face of a picture, and keep the call that asked for it.

        Args:
            new: its face id is filled in.
            note: its request id is to be the call's.
            events: what webhooks are told of the call, as it is saved.
            known: analyses of this very picture, by the number of the model pack.

        Raises:
            ProbeError, NotFoundError, UnavailableError: as `Enroll`.
        """
        kept = await self._store(tenant, pictures)
        saved: list[SavedRequest] = []

        async def write(locked: LockedGallery, face_id: FaceId) -> None:
            asked = msgspec.structs.replace(new, face_id=face_id)
            saved.append(await insert_request(locked.connection, tenant, asked, kept, events))

        try:
            await self.enroll.writing(write)(
                tenant, gallery_id, picture, if_missing=False, note=note, known=known
            )
        except (ProbeError, ConflictError, QuotaError):
            # Of any other failure it is not known whether the rows are there.
            await delete_objects(self.images, kept)
            raise
        return saved[-1]

    async def _store(self, tenant: TenantId, pictures: Sequence[NewPicture]) -> list[StoredPicture]:
        kept = [new_picture(tenant, each.content_type, each.name) for each in pictures]
        with stage("store"):
            for row, each in zip(kept, pictures, strict=True):
                await self.images.put(row.key, each.data, each.content_type)
        return kept
