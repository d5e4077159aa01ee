"""A saved call as the VeriFlow dialect shows it: links are made anew each time."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from oneton.domain import errors
from oneton.domain.requests import Review, SavedRequest
from oneton.edge.veriflow.calls import Caller
from oneton.edge.veriflow.shapes import moment, organization_id, status_word
from oneton.edge.veriflow.wire import (
    AnyRequest,
    FaceMatchInit,
    FaceMatchResponse,
    FaceSearchInit,
    FaceSearchResponse,
    Info,
    PassiveLivenessInit,
    PassiveLivenessResponse,
    Reviewed,
    SessionInit,
    SessionKept,
    SessionResponse,
    ShownRequest,
)

USER_IMAGE = "user_image"
REF_IMAGE = "ref_image"
FACE_MATCH = "face_match"
FACE_SEARCH = "face_search"
PASSIVE_LIVENESS = "passive_liveness"
SESSION = "session"


async def show(
    caller: Caller, saved: SavedRequest, reviews: Sequence[Review], *, echo: bool
) -> AnyRequest:
    """A request with links that are good for an hour.

    Args:
        echo: repeat pictures in place of links to them, where the operator wants it.
    """
    links = {each.name: caller.link(each.key) for each in saved.pictures}
    repeated: Mapping[str, str | None] = links
    if echo and caller.verbs.settings.veriflow_echo_images:
        repeated = await _repeated(caller, saved)
    done = tuple(_reviewed(each) for each in reviews)
    if saved.kind == FACE_MATCH:
        info = _face_match(saved, links, repeated, done or UNSET)
    elif saved.kind == FACE_SEARCH:
        info = _face_search(caller, saved, repeated, done or UNSET)
    elif saved.kind == PASSIVE_LIVENESS:
        info = _passive_liveness(saved, repeated, done or UNSET)
    else:
        info = _session(caller, saved, done)
    session: str | UnsetType = UNSET
    workflow: str | UnsetType | None = UNSET
    if isinstance(info.response, SessionResponse):
        session, workflow = info.response.session_url, info.response.workflow_id
    return ShownRequest(
        id=saved.public_id,
        organization_id=organization_id(await caller.tenant()),
        type=saved.kind.upper(),
        status=str(saved.state),
        created_at=moment(saved.created_at),
        updated_at=moment(saved.updated_at),
        cost=0,
        info=info,
        session=session,
        workflow=workflow,
    )


def session_url(caller: Caller, public_id: str) -> str:
    """Where the hosted page of a session would be; it says that there is none."""
    return f"{caller.base_url}/v2/sessions/{public_id}"


Reviews = tuple[Reviewed, ...] | UnsetType


def _face_match(
    saved: SavedRequest,
    links: Mapping[str, str | None],
    repeated: Mapping[str, str | None],
    reviews: Reviews,
) -> Info[Any, Any]:
    init = msgspec.json.decode(saved.asked, type=FaceMatchInit)
    response = msgspec.json.decode(saved.result, type=FaceMatchResponse)
    return Info(
        metadata=saved.metadata,
        init=msgspec.structs.replace(
            init,
            user_image=repeated.get(USER_IMAGE),
            ref_image=repeated.get(REF_IMAGE),
            metadata=saved.metadata,
        ),
        response=msgspec.structs.replace(
            response,
            source_image=links.get(REF_IMAGE),
            target_image=links.get(USER_IMAGE),
            reviews=reviews,
        ),
    )


def _face_search(
    caller: Caller, saved: SavedRequest, repeated: Mapping[str, str | None], reviews: Reviews
) -> Info[Any, Any]:
    init = msgspec.json.decode(saved.asked, type=FaceSearchInit)
    response = msgspec.json.decode(saved.result, type=FaceSearchResponse)
    matches = tuple(
        msgspec.structs.replace(each, match_image_url=caller.link(each.match_image_url))
        for each in response.matches
    )
    return Info(
        metadata=saved.metadata,
        init=msgspec.structs.replace(
            init, user_image=repeated.get(USER_IMAGE), metadata=saved.metadata
        ),
        response=msgspec.structs.replace(response, matches=matches, reviews=reviews),
    )


def _passive_liveness(
    saved: SavedRequest, repeated: Mapping[str, str | None], reviews: Reviews
) -> Info[Any, Any]:
    init = msgspec.json.decode(saved.asked, type=PassiveLivenessInit)
    response = msgspec.json.decode(saved.result, type=PassiveLivenessResponse)
    return Info(
        metadata=saved.metadata,
        init=msgspec.structs.replace(
            init, user_image=repeated.get(USER_IMAGE), metadata=saved.metadata
        ),
        response=msgspec.structs.replace(response, reviews=reviews),
    )


def _session(caller: Caller, saved: SavedRequest, reviews: tuple[Reviewed, ...]) -> Info[Any, Any]:
    kept = msgspec.json.decode(saved.asked, type=SessionKept)
    url = session_url(caller, saved.public_id)
    return Info(
        metadata=saved.metadata,
        init=SessionInit(
            url=url, status="in_process", workflow_id=kept.workflow_id, callback=kept.callback
        ),
        response=SessionResponse(
            session_url=url,
            status=status_word(saved.state),
            workflow_id=kept.workflow_id,
            created_at=moment(saved.created_at),
            expected_details=kept.expected_details,
            contact_details=kept.contact_details,
            reviews=reviews,
        ),
    )


def _reviewed(review: Review) -> Reviewed:
    return Reviewed(
        user=review.actor,
        new_status=status_word(review.state),
        created_at=moment(review.at),
        comment=review.comment,
    )


class _Prefixes(msgspec.Struct, rename="camel"):
    """What stood before the base64 of each picture, as `asked` keeps it."""

    user_image: str | None = None
    ref_image: str | None = None


async def _repeated(caller: Caller, saved: SavedRequest) -> dict[str, str | None]:
    """The request's pictures in base64, as they came; what was erased is null."""
    prefixes = msgspec.json.decode(saved.asked, type=_Prefixes)
    before = {USER_IMAGE: prefixes.user_image, REF_IMAGE: prefixes.ref_image}
    repeated: dict[str, str | None] = {}
    for each in saved.pictures:
        try:
            data, _ = await caller.verbs.keep_picture.show(caller.tenant_id, each.picture_id)
        except errors.NotFoundError:
            continue
        repeated[each.name] = (before.get(each.name) or "") + base64.b64encode(data).decode()
    return repeated
