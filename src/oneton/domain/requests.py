"""Saved calls: what was asked, with which pictures, what came of it, and who changed it."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType
from uuid import UUID

import msgspec

from oneton.domain.model import FaceId, Score, TenantId

RequestId = NewType("RequestId", UUID)
PictureId = NewType("PictureId", UUID)

PICTURES = "_pictures"
"""Stands where a gallery's name is in the key of a picture that is of no face record."""
NOTHING = msgspec.Raw(b"{}")


class RequestState(StrEnum):
    """What a saved call came to."""

    IN_PROCESS = "in_process"
    APPROVED = "approved"
    DECLINED = "declined"
    IN_REVIEW = "in_review"
    ERROR = "error"


class StoredPicture(msgspec.Struct, frozen=True):
    """A picture in the object store that is of no face record.

    Attributes:
        name: what it is to its request, such as `user_image`.
    """

    picture_id: PictureId
    tenant_id: TenantId
    content_type: str
    name: str = ""

    @property
    def key(self) -> str:
        """Its key in the object store."""
        return f"{self.tenant_id}/{PICTURES}/{self.picture_id}"


class NewPicture(msgspec.Struct, frozen=True):
    """A picture that is to be kept."""

    name: str
    data: bytes
    content_type: str


class NewRequest(msgspec.Struct, frozen=True):
    """A call that is to be saved.

    Attributes:
        public_id: another name for it, unique among all tenants; empty is its UUID's text.
        dialect: `didit`, `veriflow`, `native`.
        kind: `face_match`, `face_search`, `passive_liveness`, `identify`, `session`, ...
        external_id: the caller's own reference.
        metadata: JSON, the caller's.
        asked: JSON, the parameters, without pictures.
        result: JSON, in the dialect's own form.
        face_id: of the record that it enrolled.
        keep_images: for how long; None is without end.
        keep: likewise, the request itself.
    """

    request_id: RequestId
    dialect: str
    kind: str
    state: RequestState
    public_id: str = ""
    score: Score | None = None
    external_id: str | None = None
    metadata: msgspec.Raw | None = None
    asked: msgspec.Raw = NOTHING
    result: msgspec.Raw = NOTHING
    face_id: FaceId | None = None
    keep_images: timedelta | None = None
    keep: timedelta | None = None


class SavedRequest(msgspec.Struct, frozen=True):
    """A saved call; see `NewRequest`.

    Attributes:
        number: counts the tenant's requests from 1.
        pictures: those that are still there.
    """

    request_id: RequestId
    tenant_id: TenantId
    number: int
    public_id: str
    dialect: str
    kind: str
    state: RequestState
    score: Score | None
    external_id: str | None
    metadata: msgspec.Raw | None
    asked: msgspec.Raw
    result: msgspec.Raw
    face_id: FaceId | None
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    pictures: tuple[StoredPicture, ...] = ()

    def picture(self, name: str) -> StoredPicture | None:
        """The picture of this name, if it is still there."""
        return next((each for each in self.pictures if each.name == name), None)


class Review(msgspec.Struct, frozen=True):
    """A change of a request's state by a reviewer.

    Attributes:
        actor: who it was, for people.
    """

    request_id: RequestId
    state_before: RequestState
    state: RequestState
    actor: str
    comment: str
    at: datetime


class NewEvent(msgspec.Struct, frozen=True):
    """Something that a tenant's webhook endpoints of a dialect are told.

    Attributes:
        event_type: such as `status.updated`.
        body: JSON object, without what is put in at each delivery, as its time.
    """

    dialect: str
    event_type: str
    body: msgspec.Raw


class RequestFilter(msgspec.Struct, frozen=True):
    """Which saved calls; None is all."""

    dialect: str | None = None
    kind: str | None = None
    state: RequestState | None = None
    external_id: str | None = None
