"""The face table, which is its own log, and the templates beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.domain.audit import Act, Action
from oneton.domain.errors import NotFoundError
from oneton.domain.model import (
    Changes,
    Face,
    FaceId,
    FaceNo,
    FaceNote,
    FaceSource,
    Gallery,
    GalleryId,
    GalleryKind,
    TenantId,
    image_key,
)
from oneton.domain.requests import RequestState
from oneton.domain.screening import FaceDetails
from oneton.records.audit import note_act
from oneton.records.database import Database, read_json, write_json
from oneton.records.face_log import CHANGES, changes_of, open_templates, read_changes
from oneton.records.galleries import lock_gallery
from oneton.records.locked_gallery import LockedGallery, enrolled_with_each

CHUNK = 20_000
"""Templates read at once: 20 MB at 512 dimensions."""
LOAD_CHUNK = 131_072
"""Likewise, when a whole gallery is read."""


class Stamp(msgspec.Struct, frozen=True):
    """What Postgres has of a face, for telling whether it is the one that a snapshot holds."""

    removed_at_head: int | None
    template: bytes | None

    def removed_after(self, head: int) -> bool:
        """Whether the face was there at that head, and is gone."""
        return self.removed_at_head is not None and self.removed_at_head > head


class Faces:
    """Face records and templates of one tenant at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def changes(
        self,
        tenant: TenantId,
        gallery: Gallery,
        since: int,
        dimension: int,
        *,
        pack_no: int | None = None,
        chunk: int = CHUNK,
    ) -> AsyncGenerator[Changes, None]:
        """What moved the gallery from head `since` to `gallery.head`, a chunk at a time.

        Faces added and removed again in between are left out.

        Args:
            pack_no: of the templates; None is the pack that answers.
        """
        while since < gallery.head:
            arguments = changes_of(tenant, gallery, pack_no, since, chunk)
            rows = await self._database.fetch(CHANGES, *arguments)
            templates = await open_templates(self._database.seals, tenant, rows[0])
            yield (changes := read_changes(rows[0], templates, since, dimension))
            since = changes.head

    async def stamps(
        self, tenant: TenantId, gallery: Gallery, pack_no: int, face_nos: Sequence[int]
    ) -> dict[FaceNo, Stamp]:
        """What is there of these faces of a gallery, under a model pack."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select face.face_no, removed_at_head, embedding from face
                   left join template t on t.face_no = face.face_no and t.model_pack_no = $3
                   where gallery_no = $1 and face.face_no = any ($2)""",
                gallery.gallery_no,
                list(face_nos),
                pack_no,
            )
        found = {}
        for row in rows:
            template = None if row["embedding"] is None else bytes(row["embedding"])
            if template is not None:
                template = await self._database.seals.open(tenant, template, [row["face_no"]])
            found[FaceNo(row["face_no"])] = Stamp(row["removed_at_head"], template)
        return found

    async def ids(
        self, tenant: TenantId, face_nos: Sequence[int] | NDArray[np.int64]
    ) -> dict[FaceNo, FaceId]:
        """The public names of the face records among these that are still there."""
        rows = await self._database.fetch(
            "select * from oneton_face_ids($1, $2)", tenant, [int(face_no) for face_no in face_nos]
        )
        return {FaceNo(row["face_no"]): FaceId(row["face_id"]) for row in rows}

    async def find(self, tenant: TenantId, face_id: FaceId) -> Face:
        """A face record of any of the tenant's galleries.

        Raises:
            NotFoundError: the tenant has none of this id, or it was purged.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                """select face.*, gallery_id from face join gallery using (gallery_no)
                   where face_id = $1""",
                face_id,
            )
        if row is None:
            raise NotFoundError("face record", face_id)
        return _face(row)

    async def enrolled_with(
        self, tenant: TenantId, gallery_id: GalleryId, idempotency_key: str
    ) -> FaceId | None:
        """The face record that was enrolled under this idempotency key, if any."""
        async with self._database.transaction(tenant) as connection:
            found = await connection.fetchval(
                """select face_id from face join gallery using (gallery_no)
                   where gallery_id = $1 and idempotency_key = $2""",
                gallery_id,
                idempotency_key,
            )
        return None if found is None else FaceId(found)

    async def enrolled_with_each(
        self, tenant: TenantId, gallery: Gallery, keys: Sequence[str]
    ) -> dict[str, FaceId]:
        """The face records that were enrolled under these idempotency keys, by key."""
        async with self._database.transaction(tenant) as connection:
            return await enrolled_with_each(connection, gallery, keys)

    async def page(
        self, tenant: TenantId, gallery: Gallery, after: FaceId | None, limit: int
    ) -> list[Face]:
        """Face records of a gallery in order of id, the first `limit` after `after`."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select face.*, gallery_id from face join gallery using (gallery_no)
                   where gallery_no = $1 and face_id is not null
                     and ($2::uuid is null or face_id > $2)
                   order by face_id limit $3""",
                gallery.gallery_no,
                after,
                limit,
            )
        return [_face(row) for row in rows]

    async def details(
        self, tenant: TenantId, face_ids: Sequence[FaceId]
    ) -> dict[FaceId, FaceDetails]:
        """What is known of those of these face records that are still there."""
        rows = await self._database.fetch(
            "select * from oneton_face_details($1, $2, '{}')", tenant, list(face_ids)
        )
        return {FaceId(row["face_id"]): _details(row) for row in rows}

    async def details_of(
        self, tenant: TenantId, face_nos: Sequence[int]
    ) -> dict[FaceNo, FaceDetails]:
        """The same by the row numbers that an index has."""
        rows = await self._database.fetch(
            "select * from oneton_face_details($1, '{}', $2)", tenant, list(face_nos)
        )
        return {FaceNo(row["face_no"]): _details(row) for row in rows}

    async def listed(
        self,
        tenant: TenantId,
        gallery: Gallery,
        *,
        after: FaceId | None,
        limit: int,
        external_id: str | None = None,
        has_image: bool | None = None,
    ) -> list[FaceDetails]:
        """Face records of a gallery in order of id, the first `limit` after `after`.

        Args:
            external_id: only those with this one.
            has_image: only those with, or without, an image.
        """
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select face_id from face
                   where gallery_no = $1 and face_id is not null
                     and ($2::uuid is null or face_id > $2)
                     and ($4::text is null or external_id = $4)
                     and ($5::boolean is null or (image_erased_at is null) = $5)
                   order by face_id limit $3""",
                gallery.gallery_no,
                after,
                limit,
                external_id,
                has_image,
            )
        found = await self.details(tenant, [FaceId(row["face_id"]) for row in rows])
        return [found[row["face_id"]] for row in rows if row["face_id"] in found]

    async def of_reference(
        self,
        tenant: TenantId,
        *,
        external_id: str | None = None,
        request_id: UUID | None = None,
    ) -> list[FaceDetails]:
        """Face records in any gallery with this external id, or of this saved call."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select face_id from face join gallery using (gallery_no)
                   where (external_id = $1 or request_id = $2) and face_id is not null
                   order by face_id""",
                external_id,
                request_id,
            )
        found = await self.details(tenant, [FaceId(row["face_id"]) for row in rows])
        return [found[row["face_id"]] for row in rows if row["face_id"] in found]

    async def change_note(self, tenant: TenantId, face_id: FaceId, note: FaceNote) -> None:
        """Replace what goes with a face record.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            done = await connection.fetchval(
                """update face set external_id = $2, metadata = $3, source = $4, request_id = $5
                   where face_id = $1 and gallery_no in (select gallery_no from gallery)
                   returning true""",
                face_id,
                note.external_id,
                write_json(note.metadata),
                None if note.source is None else str(note.source),
                note.request_id,
            )
            if done:
                await note_act(connection, tenant, Act(Action.CHANGE_FACE, (face_id,)))
        if not done:
            raise NotFoundError("face record", face_id)

    async def erase_image(self, tenant: TenantId, face_id: FaceId) -> Face:
        """Note that a face record's image is no more; again is no error.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                """update face set image_erased_at = coalesce(image_erased_at, now())
                   from gallery
                   where face_id = $1 and gallery.gallery_no = face.gallery_no
                   returning face.*, gallery_id""",
                face_id,
            )
            if row is not None:
                act = Act(Action.ERASE, (face_id,), GalleryId(row["gallery_id"]))
                await note_act(connection, tenant, act)
        if row is None:
            raise NotFoundError("face record", face_id)
        return _face(row)

    @asynccontextmanager
    async def locked(self, tenant: TenantId, gallery: Gallery) -> AsyncIterator[LockedGallery]:
        """Hold a gallery's lock until the block ends, then commit; an error undoes all."""
        await self._database.seals.prepare(tenant)
        async with self._database.transaction(tenant) as connection:
            locked = await lock_gallery(connection, gallery)
            yield LockedGallery(connection, locked, self._database.seals)


