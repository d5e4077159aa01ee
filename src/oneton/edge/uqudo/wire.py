"""What the uqudo dialect sends and receives."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from oneton.domain.face_sessions import PublishedKey, SessionId
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


class SessionRequest(msgspec.Struct):
    """A photo of an identity document in base64."""

    id_photo: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="idPhoto")


class SessionReply(msgspec.Struct):
    """The session that waits for a selfie, for ten minutes."""

    session_id: SessionId = msgspec.field(name="sessionId")


MatchLevel = Annotated[int, msgspec.Meta(ge=1, le=5)]


class SelfieOptions(msgspec.Struct, kw_only=True, rename="camel"):
    """What goes with a selfie.

    Attributes:
        nonce: is repeated in the result.
        max_attempts: selfies that may be compared; the session's first selfie says it.
        return_data_for_incomplete_session: the last attempt is signed even without a match.
        enable_one_to_n_verification: search for the selfie that matches.
        insert: and add it when nobody is found.
    """

    nonce: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    minimum_match_level: MatchLevel = DEFAULT_MATCH_LEVEL
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=3)] = 3
    return_data_for_incomplete_session: bool = False
    enable_one_to_n_verification: bool = msgspec.field(
        name="enableOneToNVerification", default=False
    )
    insert: bool = False


class SelfieRequest(SelfieOptions, kw_only=True, rename="camel"):
    """The same with the selfie in base64."""

    selfie: Annotated[str, msgspec.Meta(min_length=1)]


class SelfieReply(msgspec.Struct, rename="camel"):
    """What the comparison came to; `result` is a JWS that ends the session."""

    session_id: SessionId
    match: bool
    match_level: int
    attempts_left: int
    result: str | None


class SessionFace(msgspec.Struct, rename="camel"):
    """The selfie in a result; the last two are there only when somebody was looked for."""

    audit_trail_image_id: str
    audit_trail_image_id_checksum: str
    match_level: int
    match: bool
    verification_id: FaceId | msgspec.UnsetType | None = msgspec.field(
        name="oneToNVerificationId", default=msgspec.UNSET
    )
    verification_match: bool | msgspec.UnsetType = msgspec.field(
        name="oneToNVerificationMatch", default=msgspec.UNSET
    )


class SessionData(msgspec.Struct, rename="camel"):
    """The claim `data` of a result; nothing attests to a device here."""

    nonce: str | None
    session_id: SessionId
    face: SessionFace
    device_attestation: None = None


class KeySet(msgspec.Struct):
    """Source: RFC 7517, section 5."""

    keys: list[PublishedKey]


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
