"""What an export of a gallery lists: every face that is there at one head."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from oneton.domain.errors import NotFoundError
from oneton.domain.model import FaceId, GalleryId, TenantId
from oneton.records.database import Database

PREFETCH = 1000


class Listed(msgspec.Struct, frozen=True):
    """A face record as it was at the head of the export.

    Attributes:
        metadata: JSON.
    """

    face_id: FaceId
    has_image: bool
    content_type: str
    created_at: datetime
    external_id: str | None
    metadata: str | None
    source: str | None


class Exports:
    """Listings of galleries of one tenant at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listing(
        self, tenant: TenantId, gallery_id: GalleryId
    ) -> AsyncIterator[tuple[int, Listed | None]]:
        """The gallery's head, and the faces in the order of their enrolment, of one moment.

        The transaction is open for as long as this is read, so it has to be read fast.

        Returns:
            the head with each face; once with None when there is no face.

        Raises:
            NotFoundError: the tenant has no such gallery.
        """
        found = False
        async with self._database.transaction(tenant) as connection:
            rows = connection.cursor(_LISTING, gallery_id, prefetch=PREFETCH)
            async for row in rows:
                found = True
                listed = None
                if row["face_id"] is not None:
                    listed = Listed(
                        face_id=FaceId(row["face_id"]),
                        has_image=row["image_erased_at"] is None,
                        content_type=row["image_content_type"],
                        created_at=row["created_at"],
                        external_id=row["external_id"],
                        metadata=row["metadata"],
                        source=row["source"],
                    )
                yield row["head"], listed
        if not found:
            raise NotFoundError("gallery", gallery_id)


# One statement sees one moment, and the head of it.
_LISTING = """
select gallery.head, face_id, image_erased_at, image_content_type, face.created_at, external_id,
  metadata, source
from gallery left join face
  on face.gallery_no = gallery.gallery_no and face.removed_at_head is null
where gallery_id = $1 order by added_at_head"""
