"""Calls that are kept as requests when the caller asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.model import Score
from oneton.domain.requests import (
    NewEvent,
    NewPicture,
    NewRequest,
    RequestId,
    RequestState,
)
from oneton.edge.native.callers import Caller

DIALECT = "native"


class Call(msgspec.Struct, frozen=True):
    """A call that is to be kept.

    Attributes:
        asked: its parameters, without pictures.
        result: its answer, without links.
    """

    request_id: UUID
    kind: str
    state: RequestState
    score: float | None
    external_id: str | None
    metadata: msgspec.Raw | None
    asked: msgspec.Raw
    result: msgspec.Raw


def new_request_id(caller: Caller, *, save: bool) -> UUID | None:
    """The id of a request-to-be; None when nothing is kept, as for a sandbox key."""
    return uuid7() if save and not caller.principal.sandbox else None


async def save_call(caller: Caller, call: Call, pictures: Sequence[NewPicture]) -> None:
    """Keep a call for as long as the tenant has set, and tell its webhooks."""
    options = (await caller.verbs.spend_credit.read(caller.tenant)).options
    await caller.verbs.saved_requests.save(
        caller.tenant,
        NewRequest(
            request_id=RequestId(call.request_id),
            dialect=DIALECT,
            kind=call.kind,
            state=call.state,
            score=None if call.score is None else Score(call.score),
            external_id=call.external_id,
            metadata=call.metadata,
            asked=call.asked,
            result=call.result,
            keep_images=_days(options.image_days),
            keep=_days(options.result_days),
        ),
        pictures,
        [event("request.saved", call.request_id, call.state)],
    )


def event(event_type: str, request_id: UUID, state: RequestState) -> NewEvent:
    """What webhooks of the native API are told of a request."""
    said = {"type": event_type, "request_id": request_id, "state": state}
    return NewEvent(DIALECT, event_type, msgspec.Raw(msgspec.json.encode(said)))


def as_raw(value: object) -> msgspec.Raw:
    """JSON of anything that msgspec knows."""
    return msgspec.Raw(msgspec.json.encode(value))


def _days(count: int | None) -> timedelta | None:
    return None if count is None else timedelta(days=count)
