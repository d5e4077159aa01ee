"""Lists of blocked, trusted and watched values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody
from uuid_utils.compat import uuid7

from oneton.domain import errors
from oneton.domain.lists import EntryList, EntryType, ListId, ListType, NewList
from oneton.domain.model import Permission
from oneton.edge.didit.answers import microseconds
from oneton.edge.didit.bodies import PAGE, check_body, read_window, refusals, require_live
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.refusals import FieldError


class ListRequest(msgspec.Struct):
    """A list that is to be; block lists are there already, one for each type of entry."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    list_type: Literal["allowlist", "custom"]
    entry_type: EntryType
    description: Annotated[str, msgspec.Meta(max_length=2000)] | None = None


class ListReply(msgspec.Struct):
    """A list.

    Attributes:
        is_system: it is one of the block lists.
    """

    uuid: ListId
    name: str
    description: str
    list_type: ListType
    entry_type: EntryType
    is_system: bool
    entry_count: int
    last_entry_added_at: str | None
    created_at: str
    updated_at: str


class ListPage(msgspec.Struct):
    """Some of the lists, the block lists first."""

    count: int
    next: str | None
    previous: str | None
    results: list[ListReply]


@get(
    "/v3/lists",
    operation_id="diditShowLists",
    summary="Show lists",
    responses=refusals(400),
    permissions=(Permission.READ,),
)
async def show_lists(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    limit: FromQuery[int] = PAGE,
    offset: FromQuery[int] = 0,
) -> ListPage:
    """Show your lists and the block lists, which are made when they are first asked for."""
    window = read_window(request, caller, limit, offset)
    found, count = await caller.verbs.keep_lists.page(
        caller.principal.tenant_id, limit=window.limit, offset=window.offset
    )
    return ListPage(
        count, window.next(count), window.previous(), [list_reply(each) for each in found]
    )


@post(
    "/v3/lists",
    operation_id="diditCreateList",
    summary="Create a list",
    responses=refusals(400),
    status_code=201,
    permissions=(Permission.ADMIN,),
)
async def create_list(data: JSONBody[ListRequest], caller: NamedDependency[Caller]) -> ListReply:
    """Create an allow list or a custom list.

    A face on an allow list of faces takes the warning of a duplicate away.
    """
    require_live(caller)
    check_body(data)
    name = data.name.strip()
    if not name:
        raise FieldError("name", "This field may not be blank.")
    new = NewList(
        list_id=ListId(uuid7()),
        name=name,
        list_type=ListType(data.list_type),
        entry_type=data.entry_type,
        description=data.description or "",
    )
    try:
        created = await caller.verbs.keep_lists.create(caller.principal.tenant_id, new)
    except errors.ConflictError as error:
        raise FieldError("name", "A list of this name exists already.") from error
    return list_reply(created)


def list_reply(of: EntryList) -> ListReply:
    """A list as it is told."""
    return ListReply(
        uuid=of.list_id,
        name=of.name,
        description=of.description,
        list_type=of.list_type,
        entry_type=of.entry_type,
        is_system=of.is_system,
        entry_count=of.entries,
        last_entry_added_at=None if of.last_entry_at is None else microseconds(of.last_entry_at),
        created_at=microseconds(of.created_at),
        updated_at=microseconds(of.updated_at),
    )
