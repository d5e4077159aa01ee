"""The JSON bodies, queries and pages of the calls on lists, users and destinations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Request
from litestar.openapi import ResponseSpec

from oneton.domain import errors
from oneton.domain.metadata import InvalidMetadataError, checked_metadata
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.refusals import FieldError, PlainError
from oneton.edge.pictures import InvalidBase64Error, decode_base64
from oneton.verbs.analyse import Picture

UPLOAD_LIMIT_BYTES = 2 * 1024 * 1024
PAGE = 25
PAGE_LIMIT = 100
_OFFSET_LIMIT = 2**31
_BASE64_LIMIT = 2 * UPLOAD_LIMIT_BYTES
"""Characters; line breaks and padding included it is less."""


class Detail(msgspec.Struct):
    """The body of a refusal that is about no field."""

    detail: str


class WrongFields(msgspec.Struct):
    """What is wrong, by the field's name: `{"name": ["This field is required."]}`."""


class Window(msgspec.Struct, frozen=True):
    """The part of a list that is asked for.

    Attributes:
        address: of the call, without its query.
        query: what else is asked for.
    """

    limit: int
    offset: int
    address: str
    query: dict[str, str]

    def next(self, count: int) -> str | None:
        """The address of the next page."""
        after = self.offset + self.limit
        return self._at(after) if after < count else None

    def previous(self) -> str | None:
        """The address of the page before."""
        return self._at(max(0, self.offset - self.limit)) if self.offset > 0 else None

    def _at(self, offset: int) -> str:
        paging = {"limit": str(self.limit), "offset": str(offset)}
        return f"{self.address}?{urlencode({**self.query, **paging})}"


def read_window(
    request: Request[Any, Any, Any], caller: Caller, limit: int, offset: int, **query: str
) -> Window:
    """A page's place; FieldError when it is none. More than 100 are never shown at once."""
    if limit < 1:
        raise FieldError("limit", "Ensure this value is greater than or equal to 1.")
    if not 0 <= offset < _OFFSET_LIMIT:
        raise FieldError("offset", "Ensure this value is from 0 to 2147483647.")
    for name, value in query.items():
        check_text(name, value)
    base = caller.verbs.settings.public_url or caller.origin
    given = {name: value for name, value in query.items() if value}
    return Window(min(limit, PAGE_LIMIT), offset, f"{base}{request.url.path}", given)


def require_live(caller: Caller) -> None:
    """Refuse a sandbox key's call that would keep something; ForbiddenError."""
    if caller.principal.sandbox:
        raise errors.ForbiddenError("to write with a sandbox key")


def check_body(body: msgspec.Struct) -> None:
    """Refuse text that Postgres does not keep; FieldError."""
    for name in body.__struct_fields__:
        value = getattr(body, name)
        if isinstance(value, str):
            check_text(name, value)


def check_text(name: str, value: str) -> None:
    """Refuse the character U+0000; FieldError."""
    if "\0" in value:
        raise FieldError(name, "Null characters are not allowed.")


def read_metadata(given: Any) -> msgspec.Raw | None:  # noqa: ANN401 - any JSON
    """A JSON object or null; FieldError when it is something else."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise FieldError("metadata", "Value must be a JSON object.")
    try:
        return checked_metadata(msgspec.Raw(msgspec.json.encode(given)))
    except InvalidMetadataError as error:
        raise FieldError("metadata", f"Value must be valid JSON: {error}.") from error


def read_picture(text: str, accepted: tuple[str, ...], *, bare: bool = False) -> Picture:
    """A picture of at most 2 MB in base64; FieldError when it is none.

    Args:
        bare: no data-URL prefix.
    """
    if not text.strip():
        raise FieldError("image", "This field may not be blank.")
    if bare and text.lstrip()[:5].lower() == "data:":
        raise FieldError("image", "Send base64 without a data: prefix.")
    if len(text) > _BASE64_LIMIT:
        raise FieldError("image", "The image is larger than 2 MB.")
    try:
        data = decode_base64(text)
    except InvalidBase64Error as error:
        raise FieldError("image", "The image is not valid base64.") from error
    if len(data) > UPLOAD_LIMIT_BYTES:
        raise FieldError("image", "The image is larger than 2 MB.")
    return Picture(data, accepted=accepted)


@contextmanager
def blamed_on(field: str) -> Iterator[None]:
    """Errors of a picture are the field's; one without a face is told as everywhere."""
    try:
        yield
    except errors.NoFaceError as error:
        raise PlainError("No face detected in the image") from error
    except errors.ProbeError as error:
        raise FieldError(field, str(error)) from error


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Documents what a call may be refused with, beside what every call may."""
    said: dict[int, type[msgspec.Struct]] = dict.fromkeys((*statuses, 403, 429, 503), Detail)
    said[400] = WrongFields
    return {
        status: ResponseSpec(kind, generate_examples=False) for status, kind in sorted(said.items())
    }
