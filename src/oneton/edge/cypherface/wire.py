"""What CypherFace's dialect sends and receives."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from oneton.domain.merchants import Purpose

Text = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00]*$")]
ImageName = Annotated[
    str, Meta(min_length=1, max_length=255, pattern=r"^(?!\.\.?$)[^\x00-\x1f\x7f/\\]+$")
]
ContentType = Literal["image/jpeg", "image/jpg", "image/png"]


class ErrorReply(msgspec.Struct):
    """The body of every refusal; `error` is stable, the message is for people."""

    message: str
    error: str
    success: bool = False


class TokenReply(msgspec.Struct, rename="camel"):
    """A token under both names that clients know it by."""

    access_token: str
    token: str
    expires_in: int
    success: bool = True


class KeyReply(msgspec.Struct, rename="camel"):
    """A new API key, which is shown once."""

    merchant_id: str
    api_key: str
    success: bool = True


class RegisterRequest(msgspec.Struct, rename="camel"):
    """All optional; an empty text counts as none."""

    name: Text | None = None
    email: Text | None = None
    phone: Text | None = None
    external_id: Text | None = None


class RegisterReply(msgspec.Struct, rename="camel"):
    """The new user's id, 24 hexadecimal digits."""

    user_id: str
    message: str = "User registered"
    success: bool = True


class LinkRequest(msgspec.Struct, rename="camel"):
    """`upload` is for the source picture, `match` for a target."""

    user_id: str
    image_name: ImageName
    content_type: ContentType
    type: Purpose


class LinkReply(msgspec.Struct, rename="camel"):
    """A link that takes one picture; both names have the same one."""

    url: str
    upload_url: str
    key: UUID
    expires_in: int
    success: bool = True


class UserRequest(msgspec.Struct, rename="camel"):
    """Names a user."""

    user_id: str


class MatchReply(msgspec.Struct):
    """Of the face match; one that could not be made has an error and neither of the last two.

    Attributes:
        similarity: the score, 0 to 100.
    """

    success: bool
    message: str
    error: str | UnsetType = UNSET
    match: bool | UnsetType = UNSET
    similarity: float | UnsetType = UNSET


class SessionReply(msgspec.Struct, rename="camel"):
    """A new liveness session."""

    session_id: UUID


class FrameReply(msgspec.Struct, rename="camel"):
    """The name of a frame that passed."""

    image_key: str
    success: bool = True


class LiveMatchRequest(msgspec.Struct, rename="camel"):
    """A user and one of its sessions."""

    user_id: str
    session_id: str


class LiveMatchReply(msgspec.Struct):
    """The outcome is in the body."""

    match: bool
    similarity: float


class SessionRequest(msgspec.Struct, rename="camel"):
    """A session, which knows its user."""

    session_id: str


class Metadata(msgspec.Struct, rename="camel"):
    """Of a call that this server made to nobody but itself."""

    request_id: str
    http_status_code: int = 200
    attempts: int = 1
    total_retry_delay: int = 0


class CheckResponse(msgspec.Struct, rename="pascal"):
    """Session and status go with a match, pictures without content with any other outcome.

    Attributes:
        confidence: of liveness, 0 to 100; null where frames are taken for live unassessed.
    """

    confidence: float | None
    metadata: Metadata = msgspec.field(name="$metadata")
    session_id: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    audit_images: tuple[str, ...] | UnsetType = UNSET
    reference_image: dict[str, Any] | UnsetType = UNSET


class CheckReply(msgspec.Struct, rename="camel"):
    """Liveness and comparison in one."""

    success: bool
    liveness_success: bool
    face_match: bool
    message: str
    response: CheckResponse
