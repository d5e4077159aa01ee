"""Saved calls of every dialect: list, show, review."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Meta

from oneton.domain import requests
from oneton.domain.errors import ConflictError
from oneton.domain.model import FaceId, Permission
from oneton.domain.requests import RequestFilter, RequestId, RequestState, SavedRequest
from oneton.edge.native.bodies import WantedId, read_body
from oneton.edge.native.callers import Caller, origin
from oneton.edge.native.cursors import PAGE, Cursor, Limit, decode_number, encode_cursor
from oneton.edge.native.problems import post_refusals, refusals
from oneton.edge.native.saving import event
from oneton.edge.native.schemas import takes
from oneton.edge.native.wire import NULL
from oneton.edge.reviews import events_of_review

_LIST = "requests"
Word = Annotated[str | None, QueryParameter(max_length=64, pattern=r"^[a-z0-9_-]+$")]


class SavedCall(msgspec.Struct, frozen=True):
    """A saved call, without its pictures and answer.

    Attributes:
        number: counts your requests from 1.
        public_id: what its dialect calls it.
        score: of the best candidate, or of the comparison.
        face_id: of the record that it enrolled.
    """

    request_id: RequestId
    number: int
    public_id: str
    dialect: str
    kind: str
    state: RequestState
    score: float | None
    external_id: str | None
    metadata: msgspec.Raw
    face_id: FaceId | None
    created_at: datetime
    updated_at: datetime


class SavedCalls(msgspec.Struct, frozen=True):
    """A page of saved calls, the newest first; `next_cursor` is null on the last one."""

    items: tuple[SavedCall, ...]
    next_cursor: str | None


class SavedImage(msgspec.Struct, frozen=True):
    """A picture of a saved call; the link is good for an hour without a key.

    Attributes:
        name: the field that it came in.
    """

    name: str
    content_type: str
    url: str | None


class Review(msgspec.Struct, frozen=True):
    """A change of state by a reviewer.

    Attributes:
        actor: who it was.
    """

    state_before: RequestState
    state: RequestState
    actor: str
    comment: str
    at: datetime


class WholeCall(SavedCall, frozen=True):
    """A saved call with everything.

    Attributes:
        asked: its parameters, in its dialect's form.
        result: its answer, likewise.
        images: those that are still there.
        reviews: the oldest first.
    """

    asked: msgspec.Raw
    result: msgspec.Raw
    images: tuple[SavedImage, ...]
    reviews: tuple[Review, ...]


class NewReview(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a reviewer decided."""

    state: Literal["approved", "declined", "in_review"]
    comment: Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00]*$")] = ""


@get(
    "/requests",
    operation_id="nativeListRequests",
    summary="List saved calls",
    responses=refusals(),
    permissions=(Permission.READ,),
)
async def list_requests(
    caller: NamedDependency[Caller],
    cursor: Cursor = None,
    limit: Limit = PAGE,
    dialect: Word = None,
    kind: Word = None,
    in_state: Annotated[RequestState | None, QueryParameter(name="state")] = None,
    external_id: WantedId = None,
) -> SavedCalls:
    """List the saved calls of every dialect, the newest first."""
    which = RequestFilter(dialect, kind, in_state, external_id)
    before = decode_number(_LIST, cursor)
    found = await caller.verbs.saved_requests.page(
        caller.tenant, which, limit=limit + 1, before=before
    )
    page = found[:limit]
    following = encode_cursor(_LIST, page[-1].number) if len(found) > limit else None
    return SavedCalls(tuple(SavedCall(**_common(each)) for each in page), following)


@get(
    "/requests/{request_id:uuid}",
    operation_id="nativeShowRequest",
    summary="Show a saved call",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_request(
    request_id: FromPath[UUID], request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> WholeCall:
    """Show a saved call with its answer, links to its pictures, and its reviews."""
    saved = await caller.verbs.saved_requests.read(caller.tenant, RequestId(request_id))
    return await _whole(caller, origin(request), saved)


@post(
    "/requests/{request_id:uuid}/review",
    operation_id="nativeReviewRequest",
    summary="Review a saved call",
    responses=post_refusals(404),
    operation_class=takes(NewReview),
    status_code=200,
    permissions=(Permission.ADMIN,),
)
async def review_request(
    request_id: FromPath[UUID], request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> WholeCall:
    """Change a saved call's state; who did, and from what, is kept. 409 while it is in process."""
    asked = await read_body(request, NewReview)
    verb, came_to = caller.verbs.saved_requests, origin(request)
    state = RequestState(asked.state)
    saved = await verb.read(caller.tenant, RequestId(request_id))
    if saved.state is RequestState.IN_PROCESS:
        raise ConflictError(f"request {request_id} is in process")
    vendors = await events_of_review(
        caller.verbs, saved, lambda key: caller.verbs.make_links(key, came_to)
    )
    saved = await verb.review(
        caller.tenant,
        saved.request_id,
        state,
        actor=f"key {caller.principal.key_id}",
        comment=asked.comment,
        events=lambda now: [event("request.reviewed", request_id, state), *vendors(now)],
    )
    return await _whole(caller, came_to, saved)


async def _whole(caller: Caller, came_to: str, saved: SavedRequest) -> WholeCall:
    reviews = await caller.verbs.saved_requests.reviews(caller.tenant, saved.request_id)
    return WholeCall(
        **_common(saved),
        asked=saved.asked,
        result=saved.result,
        images=tuple(
            SavedImage(each.name, each.content_type, caller.verbs.make_links(each.key, came_to))
            for each in saved.pictures
        ),
        reviews=tuple(_review(each) for each in reviews),
    )


def _common(saved: SavedRequest) -> dict[str, Any]:
    common = {name: getattr(saved, name) for name in SavedCall.__struct_fields__}
    return {**common, "metadata": saved.metadata or NULL}


def _review(each: requests.Review) -> Review:
    return Review(**{name: getattr(each, name) for name in Review.__struct_fields__})
