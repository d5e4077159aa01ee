"""Where the next page of a list begins, as an opaque text."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated
from uuid import UUID

from litestar.params import QueryParameter

from oneton.edge.native.problems import InvalidInputError

Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Items of a page.")]
Cursor = Annotated[
    str | None, QueryParameter(max_length=400, description="`next_cursor` of the page before.")
]
PAGE = 20


def encode_cursor(kind: str, place: object) -> str:
    """A cursor for one kind of list.

    Args:
        place: what the page ended with; its text is ASCII.
    """
    return base64.urlsafe_b64encode(f"{kind}:{place}".encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str) -> str:
    """The text of the place that a cursor is of.

    Raises:
        InvalidInputError: it is none of this kind of list.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found, _, place = (
            base64.b64decode(padded, b"-_", validate=True).decode("ascii").partition(":")
        )
    except (binascii.Error, UnicodeError) as error:
        raise InvalidInputError("cursor", "it is no cursor of ours") from error
    if found != kind or not place:
        raise InvalidInputError("cursor", "it is of another list")
    return place


def decode_id(kind: str, cursor: str | None) -> UUID | None:
    """The id in a cursor; None of None."""
    if cursor is None:
        return None
    try:
        return UUID(decode_cursor(kind, cursor))
    except ValueError as error:
        raise InvalidInputError("cursor", "it is no cursor of ours") from error


def decode_number(kind: str, cursor: str | None) -> int | None:
    """The number in a cursor, at most 18 digits; None of None."""
    if cursor is None:
        return None
    place = decode_cursor(kind, cursor)
    if not place.isdecimal() or len(place) > 18:
        raise InvalidInputError("cursor", "it is no cursor of ours")
    return int(place)
