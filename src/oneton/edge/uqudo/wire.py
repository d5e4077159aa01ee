"""What the uqudo dialect sends and receives."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from oneton.domain.model import FaceId

DEFAULT_MATCH_LEVEL = 3


class TokenReply(msgspec.Struct):
    """Source: RFC 6749, section 5.1, and the vendor's `jti`."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    jti: UUID


class MatchRequest(msgspec.Struct):
    """Two pictures in base64; unknown fields are ignored."""

    source_image: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="sourceImage")
    target_image: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="targetImage")
    minimum_match_level: int = msgspec.field(name="minimumMatchLevel", default=DEFAULT_MATCH_LEVEL)


class MatchReply(msgspec.Struct):
    """`match` is `matchLevel` >= the minimum; level 0 is below level 1."""

    match: bool
    match_level: int = msgspec.field(name="matchLevel")


class SearchRequest(msgspec.Struct):
    """A picture in base64; with `insert` it is added when nobody matches."""

    id_photo: str = msgspec.field(name="idPhoto")
    insert: bool = False


class InsertRequest(msgspec.Struct):
    """A picture in base64, under the first of these names that is given."""

    id_photo: str | None = msgspec.field(name="idPhoto", default=None)
    selfie: str | None = None
    image: str | None = None


class OneToNReply(msgspec.Struct):
    """The face record found or added; null when none was."""

    verification_id: FaceId | None = msgspec.field(name="oneToNVerificationId")
    verification_match: bool = msgspec.field(name="oneToNVerificationMatch")


class ErrorReply(msgspec.Struct):
    """The body of every refusal; `message` begins with a stable code and a colon."""

    timestamp: str
    status: int
    error: str
    message: str
    path: str


class OAuthErrorReply(msgspec.Struct):
    """Of 401, 403 and the token call. Source: RFC 6749, section 5.2."""

    error: str
    error_description: str
