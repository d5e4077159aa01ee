"""Browse faces: what is known of a tenant's face records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from oneton.domain.errors import NotFoundError
from oneton.domain.model import FaceId, FaceNote, GalleryId, TenantId
from oneton.domain.screening import FaceDetails, FacePage
from oneton.images import ImageStore
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries


@dataclass(frozen=True)
class BrowseFaces:
    """Reads Postgres, no index."""

    galleries: Galleries
    faces: Faces
    images: ImageStore

    async def page(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        *,
        after: FaceId | None,
        limit: int,
        external_id: str | None = None,
        has_image: bool | None = None,
    ) -> FacePage:
        """Face records of a gallery, the oldest first.

        Raises:
            NotFoundError: the tenant has no such gallery.
        """
        gallery = await self.galleries.read(tenant, gallery_id)
        found = await self.faces.listed(
            tenant,
            gallery,
            after=after,
            limit=limit + 1,
            external_id=external_id,
            has_image=has_image,
        )
        more = len(found) > limit
        return FacePage(tuple(found[:limit]), found[limit - 1].face_id if more else None)

    async def show(self, tenant: TenantId, face_id: FaceId) -> FaceDetails:
        """One face record of any gallery.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        found = await self.faces.details(tenant, [face_id])
        if face_id not in found:
            raise NotFoundError("face record", face_id)
        return found[face_id]

    async def known(
        self, tenant: TenantId, face_ids: Sequence[FaceId]
    ) -> dict[FaceId, FaceDetails]:
        """Those of these face records that are still there."""
        return await self.faces.details(tenant, face_ids) if face_ids else {}

    async def of_reference(
        self,
        tenant: TenantId,
        *,
        external_id: str | None = None,
        request_id: UUID | None = None,
    ) -> list[FaceDetails]:
        """Face records in any gallery with this external id, or of this saved call."""
        return await self.faces.of_reference(tenant, external_id=external_id, request_id=request_id)

    async def change_note(self, tenant: TenantId, face_id: FaceId, note: FaceNote) -> None:
        """Replace what goes with a face record; NotFoundError when there is none."""
        await self.faces.change_note(tenant, face_id, note)
