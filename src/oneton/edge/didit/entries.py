"""What is on a list: values, faces of pictures, faces of earlier sessions."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from oneton.domain import errors
from oneton.domain.lists import EntryId, InvalidValueError, ListEntry, ListId, NewEntry
from oneton.domain.model import Permission
from oneton.edge.didit.answers import microseconds
from oneton.edge.didit.bodies import (
    PAGE,
    blamed_on,
    check_body,
    read_metadata,
    read_picture,
    read_window,
    refusals,
    require_live,
)
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.refusals import FieldError

UPLOADED = ("image/jpeg", "image/png", "image/webp")
IMAGE_URL = "reference_image_url"

Value = Annotated[str, msgspec.Meta(max_length=512)]
Label = Annotated[str, msgspec.Meta(max_length=255)]
Comment = Annotated[str, msgspec.Meta(max_length=2000)]


class EntryRequest(msgspec.Struct):
    """A value, or a session whose face is taken over.

    On a list of faces a value is the UUID of a face that you have enrolled or uploaded.
    """

    value: Value | None = None
    reference_session_id: UUID | None = None
    reference_object_uuid: UUID | None = None
    display_label: Label | None = None
    comment: Comment | None = None
    metadata: Any = None


class FaceUpload(msgspec.Struct):
    """A picture in base64: jpg, png or webp of at most 2 MB."""

    image: str
    comment: Comment | None = None


class EntryReply(msgspec.Struct):
    """An entry.

    Attributes:
        value: of a face, its UUID.
        metadata: yours; of a face, with a link to its picture.
    """

    uuid: EntryId
    value: str
    display_label: str
    comment: str
    added_by: str
    reference_session_id: UUID | None
    reference_session_number: int | None
    reference_object_uuid: UUID | None
    metadata: dict[str, Any] | None
    created_at: str


class EntryPage(msgspec.Struct):
    """Some of the entries, the newest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[EntryReply]


@get(
    "/v3/lists/{list_uuid:uuid}/entries",
    operation_id="diditShowEntries",
    summary="Show a list's entries",
    responses=refusals(400, 404),
    permissions=(Permission.READ,),
)
async def show_entries(
    request: Request[Any, Any, Any],
    list_uuid: FromPath[UUID],
    caller: NamedDependency[Caller],
    search: FromQuery[str] = "",
    limit: FromQuery[int] = PAGE,
    offset: FromQuery[int] = 0,
) -> EntryPage:
    """Show a list's entries; `search` is looked for in values and labels."""
    window = read_window(request, caller, limit, offset, search=search)
    tenant, keep_lists = caller.principal.tenant_id, caller.verbs.keep_lists
    of = await keep_lists.read(tenant, ListId(list_uuid))
    found, count = await keep_lists.entries(
        tenant, [of.list_id], search=search, limit=window.limit, offset=window.offset
    )
    replies = [entry_reply(caller, each) for each in found]
    return EntryPage(count, window.next(count), window.previous(), replies)


@post(
    "/v3/lists/{list_uuid:uuid}/entries",
    operation_id="diditCreateEntry",
    summary="Add an entry",
    responses=refusals(400, 404),
    status_code=201,
    permissions=(Permission.ADMIN,),
    computes=True,
)
async def create_entry(
    list_uuid: FromPath[UUID], data: JSONBody[EntryRequest], caller: NamedDependency[Caller]
) -> EntryReply:
    """Add a value, or the face of a session; on the block list the face is block-listed."""
    require_live(caller)
    check_body(data)
    new = NewEntry(
        value=data.value or "",
        display_label=data.display_label or "",
        comment=data.comment or "",
        request_id=data.reference_session_id,
        reference_id=data.reference_object_uuid,
        metadata=read_metadata(data.metadata),
    )
    tenant, keep_lists = caller.principal.tenant_id, caller.verbs.keep_lists
    of = await keep_lists.read(tenant, ListId(list_uuid))
    field = "value" if data.reference_session_id is None else "reference_session_id"
    if data.reference_session_id is None and data.value is None:
        raise FieldError("value", "Give a value or a reference_session_id.")
    try:
        with blamed_on(field):
            if data.reference_session_id is None:
                added = await keep_lists.add(tenant, of, new)
            else:
                added = await keep_lists.add_session(tenant, of, new)
    except (InvalidValueError, errors.ConflictError) as error:
        raise FieldError(field, str(error)) from error
    except errors.NotFoundError as error:
        raise FieldError(field, f"There is {error}.") from error
    return entry_reply(caller, added)


@post(
    "/v3/lists/{list_uuid:uuid}/entries/face-upload",
    operation_id="diditUploadListFace",
    summary="Add a face by its picture",
    responses=refusals(400, 404),
    status_code=201,
    permissions=(Permission.INSERT,),
    computes=True,
)
async def upload_face(
    list_uuid: FromPath[UUID], data: JSONBody[FaceUpload], caller: NamedDependency[Caller]
) -> EntryReply:
    """Add the largest face of a picture to a block list or an allow list of faces."""
    require_live(caller)
    check_body(data)
    tenant, keep_lists = caller.principal.tenant_id, caller.verbs.keep_lists
    of = await keep_lists.read(tenant, ListId(list_uuid))
    if of.gallery_id is None:
        raise FieldError("non_field_errors", "The list is no block list or allow list of faces.")
    picture = read_picture(data.image, UPLOADED)
    with blamed_on("image"):
        added = await keep_lists.add_face(tenant, of, picture, NewEntry(comment=data.comment or ""))
    return entry_reply(caller, added)


@delete(
    "/v3/lists/{list_uuid:uuid}/entries/{entry_uuid:uuid}",
    operation_id="diditDeleteEntry",
    summary="Remove an entry",
    responses=refusals(404),
    status_code=204,
    permissions=(Permission.ADMIN,),
)
async def delete_entry(
    list_uuid: FromPath[UUID], entry_uuid: FromPath[UUID], caller: NamedDependency[Caller]
) -> None:
    """Remove an entry; a face is found no more from now on, and its picture is deleted."""
    require_live(caller)
    tenant = caller.principal.tenant_id
    await caller.verbs.keep_lists.remove(tenant, ListId(list_uuid), EntryId(entry_uuid))


def entry_reply(caller: Caller, entry: ListEntry) -> EntryReply:
    """An entry as it is told."""
    metadata = None if entry.metadata is None else msgspec.json.decode(entry.metadata)
    if entry.face_id is not None:
        metadata = {**(metadata or {}), IMAGE_URL: caller.link(entry.image_key)}
    return EntryReply(
        uuid=entry.entry_id,
        value=entry.value,
        display_label=entry.display_label,
        comment=entry.comment,
        added_by=entry.added_by,
        reference_session_id=entry.request_id,
        reference_session_number=entry.request_number,
        reference_object_uuid=entry.reference_id,
        metadata=metadata,
        created_at=microseconds(entry.created_at),
    )
