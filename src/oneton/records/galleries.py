"""Galleries, the model packs they use, and news of their heads."""

from __future__ import annotations

import asyncpg

from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import (
    Gallery,
    GalleryId,
    GalleryKind,
    ModelPack,
    QualityFloor,
    Score,
    TenantId,
)
from oneton.records.database import Connection, Database, one_row


class Galleries:
    """A tenant's named sets of faces."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: TenantId,
        gallery: GalleryId,
        *,
        model_pack_no: int,
        threshold: Score,
        kind: GalleryKind = GalleryKind.ENROLLMENT,
        floor: QualityFloor | None = None,
    ) -> Gallery:
        """Add an empty gallery.

        Raises:
            ConflictError: the tenant has one of this name.
            NotFoundError: no such tenant.
        """
        try:
            async with self._database.transaction(tenant) as connection:
                return await insert_gallery(
                    connection, tenant, gallery, model_pack_no, threshold, kind, floor
                )
        except asyncpg.UniqueViolationError as error:
            raise ConflictError(f"there is a gallery named {gallery} already") from error
        except asyncpg.ForeignKeyViolationError as error:
            raise NotFoundError("tenant", tenant) from error

    async def read(self, tenant: TenantId, gallery: GalleryId) -> Gallery:
        """A gallery as the last commit left it.

        Raises:
            NotFoundError: the tenant has none of this name.
        """
        rows = await self._database.fetch("select * from oneton_gallery($1, $2)", tenant, gallery)
        if not rows:
            raise NotFoundError("gallery", gallery)
        return _gallery(rows[0])

    async def list(self, tenant: TenantId) -> list[Gallery]:
        """A tenant's galleries by name."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch("select * from gallery order by gallery_id")
        return [_gallery(row) for row in rows]


class ModelPacks:
    """The model packs that galleries were made with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def number(self, pack: ModelPack) -> int:
        """The pack's number here; given when it is first asked for."""
        await self._database.fetch(
            """insert into model_pack (name, sha256, dimension) values ($1, $2, $3)
               on conflict do nothing""",
            pack.name,
            pack.sha256,
            pack.dimension,
        )
        rows = await self._database.fetch(
            "select model_pack_no from model_pack where name = $1 and sha256 = $2",
            pack.name,
            pack.sha256,
        )
        return int(rows[0]["model_pack_no"])

    async def named(self, model_pack_no: int) -> ModelPack:
        """The pack of a number that a gallery holds."""
        rows = await self._database.fetch(
            "select name, sha256, dimension from model_pack where model_pack_no = $1",
            model_pack_no,
        )
        if not rows:
            raise NotFoundError("model pack", model_pack_no)
        return ModelPack(rows[0]["name"], rows[0]["sha256"], rows[0]["dimension"])


async def insert_gallery(
    connection: Connection,
    tenant: TenantId,
    gallery: GalleryId,
    model_pack_no: int,
    threshold: Score,
    kind: GalleryKind = GalleryKind.ENROLLMENT,
    floor: QualityFloor | None = None,
) -> Gallery:
    """Insert an empty gallery's row within a transaction of its tenant."""
    floor = floor or QualityFloor()
    row = await one_row(
        connection,
        """insert into gallery (tenant_id, gallery_id, kind, model_pack_no, threshold,
             floor_size_px, floor_sharpness, floor_exposure)
           values ($1, $2, $3, $4, $5, $6, $7, $8) returning *""",
        tenant,
        gallery,
        str(kind),
        model_pack_no,
        threshold,
        floor.size_px,
        floor.sharpness,
        floor.exposure,
    )
    return _gallery(row)


async def lock_gallery(connection: Connection, gallery: Gallery) -> Gallery:
    """Read a gallery's row and keep every other change to it waiting until the commit.

    Raises:
        NotFoundError: it is gone.
    """
    row = await connection.fetchrow(
        "select * from gallery where gallery_no = $1 for no key update", gallery.gallery_no
    )
    if row is None:
        raise NotFoundError("gallery", gallery.gallery_id)
    return _gallery(row)


async def move_head(connection: Connection, gallery: Gallery) -> int:
    """Move a locked gallery's head by one, tell every replica at the commit, return it."""
    head = gallery.head + 1
    await connection.execute(
        """with moved as (update gallery set head = $2 where gallery_no = $1)
           select pg_notify('oneton_head', $3)""",
        gallery.gallery_no,
        head,
        f"{gallery.tenant_id} {gallery.gallery_id}",
    )
    return head


def _gallery(row: asyncpg.Record) -> Gallery:
    return Gallery(
        tenant_id=TenantId(row["tenant_id"]),
        gallery_id=GalleryId(row["gallery_id"]),
        gallery_no=row["gallery_no"],
        kind=GalleryKind(row["kind"]),
        model_pack_no=row["model_pack_no"],
        head=row["head"],
        threshold=Score(row["threshold"]),
        quality_floor=QualityFloor(
            row["floor_size_px"], row["floor_sharpness"], row["floor_exposure"]
        ),
    )
