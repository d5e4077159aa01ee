"""What a duplicates report reads: a gallery's faces in the order of their enrolment."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.domain.model import Face, FaceId, FaceNo, Gallery, TenantId
from oneton.records.database import Database
from oneton.records.templates import decode_templates

NAMES = 5000
"""Face records looked up at once."""


class Enrolled(msgspec.Struct, frozen=True):
    """Faces that follow each other in a gallery, with their templates.

    Attributes:
        head: every face added up to here is among these, or came before, or was purged.
        face_nos: (Q,) int64, ascending, as the heads that the faces were added at.
        embeddings: (Q, D) float32 of unit L2 norm, row for row.
        last: the public name of the last one; None when there is none.
    """

    head: int
    face_nos: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    last: FaceId | None


class EnrolledFaces:
    """Face records of one tenant at a time, a stretch of a gallery at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def after(
        self, tenant: TenantId, gallery: Gallery, since: int, dimension: int, limit: int
    ) -> Enrolled:
        """The first `limit` faces added after head `since`, up to `gallery.head`."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select face_no, added_at_head, face_id, embedding
                   from face join template using (face_no)
                   where gallery_no = $1 and model_pack_no = $2
                     and added_at_head > $3 and added_at_head <= $4
                   order by added_at_head limit $5""",
                gallery.gallery_no,
                gallery.model_pack_no,
                since,
                gallery.head,
                limit,
            )
        templates = await self._database.seals.open(
            tenant,
            b"".join(row["embedding"] for row in rows),
            [row["face_no"] for row in rows],
            sizes=[len(row["embedding"]) for row in rows],
        )
        return Enrolled(
            head=rows[-1]["added_at_head"] if len(rows) == limit else gallery.head,
            face_nos=np.array([row["face_no"] for row in rows], dtype=np.int64),
            embeddings=decode_templates(templates, dimension),
            last=FaceId(rows[-1]["face_id"]) if rows else None,
        )

    async def count(self, tenant: TenantId, gallery: Gallery, since: int, until: int) -> int:
        """How many faces that are still there were added after one head, up to another."""
        async with self._database.transaction(tenant) as connection:
            return int(
                await connection.fetchval(
                    """select count(*) from face
                       where gallery_no = $1 and removed_at_head is null
                         and added_at_head > $2 and added_at_head <= $3""",
                    gallery.gallery_no,
                    since,
                    until,
                )
            )

    async def named(
        self, tenant: TenantId, gallery: Gallery, face_nos: Iterable[FaceNo]
    ) -> dict[FaceNo, Face]:
        """The gallery's face records among these that are still there, as they are now."""
        wanted, found = sorted(face_nos), {}
        for start in range(0, len(wanted), NAMES):
            async with self._database.transaction(tenant) as connection:
                rows = await connection.fetch(
                    """select face_no, face_id, image_erased_at, image_content_type, created_at
                       from face
                       where face_no = any ($1::bigint[]) and gallery_no = $2
                         and removed_at_head is null""",
                    wanted[start : start + NAMES],
                    gallery.gallery_no,
                )
            for row in rows:
                found[FaceNo(row["face_no"])] = Face(
                    face_id=FaceId(row["face_id"]),
                    face_no=FaceNo(row["face_no"]),
                    tenant_id=tenant,
                    gallery_id=gallery.gallery_id,
                    has_image=row["image_erased_at"] is None,
                    content_type=row["image_content_type"],
                    created_at=row["created_at"],
                )
        return found
