"""Purge: remove a face record's image, templates and row."""

from __future__ import annotations

from dataclasses import dataclass, field

from oneton.domain.errors import NotFoundError
from oneton.domain.model import FaceId, TenantId
from oneton.images import ImageStore
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.idempotency import Idempotency
from oneton.records.reindexing import Reindexing
from oneton.verbs.searches_first import SearchesFirst


@dataclass(frozen=True)
class Purge:
    """The id is gone from every answer that begins after the commit, on every replica."""

    galleries: Galleries
    faces: Faces
    images: ImageStore
    reindexing: Reindexing
    answers: Idempotency
    searches_first: SearchesFirst = field(default_factory=SearchesFirst)

    async def __call__(self, tenant: TenantId, face_id: FaceId) -> None:
        """Purge a face record of any of the tenant's galleries.

        Raises:
            NotFoundError: the tenant has no such face record.
            StoreDownError: the record may be gone already; the sweeper takes the image then.
        """
        async with self.searches_first.change():
            await self._purge(tenant, face_id)

    async def _purge(self, tenant: TenantId, face_id: FaceId) -> None:
        try:
            face = await self.faces.find(tenant, face_id)
        except NotFoundError:
            # A cut-over removed it, and keeps its old template for a rollback.
            if await self.reindexing.purge_dropped(tenant, face_id):
                await self.answers.forget(tenant, [str(face_id)])
                return
            raise
        gallery = await self.galleries.read(tenant, face.gallery_id)
        async with self.faces.locked(tenant, gallery) as locked:
            gone = await locked.purge(face_id)
        if not gone:
            raise NotFoundError("face record", face_id)
        await self.answers.forget(tenant, [str(face_id)])
        await self.images.delete(face.image_key)
