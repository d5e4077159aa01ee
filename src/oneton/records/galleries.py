"""Galleries, and news of their heads."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import (
    DEFAULT_NEW_GALLERY,
    Gallery,
    GalleryId,
    GalleryKind,
    Job,
    NewGallery,
    QualityFloor,
    Score,
    SecondPack,
    TenantId,
)
from oneton.records.audit import note_act
from oneton.records.database import Connection, Database, one_row

DELETE_GALLERY = "delete_gallery"


class FaceCounts(msgspec.Struct, frozen=True):
    """How many faces a gallery has.

    Attributes:
        faces: all of them.
        erased: those whose image was erased.
    """

    faces: int
    erased: int


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
        new: NewGallery = DEFAULT_NEW_GALLERY,
    ) -> Gallery:
        """Add an empty gallery.

        Raises:
            ConflictError: the tenant has one of this name.
            NotFoundError: no such tenant.
        """
        try:
            async with self._database.transaction(tenant) as connection:
                return await insert_gallery(connection, tenant, gallery, model_pack_no, new)
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
        return read_gallery(rows[0])

    async def judge_by(
        self, tenant: TenantId, gallery: Gallery, *, threshold: Score, target_fpir: float | None
    ) -> Gallery:
        """Set what counts as a match: a score, or a target that the threshold follows."""
        async with self._database.transaction(tenant) as connection:
            row = await one_row(
                connection,
                """update gallery set threshold = $2, target_fpir = $3
                   where gallery_no = $1 returning *""",
                gallery.gallery_no,
                threshold,
                target_fpir,
            )
            await _note_change(connection, read_gallery(row))
        return read_gallery(row)

    async def change(
        self,
        tenant: TenantId,
        gallery: Gallery,
        *,
        description: str,
        threshold: Score,
        target_fpir: float | None,
    ) -> Gallery:
        """Set what may be changed of a gallery."""
        async with self._database.transaction(tenant) as connection:
            row = await one_row(
                connection,
                """update gallery set description = $2, threshold = $3, target_fpir = $4
                   where gallery_no = $1 returning *""",
                gallery.gallery_no,
                description,
                threshold,
                target_fpir,
            )
            await _note_change(connection, read_gallery(row))
        return read_gallery(row)

    async def delete(self, tenant: TenantId, gallery: Gallery) -> Job:
        """Hide a gallery from everybody, and put down the job that erases what it holds.

        Raises:
            ConflictError: it is being re-embedded.
        """
        async with self._database.transaction(tenant) as connection:
            gallery_no = await connection.fetchval(
                "select oneton_delete_gallery($1, $2)", tenant, gallery.gallery_id
            )
            if gallery_no is None:
                raise ConflictError(f"gallery {gallery.gallery_id} is being re-embedded")
            await connection.execute(
                "select pg_notify('oneton_head', $1)", f"{tenant} {gallery.gallery_id}"
            )
            row = await one_row(
                connection,
                """insert into job (job_id, tenant_id, kind, subject, subject_no, total)
                   values ($1, $2, $3, $4, $5, (
                     select count(*) from face where gallery_no = $5 and face_id is not null))
                   returning *""",
                uuid7(),
                tenant,
                DELETE_GALLERY,
                gallery.gallery_id,
                gallery_no,
            )
            act = Act(Action.DELETE_GALLERY, (), gallery.gallery_id, {"job": row["job_id"]})
            await note_act(connection, tenant, act)
        return read_job(row)

    async def gone(self, kept: Sequence[tuple[TenantId, int]]) -> set[int]:
        """Those numbers of galleries that are no more, though their tenants are.

        What is of tenants that are not here may be another database's.
        """
        rows = await self._database.fetch(
            "select oneton_galleries_gone($1, $2) as gallery_no",
            [tenant for tenant, _ in kept],
            [gallery_no for _, gallery_no in kept],
        )
        return {int(row["gallery_no"]) for row in rows}

    async def count(self, tenant: TenantId, gallery: Gallery) -> FaceCounts:
        """How many faces a gallery has."""
        async with self._database.transaction(tenant) as connection:
            row = await one_row(
                connection,
                """select count(*) as faces, count(image_erased_at) as erased from face
                   where gallery_no = $1 and removed_at_head is null""",
                gallery.gallery_no,
            )
        return FaceCounts(row["faces"], row["erased"])

    async def list(self, tenant: TenantId) -> list[Gallery]:
        """A tenant's galleries by name."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch("select * from gallery order by gallery_id")
        return [read_gallery(row) for row in rows]


async def _note_change(connection: Connection, gallery: Gallery) -> None:
    details = {"threshold": gallery.threshold, "target_fpir": gallery.target_fpir}
    act = Act(Action.CHANGE_GALLERY, (), gallery.gallery_id, details)
    await note_act(connection, gallery.tenant_id, act)


async def insert_gallery(
    connection: Connection,
    tenant: TenantId,
    gallery: GalleryId,
    model_pack_no: int,
    new: NewGallery,
) -> Gallery:
    """Insert an empty gallery's row within a transaction of its tenant.

    Raises:
        NotFoundError: no such tenant, or it is being deleted.
    """
    # Whoever deletes the tenant waits for this lock, and then sees the gallery.
    if not await connection.fetchval(
        "select true from tenant where tenant_id = $1 and deleted_at is null for share", tenant
    ):
        raise NotFoundError("tenant", tenant)
    row = await one_row(
        connection,
        """insert into gallery (tenant_id, gallery_id, kind, model_pack_no, threshold,
             floor_size_px, floor_sharpness, floor_exposure, target_fpir, description)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning *""",
        tenant,
        gallery,
        str(new.kind),
        model_pack_no,
        new.threshold,
        new.floor.size_px,
        new.floor.sharpness,
        new.floor.exposure,
        new.target_fpir,
        new.description,
    )
    act = Act(Action.CREATE_GALLERY, (), gallery, {"kind": str(new.kind)})
    await note_act(connection, tenant, act)
    return read_gallery(row)


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
    return read_gallery(row)


async def move_head(connection: Connection, gallery: Gallery, *, by: int = 1) -> int:
    """Move a locked gallery's head, tell every replica at the commit, return it.

    Args:
        by: how many changes there are.
    """
    head = gallery.head + by
    await connection.execute(
        """with moved as (update gallery set head = $2 where gallery_no = $1)
           select pg_notify('oneton_head', $3)""",
        gallery.gallery_no,
        head,
        f"{gallery.tenant_id} {gallery.gallery_id}",
    )
    return head


def read_job(row: asyncpg.Record) -> Job:
    """A job of its row."""
    return Job(**{name: row[name] for name in Job.__struct_fields__})


def read_gallery(row: asyncpg.Record) -> Gallery:
    """A gallery of its row."""
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
        target_fpir=row["target_fpir"],
        description=row["description"],
        created_at=row["created_at"],
        second_pack_no=row["second_pack_no"],
        model_fill=row["model_fill"],
        second_fill=row["second_fill"],
        second=None if row["second"] is None else SecondPack(row["second"]),
    )
