"""Face sessions: a photo of an identity document waits for a selfie of the same person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NewType
from uuid import UUID

import msgspec

from oneton.domain.model import FaceId, TenantId
from oneton.domain.requests import PictureId

SessionId = NewType("SessionId", UUID)

SESSION_LIFE = timedelta(minutes=10)
IMAGE_LIFE = timedelta(minutes=30)
RESULT_LIFE = timedelta(minutes=30)
LIVE = 0.5
"""Least liveness of a selfie, where there is a model that assesses it."""


def utc_now() -> datetime:
    """The time that clocks tell unless a test moves them."""
    return datetime.now(UTC)


class FaceSession(msgspec.Struct, frozen=True):
    """A session as Postgres holds it.

    Attributes:
        key_id: of the API key that made it, and alone may use it.
        picture_id: of the photo.
        attempts: selfies so far, those being compared included.
        max_attempts: as the first selfie had it; None before.
        result: a signed JWS in compact form; None while there is none.
    """

    session_id: SessionId
    tenant_id: TenantId
    key_id: UUID
    picture_id: PictureId
    attempts: int
    max_attempts: int | None
    result: str | None
    expires_at: datetime


class SessionImage(msgspec.Struct, frozen=True):
    """The selfie that a session's result names."""

    picture_id: PictureId
    tenant_id: TenantId
    key_id: UUID
    session_id: SessionId
    jti: UUID
    expires_at: datetime


class SelfieTerms(msgspec.Struct, frozen=True):
    """What goes with a selfie.

    Attributes:
        minimum_match_level: least level that is a match, 1 to 5.
        max_attempts: selfies at most; that of the session's first selfie holds.
        return_incomplete: sign a result for the last attempt even when it is no match.
        one_to_n: search for the selfie that matches.
        insert: and add it when nobody is found.
    """

    minimum_match_level: int
    max_attempts: int
    return_incomplete: bool = False
    one_to_n: bool = False
    insert: bool = False


class OneToN(msgspec.Struct, frozen=True):
    """What the search for a selfie came to.

    Attributes:
        face_id: found or added; None when neither.
    """

    face_id: FaceId | None
    found: bool


class ComparedSelfie(msgspec.Struct, frozen=True):
    """What a result tells of a selfie.

    Attributes:
        picture_id: where it is kept.
        sha256: of its bytes, hexadecimal.
        one_to_n: None when nobody was looked for.
    """

    session_id: SessionId
    picture_id: PictureId
    sha256: str
    match: bool
    match_level: int
    one_to_n: OneToN | None


class SelfieState(StrEnum):
    """What became of a selfie."""

    MATCH = "match"
    MISMATCH = "mismatch"
    OVER = "over"
    """It was not compared: the session has its match, or no attempt left."""


class SelfieOutcome(msgspec.Struct, frozen=True):
    """The answer to a selfie.

    Attributes:
        match_level: 0 to 5.
        result: signed; None when there is none yet, or is to be none.
    """

    state: SelfieState
    match_level: int = 0
    attempts_left: int = 0
    result: str | None = None


class SigningKey(msgspec.Struct, frozen=True):
    """An RSA key that results are signed with.

    Attributes:
        kid: its name in a result's header, 32 hexadecimal digits.
        retired_at: when another took its place; None while it signs.
    """

    kid: str
    private_pem: str
    created_at: datetime
    retired_at: datetime | None


class PublishedKey(msgspec.Struct, frozen=True):
    """The public half of a signing key. Source: RFC 7517, section 4, and RFC 7518, section 6.3."""

    kid: str
    n: str
    e: str
    kty: str = "RSA"
    use: str = "sig"
    alg: str = "RS256"
