"""The face table as its own log: what moved a gallery from one head to another."""

from __future__ import annotations

import asyncpg
import numpy as np

from oneton.domain.model import Changes, Gallery, TenantId
from oneton.records.database import Connection
from oneton.records.template_seals import TemplateSeals
from oneton.records.templates import decode_templates

CHANGES = "select * from oneton_changes($1, $2, $3, $4, $5, $6)"


def changes_of(
    tenant: TenantId, gallery: Gallery, pack_no: int | None, since: int, limit: int | None
) -> tuple[object, ...]:
    """The arguments of `CHANGES`; without a limit it reads to the gallery's head."""
    return (
        tenant,
        gallery.gallery_no,
        gallery.model_pack_no if pack_no is None else pack_no,
        since,
        gallery.head,
        limit,
    )


async def open_templates(
    seals: TemplateSeals,
    tenant: TenantId,
    row: asyncpg.Record,
    connection: Connection | None = None,
) -> bytes:
    """The templates of a row of `CHANGES`, in plain."""
    return await seals.open(
        tenant, row["templates"], row["added"], sizes=row["sizes"], connection=connection
    )


def read_changes(row: asyncpg.Record, templates: bytes, since: int, dimension: int) -> Changes:
    """A row of `CHANGES`, its templates in plain."""
    return Changes(
        since=since,
        head=row["head"],
        added_face_nos=np.array(row["added"], dtype=np.int64),
        added_embeddings=decode_templates(templates, dimension),
        removed_face_nos=np.array(row["removed"], dtype=np.int64),
    )
