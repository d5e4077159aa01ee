"""A gallery under its lock: what is added to it and purged from it, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg
import msgspec

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError
from oneton.domain.model import (
    NO_NOTE,
    Changes,
    Embedding,
    FaceId,
    FaceNo,
    FaceNote,
    Gallery,
    SecondPack,
)
from oneton.records.audit import note_act, note_acts
from oneton.records.database import Connection, one_row, write_json
from oneton.records.face_log import CHANGES, changes_of, open_templates, read_changes
from oneton.records.galleries import move_head
from oneton.records.template_seals import TemplateSeals
from oneton.records.templates import encode_template


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
        arguments = changes_of(self.gallery.tenant_id, self.gallery, pack_no, since, None)
        row = await one_row(self._connection, CHANGES, *arguments)
        tenant = self.gallery.tenant_id
        templates = await open_templates(self._seals, tenant, row, self._connection)
        return read_changes(row, templates, since, dimension)

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
        return await enrolled_with_each(self._connection, self.gallery, keys)

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


async def enrolled_with_each(
    connection: Connection, gallery: Gallery, keys: Sequence[str]
) -> dict[str, FaceId]:
    """The face records that were enrolled under these idempotency keys, by key."""
    rows = await connection.fetch(
        """select idempotency_key, face_id from face
           where gallery_no = $1 and idempotency_key = any ($2::text[])""",
        gallery.gallery_no,
        list(keys),
    )
    return {row["idempotency_key"]: FaceId(row["face_id"]) for row in rows}


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
