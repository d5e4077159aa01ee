"""How a call of the VeriFlow dialect becomes a request that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.model import DEFAULT_GALLERY, FaceNote, FaceSource, Score
from oneton.domain.requests import (
    NewEvent,
    NewPicture,
    NewRequest,
    RequestId,
    RequestState,
    SavedRequest,
)
from oneton.domain.screening import Screening
from oneton.edge.veriflow.calls import DIALECT, Caller
from oneton.edge.veriflow.shapes import new_request_id
from oneton.verbs.analyse import Picture

IMAGE_DAYS = 30
RESULT_DAYS = 365
UPDATED = "request.updated"


class Outcome(msgspec.Struct, frozen=True):
    """A call that was carried out.

    Attributes:
        pictures: by what they are to the request.
        asked: as it is stored, without pictures and metadata.
        result: likewise; keys of objects are where links will be.
    """

    kind: str
    state: RequestState
    metadata: msgspec.Raw | None
    asked: msgspec.Struct
    result: msgspec.Struct | None = None
    score: float | None = None
    pictures: dict[str, Picture] = {}


async def keep(caller: Caller, outcome: Outcome) -> SavedRequest:
    """Save a call; a sandbox key's is answered alike, and kept nowhere."""
    new = await _new(caller, outcome)
    if caller.principal.sandbox:
        return _unsaved(caller, new)
    return await caller.verbs.saved_requests.save(
        caller.tenant_id, new, _pictures(outcome), _events(caller, new)
    )


async def keep_and_enroll(caller: Caller, outcome: Outcome, screening: Screening) -> SavedRequest:
    """The same, and enroll the largest face; both are there afterwards, or neither is."""
    new = await _new(caller, outcome)
    if caller.principal.sandbox:
        return _unsaved(caller, new)
    events = _events(caller, new)
    return await caller.verbs.enroll_request(
        caller.tenant_id,
        DEFAULT_GALLERY,
        next(iter(outcome.pictures.values())),
        new,
        note=FaceNote(
            metadata=outcome.metadata, source=FaceSource.SESSION, request_id=new.request_id
        ),
        pictures=_pictures(outcome),
        events=lambda _: events,
        known=screening.analyses,
    )


def updated(public_id: str, state: RequestState) -> NewEvent:
    """What webhooks are told of a request; they ask for the rest."""
    body = msgspec.json.encode({"id": public_id, "status": str(state)})
    return NewEvent(DIALECT, UPDATED, msgspec.Raw(body))


async def _new(caller: Caller, outcome: Outcome) -> NewRequest:
    options = (await caller.tenant()).options
    image_days = IMAGE_DAYS if options.image_days is None else options.image_days
    result_days = RESULT_DAYS if options.result_days is None else options.result_days
    return NewRequest(
        request_id=RequestId(uuid7()),
        dialect=DIALECT,
        kind=outcome.kind,
        state=outcome.state,
        public_id=new_request_id(),
        score=None if outcome.score is None else Score(outcome.score),
        metadata=outcome.metadata,
        asked=msgspec.Raw(msgspec.json.encode(outcome.asked)),
        result=msgspec.Raw(msgspec.json.encode(outcome.result or {})),
        keep_images=timedelta(days=image_days),
        keep=timedelta(days=result_days),
    )


def _pictures(outcome: Outcome) -> list[NewPicture]:
    """They were decoded, so that their type is known."""
    return [
        NewPicture(name, picture.data, picture.content_type or "application/octet-stream")
        for name, picture in outcome.pictures.items()
    ]


def _events(caller: Caller, new: NewRequest) -> Sequence[NewEvent]:
    """A call that ends in its answer tells nobody, unless the operator wants it."""
    if new.state is RequestState.IN_PROCESS:
        return ()
    standalone = caller.verbs.settings.veriflow_webhook_standalone
    return (updated(new.public_id, new.state),) if standalone else ()


def _unsaved(caller: Caller, new: NewRequest) -> SavedRequest:
    now = datetime.now(UTC)
    return SavedRequest(
        request_id=new.request_id,
        tenant_id=caller.tenant_id,
        number=0,
        public_id=new.public_id,
        dialect=new.dialect,
        kind=new.kind,
        state=new.state,
        score=new.score,
        external_id=new.external_id,
        metadata=new.metadata,
        asked=new.asked,
        result=new.result,
        face_id=None,
        created_at=now,
        updated_at=now,
        due_at=None,
    )
