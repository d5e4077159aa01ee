"""Manage galleries: make, list, change and delete a tenant's sets of faces."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from oneton.biometrics.calibration import Calibration
from oneton.domain.errors import ConflictError
from oneton.domain.model import (
    Gallery,
    GalleryId,
    Job,
    ModelPack,
    NewGallery,
    Score,
    TenantId,
)
from oneton.records.galleries import FaceCounts, Galleries
from oneton.verbs.judge import threshold_of
from oneton.verbs.load_model import FindPack


class ShownGallery(msgspec.Struct, frozen=True):
    """A gallery with its size and what counts as a match in it now.

    Attributes:
        threshold: the least score; with a target it follows the size.
    """

    gallery: Gallery
    counts: FaceCounts
    pack: ModelPack
    threshold: Score


@dataclass(frozen=True)
class ManageGalleries:
    """A new gallery has the model pack that settings name."""

    galleries: Galleries
    packs: FindPack

    async def create(self, tenant: TenantId, gallery_id: GalleryId, new: NewGallery) -> Gallery:
        """Add an empty gallery; ConflictError when there is one of this name."""
        return await self.galleries.create(
            tenant, gallery_id, model_pack_no=self.packs.own_no, new=new
        )

    async def ensure(self, tenant: TenantId, gallery_id: GalleryId, new: NewGallery) -> Gallery:
        """The gallery of this name, made when there is none."""
        for gallery in await self.galleries.list(tenant):
            if gallery.gallery_id == gallery_id:
                return gallery
        try:
            return await self.create(tenant, gallery_id, new)
        except ConflictError:
            return await self.galleries.read(tenant, gallery_id)

    async def list(self, tenant: TenantId) -> list[Gallery]:
        """A tenant's galleries by name."""
        return await self.galleries.list(tenant)

    async def show(self, tenant: TenantId, gallery_id: GalleryId) -> ShownGallery:
        """One gallery; NotFoundError when there is none of this name."""
        gallery = await self.galleries.read(tenant, gallery_id)
        counts = await self.galleries.count(tenant, gallery)
        files, calibration = await self.packs(gallery.model_pack_no)
        return ShownGallery(gallery, counts, files.pack, _threshold(gallery, counts, calibration))

    async def change(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        *,
        description: str | None = None,
        threshold: Score | None = None,
        target_fpir: float | None = None,
    ) -> ShownGallery:
        """Change a gallery; None leaves as it is. A threshold ends a target, and a target it.

        Raises:
            NotFoundError: the tenant has none of this name.
        """
        gallery = await self.galleries.read(tenant, gallery_id)
        if threshold is None and target_fpir is None:
            target_fpir = gallery.target_fpir
        await self.galleries.change(
            tenant,
            gallery,
            description=gallery.description if description is None else description,
            threshold=gallery.threshold if threshold is None else threshold,
            target_fpir=target_fpir,
        )
        return await self.show(tenant, gallery_id)

    async def delete(self, tenant: TenantId, gallery_id: GalleryId) -> Job:
        """Hide a gallery from everybody at once; a job erases what it holds.

        Raises:
            NotFoundError: the tenant has none of this name.
            ConflictError: it is being re-embedded.
        """
        return await self.galleries.delete(tenant, await self.galleries.read(tenant, gallery_id))


def _threshold(gallery: Gallery, counts: FaceCounts, calibration: Calibration) -> Score:
    return threshold_of(gallery, counts.faces, calibration)