def _face(row: asyncpg.Record) -> Face:
    return Face(
        face_id=FaceId(row["face_id"]),
        face_no=FaceNo(row["face_no"]),
        tenant_id=TenantId(row["tenant_id"]),
        gallery_id=GalleryId(row["gallery_id"]),
        has_image=row["image_erased_at"] is None,
        content_type=row["image_content_type"],
        created_at=row["created_at"],
        note=read_note(row),
    )


def _details(row: asyncpg.Record) -> FaceDetails:
    gallery_id, face_id = GalleryId(row["gallery_id"]), FaceId(row["face_id"])
    state = row["request_state"]
    return FaceDetails(
        face_id=face_id,
        gallery_id=gallery_id,
        kind=GalleryKind(row["kind"]),
        image_key=(
            image_key(TenantId(row["tenant_id"]), gallery_id, face_id)
            if row["image_erased_at"] is None
            else None
        ),
        created_at=row["created_at"],
        note=read_note(row),
        request_id=row["request_id"] if state is not None else None,
        request_number=row["request_number"],
        request_public_id=row["request_public_id"],
        request_kind=row["request_kind"],
        request_dialect=row["request_dialect"],
        request_state=None if state is None else RequestState(state),
    )


def read_note(row: asyncpg.Record) -> FaceNote:
    """What goes with a face record of this row."""
    return FaceNote(
        external_id=row["external_id"],
        metadata=read_json(row["metadata"]),
        source=None if row["source"] is None else FaceSource(row["source"]),
        request_id=row["request_id"],
    )
