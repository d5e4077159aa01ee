"""What Trustmatic's dialect sends and receives."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from oneton.edge.pictures import InvalidBase64Error, decode_base64

LONGEST_SESSION_ID = 128


class NotJsonError(Exception):
    """The body is not JSON."""


class SessionIdError(Exception):
    """The session id is no string, or a longer one than is echoed."""


class VerifyRequest(msgspec.Struct, rename="camel"):
    """Of any JSON whatever: what is missing, or of a wrong type, has a code of its own."""

    session_id: Any = None
    probe: Any = None
    reference: Any = None
    face_image_base: Any = None


class VerifyReply(msgspec.Struct, rename="camel"):
    """Whether the score passes is the caller's to say; 27 is what clients commonly ask."""

    session_id: str | None
    score: float
    has_error: bool = False


class ErrorReply(msgspec.Struct, rename="camel"):
    """The body of every refusal; without a session id where the request was not read so far."""

    error: str
    session_id: str | UnsetType | None = UNSET
    has_error: bool = True


def read_request(body: bytes) -> VerifyRequest:
    """Read a body.

    Raises:
        NotJsonError: it is no JSON.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(str(error)) from error
    try:
        return msgspec.convert(value, VerifyRequest)
    except msgspec.ValidationError:
        return VerifyRequest()


def session_id_of(asked: VerifyRequest) -> str | None:
    """The session id, to be echoed as it is.

    Raises:
        SessionIdError: it is not one.
    """
    given = asked.session_id
    if given is not None and (not isinstance(given, str) or len(given) > LONGEST_SESSION_ID):
        raise SessionIdError
    return given


def image_of(holder: object) -> bytes:
    """The bytes of `{"imageBase64": ...}`; none when they are missing or not base64."""
    return decoded(holder.get("imageBase64") if isinstance(holder, dict) else None)


def decoded(text: object) -> bytes:
    """The bytes of a base64 text; none when it is no such text."""
    if not isinstance(text, str):
        return b""
    try:
        return decode_base64(text)
    except InvalidBase64Error:
        return b""
