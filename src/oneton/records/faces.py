"""The face table, which is its own log, and the templates beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import (
    NO_NOTE,
    Changes,
    Embedding,
    Face,
    FaceId,
    FaceNo,
    FaceNote,
    FaceSource,
    Gallery,
    GalleryId,
    GalleryKind,
    SecondPack,
    TenantId,
    image_key,
)
from oneton.domain.requests import RequestState
from oneton.domain.screening import FaceDetails
from oneton.records.audit import note_act, note_acts
from oneton.records.database import Connection, Database, one_row, read_json, write_json
from oneton.records.galleries import lock_gallery, move_head
from oneton.records.template_seals import TemplateSeals
from oneton.records.templates import decode_templates, encode_template

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


class NewFace(msgspec.Struct, frozen=True):
    """A face record to insert.

    Attributes:
        embeddings: one of each of the gallery's packs, by number; None is for a second pack that
            found no face.
    """

    face_id: FaceId
    embeddings: Mapping[int, Embedding | None]
    content_type: str
    idempotency_key: str | None = None
    note: FaceNote = NO_NOTE


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
            arguments = _changes_of(tenant, gallery, pack_no, since, chunk)
            rows = await self._database.fetch(_CHANGES, *arguments)
            templates = await _open(self._database.seals, tenant, rows[0])
            yield (changes := _read_changes(rows[0], templates, since, dimension))
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
            return await _enrolled_with_each(connection, gallery, keys)

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


class LockedGallery:
    """A gallery that nobody else can change until the transaction ends."""

    def __init__(self, connection: Connection, gallery: Gallery, seals: TemplateSeals) -> None:
        self._connection = connection
        self._seals = seals
        self.gallery = gallery

    @property
    def connection(self) -> Connection:
        """Its transaction, for what is written together with a face."""
        return self._connection

    async def changes(self, since: int, dimension: int, pack_no: int | None = None) -> Changes:
        """What moved the gallery from head `since` to now, as `Faces.changes`."""
        arguments = _changes_of(self.gallery.tenant_id, self.gallery, pack_no, since, None)
        row = await one_row(self._connection, _CHANGES, *arguments)
        tenant = self.gallery.tenant_id
        templates = await _open(self._seals, tenant, row, self._connection)
        return _read_changes(row, templates, since, dimension)

    async def face_id(self, face_no: FaceNo) -> FaceId:
        """The public name of a face record that is there."""
        return FaceId(
            await self._connection.fetchval("select face_id from face where face_no = $1", face_no)
        )

    async def enrolled_with(self, idempotency_key: str) -> FaceId | None:
        """As `Faces.enrolled_with`, under the lock."""
        found = await self._connection.fetchval(
            "select face_id from face where gallery_no = $1 and idempotency_key = $2",
            self.gallery.gallery_no,
            idempotency_key,
        )
        return None if found is None else FaceId(found)

    async def enrolled_with_each(self, keys: Sequence[str]) -> dict[str, FaceId]:
        """As `Faces.enrolled_with_each`, under the lock."""
        return await _enrolled_with_each(self._connection, self.gallery, keys)

    async def add(
        self,
        face_id: FaceId,
        embeddings: Embedding | Mapping[int, Embedding | None],
        *,
        content_type: str,
        idempotency_key: str | None,
        note: FaceNote = NO_NOTE,
    ) -> int:
        """Insert a face record and its templates; return the head it was added at.

        Args:
            embeddings: one of each of the gallery's packs, by number; or the only one. None is
                for a second pack that found no face.

        Raises:
            ConflictError: the gallery has a face under this idempotency key.
        """
        if not isinstance(embeddings, Mapping):
            embeddings = {self.gallery.model_pack_no: embeddings}
        return await self.add_many(
            [NewFace(face_id, embeddings, content_type, idempotency_key, note)]
        )

    async def add_many(self, faces: Sequence[NewFace]) -> int:
        """Insert face records in this order, each at a head of its own; return the last head.

        Once for each lock: the gallery's head is read when it is taken.

        Args:
            faces: at least one.

        Raises:
            ConflictError: the gallery has a face under one of the idempotency keys.
        """
        packs = self.gallery.pack_nos
        assert all(set(each.embeddings) == set(packs) for each in faces), "a template of each pack"
        lacks_second = any(each.embeddings[no] is None for each in faces for no in packs[1:])
        assert not (lacks_second and self.gallery.second is SecondPack.FILLED), "both templates"
        head = await move_head(self._connection, self.gallery, by=len(faces))
        if lacks_second and self.gallery.second is SecondPack.KEPT:
            # An index of the old pack would miss this face: it must not answer any more.
            await self._connection.execute(
                "update gallery set second = $2 where gallery_no = $1",
                self.gallery.gallery_no,
                str(SecondPack.KEPT_PARTLY),
            )
        try:
            await self._insert(faces)
        except asyncpg.UniqueViolationError as error:
            keys = ", ".join(str(each.idempotency_key) for each in faces[:3])
            raise ConflictError(f"a face was enrolled as {keys} already") from error
        gallery = self.gallery
        acts = [Act(Action.ENROLL, (each.face_id,), gallery.gallery_id) for each in faces]
        await note_acts(self._connection, gallery.tenant_id, acts)
        return head

    async def _insert(self, faces: Sequence[NewFace]) -> None:
        templates = [
            (each.face_id, no, encode_template(embedding))
            for each in faces
            for no, embedding in each.embeddings.items()
            if embedding is not None
        ]
        sealed = await self._seals.seal(
            self._connection, self.gallery.tenant_id, [template for _, _, template in templates]
        )
        await self._connection.execute(
            _INSERT,
            self.gallery.tenant_id,
            self.gallery.gallery_no,
            self.gallery.head,
            [each.face_id for each in faces],
            [each.content_type for each in faces],
            [each.idempotency_key for each in faces],
            [each.note.external_id for each in faces],
            [write_json(each.note.metadata) for each in faces],
            [None if each.note.source is None else str(each.note.source) for each in faces],
            [each.note.request_id for each in faces],
            [face_id for face_id, _, _ in templates],
            [pack_no for _, pack_no, _ in templates],
            sealed,
        )

    async def purge(self, face_id: FaceId) -> bool:
        """Remove a face record and its templates; False when it is gone already.

        What stays of the row are its number and the two heads.
        """
        # Locked, or a re-embedding that is just being written would outlive its face.
        face_no = await self._connection.fetchval(
            "select face_no from face where gallery_no = $1 and face_id = $2 for update",
            self.gallery.gallery_no,
            face_id,
        )
        if face_no is None:
            return False
        head = await move_head(self._connection, self.gallery)
        await self._connection.execute("delete from template where face_no = $1", face_no)
        await self._connection.execute(
            """update face set removed_at_head = $2, face_id = null, image_content_type = null,
                 image_erased_at = null, idempotency_key = null, created_at = null,
                 external_id = null, metadata = null, source = null, request_id = null
               where face_no = $1""",
            face_no,
            head,
        )
        act = Act(Action.PURGE, (face_id,), self.gallery.gallery_id)
        await note_act(self._connection, self.gallery.tenant_id, act)
        return True


_CHANGES = "select * from oneton_changes($1, $2, $3, $4, $5, $6)"
# Numbers are given in the order of the heads, for the sort comes before them.
_INSERT = """
with given as (
  select * from unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::text[],
    $10::uuid[]) with ordinality
    as t (face_id, content_type, key, external_id, metadata, source, request_id, nth)),
