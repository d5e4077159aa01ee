"""Saving a call, with what webhooks are told of it; and the fixed answers of sandbox keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.model import DEFAULT_GALLERY, FaceNote, FaceSource, Score, TenantOptions
from oneton.domain.requests import (
    NewEvent,
    NewPicture,
    NewRequest,
    RequestId,
    RequestState,
    SavedRequest,
)
from oneton.domain.screening import Screening
from oneton.edge.didit.answers import AnalysedPicture, Box, Entity, SearchedPicture, microseconds
from oneton.edge.didit.calls import DIALECT, Caller
from oneton.edge.didit.decision import ImageKeys, Kept, make_event
from oneton.edge.didit.forms import Common
from oneton.verbs.analyse import Picture

SANDBOX_SCORE = 99.41
SANDBOX_SEARCHED = SearchedPicture((Box((661, 728, 1688, 2188), 0.732973),))
SANDBOX_ANALYSED = AnalysedPicture(
    (Entity((661, 728, 1688, 2188), 0.732973, age=26.91, gender="male"),)
)


class Stamp(msgspec.Struct, frozen=True):
    """What tells one answer from another."""

    request_id: UUID
    created_at: str


class Call(msgspec.Struct, frozen=True):
    """A call that was carried out, and is to be saved.

    Attributes:
        asked: its parameters, beside those that all have.
        image_keys: of the matches of `kept`.
    """

    kind: str
    state: RequestState
    common: Common
    asked: dict[str, float | str]
    pictures: dict[str, Picture]
    kept: Kept
    image_keys: ImageKeys = {}


def unsaved() -> Stamp:
    """Of a call that nothing is kept of: an id that no session has."""
    return Stamp(uuid7(), microseconds(datetime.now(UTC)))


async def save(caller: Caller, options: TenantOptions, call: Call) -> Stamp:
    """Keep a call with its pictures; nothing, when it asked not to be."""
    if not call.common.save:
        return unsaved()
    saved = await caller.verbs.saved_requests.save(
        caller.principal.tenant_id,
        _new_request(options, call),
        _pictures(call),
        partial(_events, caller, call),
    )
    return _stamp(saved)


async def save_and_enroll(
    caller: Caller, options: TenantOptions, call: Call, picture: Picture, screening: Screening
) -> Stamp:
    """The same, and put the face among the tenant's, both or neither."""
    if not call.common.save:
        return unsaved()
    new = _new_request(options, call)
    note = FaceNote(
        external_id=call.common.vendor_data,
        metadata=call.common.metadata,
        source=FaceSource.SESSION,
        request_id=new.request_id,
    )
    saved = await caller.verbs.enroll_request(
        caller.principal.tenant_id,
        DEFAULT_GALLERY,
        picture,
        new,
        note=note,
        pictures=_pictures(call),
        events=partial(_events, caller, call),
        known=screening.analyses,
    )
    return _stamp(saved)


def _new_request(options: TenantOptions, call: Call) -> NewRequest:
    common, score = call.common, call.kept.score
    asked = {"rotate_image": common.rotate, **call.asked}
    return NewRequest(
        request_id=RequestId(uuid7()),
        dialect=DIALECT,
        kind=call.kind,
        state=call.state,
        score=None if score is None else Score(score),
        external_id=common.vendor_data,
        metadata=common.metadata,
        asked=msgspec.Raw(msgspec.json.encode(asked)),
        result=msgspec.Raw(msgspec.json.encode(call.kept)),
        keep_images=_days(options.image_days),
        keep=_days(options.result_days),
    )


def _pictures(call: Call) -> list[NewPicture]:
    return [
        NewPicture(name, picture.data, picture.content_type or "")
        for name, picture in call.pictures.items()
    ]


def _events(caller: Caller, call: Call, saved: SavedRequest) -> tuple[NewEvent, ...]:
    return (make_event(saved, call.kept, call.image_keys, caller.link),)


def _stamp(saved: SavedRequest) -> Stamp:
    return Stamp(saved.request_id, microseconds(saved.created_at))


def _days(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)
