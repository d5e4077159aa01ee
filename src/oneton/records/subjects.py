"""What is kept of a person, wherever it is; ids and outer names lead from one row to the next."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from oneton.domain.model import FaceId, GalleryId, TenantId, image_key
from oneton.domain.requests import StoredPicture
from oneton.domain.subjects import HeldImage, Thing, ThingKind
from oneton.records.database import Connection, Database
from oneton.records.requests import read_picture


class Links(msgspec.Struct):
    """What rows are looked for by."""

    face_ids: set[UUID] = msgspec.field(default_factory=set)
    request_ids: set[UUID] = msgspec.field(default_factory=set)
    external_ids: set[str] = msgspec.field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.face_ids or self.request_ids or self.external_ids)

    @property
    def arguments(self) -> tuple[list[UUID], list[UUID], list[str]]:
        """Of the statements below."""
        return list(self.face_ids), list(self.request_ids), list(self.external_ids)


class Subjects:
    """Rows of one tenant at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def linked(self, tenant: TenantId, links: Links) -> list[Thing]:
        """The rows that any of these leads to; those that lead on come first."""
        async with self._database.transaction(tenant) as connection:
            found: list[Thing] = []
            for kind, statement in _STATEMENTS.items():
                rows = await connection.fetch(statement, *links.arguments)
                pictures = await _pictures(connection, kind, rows)
                found += [_thing(tenant, kind, row, links, pictures) for row in rows]
        return found


_FACE_FACTS = """jsonb_build_object('gallery', g.gallery_id, 'gallery_kind', g.kind,
    'created_at', f.created_at, 'source', coalesce(f.source, 'enrolment'),
    'external_id', f.external_id, 'metadata', f.metadata, 'saved_call', f.request_id,
    'image_erased_at', f.image_erased_at)"""
_FACE = f"""
select f.face_id::text as thing_id, f.face_id, f.request_id, f.external_id, g.gallery_id,
  f.image_content_type, f.image_erased_at is null as has_image, {_FACE_FACTS} as facts
from %s f join gallery g using (gallery_no)
where f.face_id = any ($1) or f.request_id = any ($2) or f.external_id = any ($3)
order by f.face_id"""  # noqa: S608 - texts of ours
# What a call answered may show other persons; it is left out.
_REQUEST = """
select r.request_id::text as thing_id, r.face_id, r.request_id, r.external_id,
  jsonb_build_object('number', r.number, 'public_id', r.public_id, 'dialect', r.dialect,
    'kind', r.kind, 'state', r.state, 'score', r.score, 'external_id', r.external_id,
    'metadata', r.metadata, 'created_at', r.created_at, 'erased_by', r.due_at,
    'reviews', (select coalesce(jsonb_agg(jsonb_build_object('at', v.at, 'before',
        v.state_before, 'state', v.state, 'by', v.actor, 'comment', v.comment)
        order by v.review_no), '[]') from request_review v where v.request_id = r.request_id),
    'webhook_deliveries', (select coalesce(jsonb_agg(jsonb_build_object('delivery',
        o.delivery_id, 'event', o.event_type, 'to', e.url, 'created_at', o.created_at,
        'delivered_at', o.delivered_at) order by o.created_at), '[]')
      from outbox o join webhook_endpoint e using (endpoint_id)
      where o.request_id = r.request_id)) as facts
from request r
where r.face_id = any ($1) or r.request_id = any ($2) or r.external_id = any ($3)
order by r.request_id"""
_LIST_ENTRY = """
select e.entry_id::text as thing_id, e.face_id, e.list_id,
  jsonb_build_object('list', l.name, 'list_type', l.list_type, 'entry_type', l.entry_type,
    'value', e.value, 'label', e.display_label, 'comment', e.comment, 'metadata', e.metadata,
    'saved_call', e.reference_request_id, 'face_record', e.face_id,
    'created_at', e.created_at) as facts
from list_entry e join list l using (list_id)
where e.face_id = any ($1) or e.reference_id = any ($1)
  or e.reference_request_id = any ($2) or e.value = any ($3)
  or e.value = any (select face::text from unnest($1) as face)
order by e.entry_id"""
_VENDOR_USER = """
select u.user_id::text as thing_id, u.vendor_data as external_id,
  jsonb_build_object('vendor_data', u.vendor_data, 'details', u.details,
    'created_at', u.created_at) as facts
from vendor_user u
where u.vendor_data = any ($3) and $1::uuid[] is not null and $2::uuid[] is not null
order by u.user_id"""
_MERCHANT_USER = """
select u.user_id as thing_id, u.external_id,
  array(select unnest(array[u.source_id, u.target_id]) union all
    select frame_id from liveness_session s where s.user_id = u.user_id) as picture_ids,
  jsonb_build_object('name', u.name, 'email', u.email, 'phone', u.phone,
    'external_id', u.external_id, 'created_at', u.created_at,
    'uploads', (select coalesce(jsonb_agg(jsonb_build_object('upload', p.upload_id,
        'purpose', p.purpose, 'image_name', p.image_name, 'created_at', p.created_at,
        'used_at', p.used_at) order by p.created_at), '[]')
      from upload p where p.user_id = u.user_id),
    'liveness_sessions', (select coalesce(jsonb_agg(jsonb_build_object('session', s.session_id,
        'created_at', s.created_at, 'ended_at', s.ended_at) order by s.created_at), '[]')
      from liveness_session s where s.user_id = u.user_id)) as facts
from merchant_user u
where (u.external_id = any ($3) or u.user_id = any ($3))
  and $1::uuid[] is not null and $2::uuid[] is not null
order by u.user_id"""
_STATEMENTS = {
    ThingKind.FACE: _FACE % "face",
    ThingKind.DROPPED_FACE: _FACE % "reindex_drop",
    ThingKind.REQUEST: _REQUEST,
    ThingKind.LIST_ENTRY: _LIST_ENTRY,
    ThingKind.VENDOR_USER: _VENDOR_USER,
    ThingKind.MERCHANT_USER: _MERCHANT_USER,
}