added as (
  insert into face (tenant_id, gallery_no, added_at_head, face_id, image_content_type,
    idempotency_key, external_id, metadata, source, request_id)
  select $1, $2, $3 + nth, face_id, content_type, key, external_id, metadata, source, request_id
  from given order by nth returning face_no, face_id)
insert into template (model_pack_no, face_no, tenant_id, embedding)
select model_pack_no, face_no, $1, embedding
from unnest($11::uuid[], $12::bigint[], $13::bytea[]) as t (face_id, model_pack_no, embedding)
join added using (face_id)"""


async def _enrolled_with_each(
    connection: Connection, gallery: Gallery, keys: Sequence[str]
) -> dict[str, FaceId]:
    rows = await connection.fetch(
        """select idempotency_key, face_id from face
           where gallery_no = $1 and idempotency_key = any ($2::text[])""",
        gallery.gallery_no,
        list(keys),
    )
    return {row["idempotency_key"]: FaceId(row["face_id"]) for row in rows}


def _changes_of(
    tenant: TenantId, gallery: Gallery, pack_no: int | None, since: int, limit: int | None
) -> tuple[object, ...]:
    """The arguments of `_CHANGES`."""
    return (
        tenant,
        gallery.gallery_no,
        gallery.model_pack_no if pack_no is None else pack_no,
        since,
        gallery.head,
        limit,
    )


async def _open(
    seals: TemplateSeals,
    tenant: TenantId,
    row: asyncpg.Record,
    connection: Connection | None = None,
) -> bytes:
    """The templates of a row of `_CHANGES`, in plain."""
    return await seals.open(
        tenant, row["templates"], row["added"], sizes=row["sizes"], connection=connection
    )


def _read_changes(row: asyncpg.Record, templates: bytes, since: int, dimension: int) -> Changes:
    return Changes(
        since=since,
        head=row["head"],
        added_face_nos=np.array(row["added"], dtype=np.int64),
        added_embeddings=decode_templates(templates, dimension),
        removed_face_nos=np.array(row["removed"], dtype=np.int64),
    )


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
