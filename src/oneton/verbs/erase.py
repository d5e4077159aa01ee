"""Erase: delete a face record's original image; its template keeps matching."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.domain.model import FaceId, TenantId
from oneton.images import ImageStore
from oneton.records.faces import Faces


@dataclass(frozen=True)
class Erase:
    """Idempotent: the object is deleted again even when the row says it is gone."""

    faces: Faces
    images: ImageStore

    async def __call__(self, tenant: TenantId, face_id: FaceId) -> None:
        """Erase the image of a face record in any of the tenant's galleries.

        Raises:
            NotFoundError: the tenant has no such face record.
            StoreDownError: try again.
        """
        face = await self.faces.erase_image(tenant, face_id)
        await self.images.delete(face.image_key)
