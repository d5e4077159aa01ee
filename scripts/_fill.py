"""Galleries full of templates that no photo was needed for."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import numpy as np
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.domain.model import FaceId, Gallery
from oneton.records.templates import encode_template


async def fill(
    owner_dsn: str,
    galleries: Sequence[Gallery],
    rows: NDArray[np.float32],
    ids: Sequence[FaceId] | None = None,
) -> Sequence[FaceId]:
    """Put equally many templates in each of some empty galleries, by COPY.

    Args:
        galleries: in order of their numbers.
        rows: (N, D), the first gallery's first.
        ids: of the face records, row for row; fresh ones by default.

    Returns:
        the ids.
    """
    each = len(rows) // len(galleries)
    ids = ids or [FaceId(uuid7()) for _ in rows]
    numbers = [gallery.gallery_no for gallery in galleries]
    faces = [
        (gallery.tenant_id, gallery.gallery_no, place + 1, ids[number * each + place], "image/jpeg")
        for number, gallery in enumerate(galleries)
        for place in range(each)
    ]
    connection = await asyncpg.connect(owner_dsn, server_settings={"role": "none"})
    try:
        columns = ["tenant_id", "gallery_no", "added_at_head", "face_id", "image_content_type"]
        await connection.copy_records_to_table("face", records=faces, columns=columns)
        found = await connection.fetch(
            """select face_no, face.tenant_id, model_pack_no from face join gallery
               using (gallery_no) where gallery_no = any ($1) order by gallery_no, added_at_head""",
            numbers,
        )
        await connection.copy_records_to_table(
            "template",
            records=[(*face, encode_template(row)) for face, row in zip(found, rows, strict=True)],
            columns=["face_no", "tenant_id", "model_pack_no", "embedding"],
        )
        await connection.execute(
            "update gallery set head = $2 where gallery_no = any ($1)", numbers, each
        )
    finally:
        await connection.close()
    return ids
