"""The older calls on the block lists, by session."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody

from oneton.domain import errors
from oneton.domain.lists import EntryType, ListEntry, NewEntry
from oneton.domain.model import Permission
from oneton.domain.requests import RequestId
from oneton.edge.didit.answers import microseconds
from oneton.edge.didit.bodies import PAGE, blamed_on, read_window, refusals, require_live
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.refusals import FieldError

ItemType = Literal["face", "document", "phone", "email"]
ITEM_TYPES: tuple[ItemType, ...] = ("face", "document", "phone", "email")


class BlockRequest(msgspec.Struct):
    """What of a session to block; of a session that face calls made there is only the face."""

    session_id: UUID
    blocklist_face: bool = False
    blocklist_document: bool = False
    blocklist_phone: bool = False
    blocklist_email: bool = False


class UnblockRequest(msgspec.Struct):
    """What of a session to block no more."""

    session_id: UUID
    unblock_face: bool = False
    unblock_document: bool = False
    unblock_phone: bool = False
    unblock_email: bool = False


class SessionReply(msgspec.Struct):
    """The session, and what of it is on a block list now."""

    session_id: UUID
    session_number: int | None
    face_blocklisted: bool


class ItemReply(msgspec.Struct):
    """Something on a block list; what it is not is null."""

    type: str
    session_id: UUID | None
    session_number: int | None
    blocklisted_at: str
    face_image: str | None
    document_type: str | None
    document_number: str | None
    phone_number: str | None
    email: str | None


class ItemPage(msgspec.Struct):
    """Some of what is blocked, the newest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[ItemReply]


@post(
    "/v3/blocklist/add",
    operation_id="diditBlockSession",
    summary="Block a session's face",
    responses=refusals(400, 404),
    status_code=200,
    permissions=(Permission.ADMIN,),
    computes=True,
)
async def block_session(
    data: JSONBody[BlockRequest], caller: NamedDependency[Caller]
) -> SessionReply:
    """Put the face of a session on the block list; again changes nothing."""
    require_live(caller)
    _check_parts(
        "blocklist_face",
        data.blocklist_face,
        {
            "blocklist_document": data.blocklist_document,
            "blocklist_phone": data.blocklist_phone,
            "blocklist_email": data.blocklist_email,
        },
    )
    tenant, verbs = caller.principal.tenant_id, caller.verbs
    request = await verbs.saved_requests.read(tenant, RequestId(data.session_id))
    of = await verbs.keep_lists.blocklist(tenant, EntryType.FACE)
    new = NewEntry(request_id=request.request_id)
    try:
        with blamed_on("session_id"):
            await verbs.keep_lists.add_session(tenant, of, new)
    except errors.ConflictError:
        pass
    except errors.NotFoundError as error:
        raise FieldError("session_id", f"There is {error}.") from error
    return SessionReply(request.request_id, request.number, face_blocklisted=True)


@post(
    "/v3/blocklist/remove",
    operation_id="diditUnblockSession",
    summary="Block a session's face no more",
    responses=refusals(400, 404),
    status_code=200,
    permissions=(Permission.ADMIN,),
)
async def unblock_session(
    data: JSONBody[UnblockRequest], caller: NamedDependency[Caller]
) -> SessionReply:
    """Take the face of a session off the block list; 404 when it is not on it."""
    require_live(caller)
    _check_parts(
        "unblock_face",
        data.unblock_face,
        {
            "unblock_document": data.unblock_document,
            "unblock_phone": data.unblock_phone,
            "unblock_email": data.unblock_email,
        },
    )
    tenant, keep_lists = caller.principal.tenant_id, caller.verbs.keep_lists
    of = await keep_lists.blocklist(tenant, EntryType.FACE)
    gone = await keep_lists.remove_session(tenant, of, data.session_id)
    if not gone:
        raise errors.NotFoundError("block-listed session", data.session_id)
    return SessionReply(data.session_id, gone[0].request_number, face_blocklisted=False)


@get(
    "/v3/blocklist",
    operation_id="diditShowBlocklist",
    summary="Show what is blocked",
    responses=refusals(400),
    permissions=(Permission.READ,),
)
async def show_blocklist(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    item_type: FromQuery[ItemType | None] = None,
    limit: FromQuery[int] = PAGE,
    offset: FromQuery[int] = 0,
) -> ItemPage:
    """Show the faces, documents, phone numbers and email addresses on the block lists."""
    window = read_window(request, caller, limit, offset, item_type=item_type or "")
    tenant, keep_lists = caller.principal.tenant_id, caller.verbs.keep_lists
    wanted = ITEM_TYPES if item_type is None else (item_type,)
    lists = [await keep_lists.blocklist(tenant, EntryType(each)) for each in wanted]
    found, count = await keep_lists.entries(
        tenant, [each.list_id for each in lists], limit=window.limit, offset=window.offset
    )
    replies = [_item(caller, each) for each in found]
    return ItemPage(count, window.next(count), window.previous(), replies)


def _check_parts(face_field: str, face: bool, others: dict[str, bool]) -> None:
    """Only the face of a session can be meant."""
    for field, is_wanted in others.items():
        if is_wanted:
            raise FieldError(field, "The session has no such data.")
    if not face:
        raise FieldError(face_field, "This field must be true.")


def _item(caller: Caller, entry: ListEntry) -> ItemReply:
    def value_of(entry_type: EntryType) -> str | None:
        return entry.value if entry.entry_type is entry_type else None

    return ItemReply(
        type=str(entry.entry_type),
        session_id=entry.request_id,
        session_number=entry.request_number,
        blocklisted_at=microseconds(entry.created_at),
        face_image=caller.link(entry.image_key),
        document_type=None,
        document_number=value_of(EntryType.DOCUMENT),
        phone_number=value_of(EntryType.PHONE),
        email=value_of(EntryType.EMAIL),
    )
