"""Keep a picture that is of no face record and no request, for some time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog

from oneton.domain.audit import Act, Action
from oneton.domain.errors import StoreDownError
from oneton.domain.model import FaceId, GalleryId, TenantId
from oneton.domain.requests import PICTURES, PictureId, StoredPicture
from oneton.domain.stages import stage
from oneton.images import ImageStore
from oneton.records.requests import Pictures, new_picture
from oneton.records.trail import Trail

log = structlog.get_logger()


@dataclass(frozen=True)
class KeepPicture:
    """A picture is stored before its row is written, and its row deleted before it is."""

    pictures: Pictures
    images: ImageStore
    trail: Trail | None = None

    async def __call__(
        self, tenant: TenantId, data: bytes, content_type: str, *, keep: timedelta | None
    ) -> StoredPicture:
        """Store a picture; the sweep erases it after `keep`, None is without end.

        Raises:
            StoreDownError: try again.
        """
        picture = new_picture(tenant, content_type)
        with stage("store"):
            await self.images.put(picture.key, data, content_type)
        await self.pictures.add(picture, keep)
        return picture

    async def read(self, tenant: TenantId, picture_id: PictureId) -> tuple[bytes, str]:
        """A picture's bytes and content type.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        return await self.images.get((await self.pictures.find(tenant, picture_id)).key)

    async def show(self, tenant: TenantId, picture_id: PictureId) -> tuple[bytes, str]:
        """The same for a caller, which the audit trail has.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        found = await self.read(tenant, picture_id)
        if self.trail is not None:
            self.trail.note(tenant, Act(Action.READ_IMAGE, details={"picture": picture_id}))
        return found

    async def erase(self, tenant: TenantId, *picture_ids: PictureId | None) -> None:
        """Erase pictures; those that are not there are no error, nor is None."""
        wanted = [each for each in picture_ids if each is not None]
        if wanted:
            await delete_objects(self.images, await self.pictures.remove(tenant, wanted))


def read_of(key: str) -> tuple[TenantId, Act]:
    """Whose an object of the image store is, and what reading it is noted as."""
    tenant, place, name = key.split("/")
    if place == PICTURES:
        return TenantId(UUID(tenant)), Act(Action.READ_IMAGE, details={"picture": name})
    act = Act(Action.READ_IMAGE, (FaceId(UUID(name)),), GalleryId(place))
    return TenantId(UUID(tenant)), act


async def delete_objects(images: ImageStore, pictures: Sequence[StoredPicture]) -> None:
    """Delete the objects of pictures whose rows are gone; what fails is left to the sweep."""
    for picture in pictures:
        try:
            await images.delete(picture.key)
        except StoreDownError as error:
            log.warning("a picture is left to the sweep", key=picture.key, error=str(error))