async def _pictures(
    connection: Connection, kind: ThingKind, rows: Sequence[asyncpg.Record]
) -> dict[str, list[StoredPicture]]:
    """By the row that each is of."""
    found: dict[str, list[StoredPicture]] = {}
    if kind is ThingKind.REQUEST:
        of_requests = await connection.fetch(
            "select * from picture where request_id = any ($1) order by picture_id",
            [row["request_id"] for row in rows],
        )
        for row in of_requests:
            found.setdefault(str(row["request_id"]), []).append(read_picture(row))
    elif kind is ThingKind.MERCHANT_USER:
        for row in rows:
            of_user = await connection.fetch(
                "select * from picture where picture_id = any ($1) order by picture_id",
                row["picture_ids"],
            )
            found[row["thing_id"]] = [read_picture(each) for each in of_user]
    return found


def _thing(
    tenant: TenantId,
    kind: ThingKind,
    row: asyncpg.Record,
    links: Links,
    pictures: dict[str, list[StoredPicture]],
) -> Thing:
    thing_id: str = row["thing_id"]
    images = [
        HeldImage(each.name or "picture", each.key, each.content_type)
        for each in pictures.get(thing_id, [])
    ]
    face_id = None if row.get("face_id") is None else FaceId(row["face_id"])
    if kind is ThingKind.FACE and row["has_image"] and face_id is not None:
        key = image_key(tenant, GalleryId(row["gallery_id"]), face_id)
        images.append(HeldImage("image", key, row["image_content_type"]))
    return Thing(
        kind=kind,
        thing_id=thing_id,
        found_by=_found_by(row, links),
        facts=msgspec.Raw(row["facts"].encode()),
        images=tuple(images),
        face_id=face_id,
        request_id=row.get("request_id"),
        external_id=row.get("external_id"),
        list_id=row.get("list_id"),
    )


def _found_by(row: asyncpg.Record, links: Links) -> str:
    if row.get("face_id") in links.face_ids:
        return f"face record {row['face_id']}"
    if row.get("request_id") in links.request_ids:
        return f"saved call {row['request_id']}"
    if row.get("external_id") in links.external_ids:
        return f"external id {row['external_id']}"
    return "a reference"
