"""What callers send: JSON, or a form with pictures as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import ClientException, HTTPException
from litestar.params import QueryParameter
from msgspec import Meta

from oneton.domain import errors
from oneton.edge.native.problems import InvalidInputError, PictureError
from oneton.edge.native.schemas import FORM, JSON, names_of
from oneton.edge.pictures import InvalidBase64Error, decode_base64
from oneton.verbs.analyse import Picture

BODY_LIMIT_BYTES = 32 * 1024 * 1024
IMAGE_LIMIT_BYTES = 10 * 1024 * 1024
ACCEPTED = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff")
METADATA_LIMIT_BYTES = 16 * 1024

Image = Annotated[
    bytes,
    Meta(
        min_length=1,
        description="JPEG, PNG, WebP, BMP or TIFF of at most 10 MB, in base64.",
    ),
]
NO_CONTROLS = r"^[^\x00-\x1f\x7f]+$"
ExternalId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=NO_CONTROLS,
        description="Your own reference; several may share one.",
    ),
]
WantedId = Annotated[
    str | None,
    QueryParameter(
        name="external_id",
        min_length=1,
        max_length=255,
        pattern=NO_CONTROLS,
        description="Only those with this reference.",
    ),
]
Metadata = Annotated[dict[str, Any], Meta(description="Any JSON object of at most 16 KiB.")]
Share = Annotated[float, Meta(ge=1e-9, le=0.5)]
Points = Annotated[float, Meta(ge=0, le=100)]

T = TypeVar("T", bound=msgspec.Struct)
Asked = Request[Any, Any, Any]

_AT = re.compile(r"(.*?)(?: - at `(?:key in )?\$\.?(.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


async def read_body(request: Asked, kind: type[T], *, images: Sequence[str] = ()) -> T:
    """Read JSON, or a form when pictures may come.

    Args:
        images: fields that hold pictures; they come as base64, or as files in a form.

    Raises:
        InvalidInputError: a field is missing or of a bad form.
        PictureError: a picture is too large.
        HTTPException: the body is of another kind, too large, or no form.
    """
    given = request.content_type[0]
    fields: object
    if given == FORM and images:
        fields, strict = await _form(request, kind), False
    elif given in ("", JSON) or (given.startswith("application/") and given.endswith("+json")):
        fields, strict = _json(await request.body()), True
    else:
        accepted = f"{JSON} or {FORM}" if images else JSON
        raise HTTPException(status_code=415, detail=f"the body must be {accepted}")
    if isinstance(fields, dict):
        fields |= {name: _picture(name, fields[name]) for name in images if name in fields}
    try:
        return msgspec.convert(fields, kind, strict=strict, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _invalid(error) from error


def picture(data: bytes) -> Picture:
    """A picture as this API accepts it."""
    return Picture(data, accepted=ACCEPTED)


def _json(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError("", f"the body is no JSON: {error}") from error


async def _form(request: Asked, kind: type[T]) -> dict[str, Any]:
    # The body may have been read already, which only a request that knows it can give again.
    await request.body()
    try:
        form = await request.form()
    except (UnicodeDecodeError, LookupError, ValueError) as error:
        raise ClientException("the body is no form that can be read") from error
    lists = names_of(kind, "array")
    fields: dict[str, Any] = {}
    for name, part in form.multi_items():
        value = part if isinstance(part, str) else await part.read()
        if name in lists:
            fields[name] = [*fields.get(name, []), value]
        elif name in fields:
            raise InvalidInputError(name, "it came twice")
        else:
            fields[name] = value
    for name in names_of(kind, "object") & fields.keys():
        fields[name] = _json_field(name, fields[name])
    return fields


def _json_field(name: str, value: str | bytes) -> object:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(name, f"it is no JSON: {error}") from error


def _picture(name: str, value: object) -> object:
    """A picture's bytes; what is no text is left to the check of types."""
    if isinstance(value, str):
        if len(value) > 2 * IMAGE_LIMIT_BYTES:
            raise PictureError({name: errors.TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES)})
        try:
            value = decode_base64(value)
        except InvalidBase64Error as error:
            raise InvalidInputError(name, f"it is no base64: {error}") from error
    if isinstance(value, bytes) and len(value) > IMAGE_LIMIT_BYTES:
        raise PictureError({name: errors.TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES)})
    return value


def _invalid(error: msgspec.ValidationError) -> InvalidInputError:
    found = _AT.fullmatch(str(error))
    assert found is not None
    detail, place = found.group(1), found.group(2) or ""
    if missing := _MISSING.fullmatch(detail):
        place = f"{place}.{missing.group(1)}".removeprefix(".")
    return InvalidInputError(place, detail)


def kept_metadata(metadata: dict[str, Any] | None) -> msgspec.Raw | None:
    """Metadata as it is kept.

    Raises:
        InvalidInputError: it is too large, or has a character that cannot be kept.
    """
    if metadata is None:
        return None
    said = msgspec.json.encode(metadata)
    if len(said) > METADATA_LIMIT_BYTES:
        raise InvalidInputError("metadata", f"it is longer than {METADATA_LIMIT_BYTES} bytes")
    if _NUL.search(said):
        raise InvalidInputError("metadata", "the character NUL cannot be kept")
    return msgspec.Raw(said)
