"""Merchants' users, their pictures, upload links and liveness sessions."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from oneton.domain.errors import NotFoundError
from oneton.domain.model import TenantId
from oneton.domain.requests import PictureId

_USER_ID = re.compile(r"[0-9a-f]{24}")


class Purpose(StrEnum):
    """What an uploaded picture is for."""

    SOURCE = "upload"
    """The one that a user is registered with; it is never overwritten."""
    TARGET = "match"
    """One that is compared with it, once."""


class Refusal(StrEnum):
    """Why something could not be done that may be done at another time or in another order."""

    ALREADY_PROCESSED = "the user has a source picture already"
    SOURCE_IMAGE_MISSING = "the user has no source picture"
    TARGET_IMAGE_MISSING = "no target picture was uploaded since the last match"
    FRAME_MISSING = "the session has no frame so far"
    LINK_INVALID = "the link was altered, or a newer one has taken its place"
    LINK_EXPIRED = "the link has expired"
    LINK_USED = "the link was used already"


class NewUser(msgspec.Struct, frozen=True):
    """What a merchant says of a user."""

    name: str | None = None
    email: str | None = None
    phone: str | None = None
    external_id: str | None = None


class MerchantUser(msgspec.Struct, frozen=True):
    """A registered user.

    Attributes:
        user_id: 24 hexadecimal digits.
        source_id: of the picture registered with.
        target_id: of the picture that waits to be compared.
    """

    user_id: str
    tenant_id: TenantId
    source_id: PictureId | None
    target_id: PictureId | None


class Upload(msgspec.Struct, frozen=True):
    """An upload that was asked for.

    Attributes:
        used_at: when the picture came.
    """

    upload_id: UUID
    tenant_id: TenantId
    user_id: str
    purpose: Purpose
    image_name: str
    content_type: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


class LivenessSession(msgspec.Struct, frozen=True):
    """A liveness session that has not ended.

    Attributes:
        frame_id: of the last frame, when it passed.
        confidence: that the last frame shows a living person, 0 to 1; None where there is no
            frame, or no model.
    """

    session_id: UUID
    tenant_id: TenantId
    user_id: str
    frame_id: PictureId | None
    confidence: float | None
    created_at: datetime
    expires_at: datetime


def checked_user_id(text: str) -> str:
    """A user id as they are written here.

    Raises:
        NotFoundError: nobody has such an id.
    """
    user_id = text.lower()
    if not _USER_ID.fullmatch(user_id):
        raise NotFoundError("user", text)
    return user_id
