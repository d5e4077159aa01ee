"""The multipart forms of the calls on faces, read and checked before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import FormMultiDict, UploadFile
from litestar.exceptions import ClientException, HTTPException
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

from oneton.domain.metadata import InvalidMetadataError, checked_metadata
from oneton.domain.model import Score
from oneton.edge.didit.refusals import FieldError
from oneton.verbs.analyse import Picture

MULTIPART = "multipart/form-data"
IMAGE_LIMIT_BYTES = 5 * 1024 * 1024
ACCEPTED = ("image/jpeg", "image/png", "image/webp", "image/tiff")
VENDOR_DATA_LIMIT = 500
"""Characters; four bytes each still fit in an index of Postgres's."""
DEFAULT_DECLINE_THRESHOLD = Score(30.0)

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_TOO_LARGE = "The file is larger than 5 MB."


class Common(msgspec.Struct, frozen=True):
    """The fields that all forms have."""

    rotate: bool
    save: bool
    vendor_data: str | None
    metadata: msgspec.Raw | None


@dataclass(frozen=True)
class Form:
    """A form's fields; an empty one counts as not sent."""

    fields: FormMultiDict

    @classmethod
    async def read(cls, request: Request[Any, Any, Any]) -> Form:
        """Read a request's form.

        Raises:
            HTTPException: 415 for any other content type, 400 for a broken form.
            FieldError: the body is larger than two files may be.
        """
        sent = request.content_type[0]
        if sent != MULTIPART:
            said = f'Unsupported media type "{sent}" in request.'
            raise HTTPException(status_code=415, detail=said)
        try:
            return cls(await request.form())
        except HTTPException as error:
            if error.status_code == 413:
                raise FieldError("user_image", _TOO_LARGE) from error
            raise ClientException(f"Multipart form parse error: {error.detail}") from error
        except (UnicodeDecodeError, LookupError) as error:
            raise ClientException("Multipart form parse error: a field is no text.") from error

    def common(self) -> Common:
        """The fields that all forms have; FieldError when one is wrong."""
        return Common(
            rotate=self.flag("rotate_image", default=False),
            save=self.flag("save_api_request", default=True),
            vendor_data=self.vendor_data(),
            metadata=self.metadata(),
        )

    async def picture(
        self, name: str, *, rotate: bool = False, attributes: bool = False, liveness: bool = False
    ) -> Picture:
        """A file that is a picture by its first bytes; FieldError when it is none."""
        part = self.fields.get(name)
        if part is None:
            raise FieldError(name, "No file was submitted.")
        if not isinstance(part, UploadFile):
            raise FieldError(
                name, "The submitted data was not a file. Check the encoding type on the form."
            )
        data = await part.read(IMAGE_LIMIT_BYTES + 1)
        if not data:
            raise FieldError(name, "The submitted file is empty.")
        if len(data) > IMAGE_LIMIT_BYTES:
            raise FieldError(name, _TOO_LARGE)
        picture = Picture(
            data, accepted=ACCEPTED, rotate=rotate, attributes=attributes, liveness=liveness
        )
        if picture.content_type not in ACCEPTED:
            raise FieldError(name, "The file is none of: tiff, jpg, jpeg, png, webp.")
        return picture

    def flag(self, name: str, *, default: bool) -> bool:
        """`true` or `false`."""
        text = self._text(name)
        if text is None:
            return default
        if text.lower() not in _BOOLEANS:
            raise FieldError(name, "Must be a valid boolean.")
        return _BOOLEANS[text.lower()]

    def threshold(self, name: str) -> Score:
        """A number from 0 to 100."""
        text = self._text(name)
        if text is None:
            return DEFAULT_DECLINE_THRESHOLD
        try:
            number = float(text)
        except ValueError as error:
            raise FieldError(name, "A valid number is required.") from error
        if not 0 <= number <= 100:
            raise FieldError(name, "Ensure this value is from 0 to 100.")
        return Score(number)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of some words; the first is the default."""
        text = self._text(name)
        if text is None:
            return allowed[0]
        if text not in allowed:
            raise FieldError(name, f'"{text[:100]}" is not a valid choice.')
        return text

    def vendor_data(self) -> str | None:
        """The caller's reference."""
        text = self._text("vendor_data")
        if text is not None and len(text) > VENDOR_DATA_LIMIT:
            said = f"Ensure this field has no more than {VENDOR_DATA_LIMIT} characters."
            raise FieldError("vendor_data", said)
        if text is not None and "\0" in text:
            raise FieldError("vendor_data", "Null characters are not allowed.")
        return text

    def metadata(self) -> msgspec.Raw | None:
        """A JSON object."""
        text = self._text("metadata")
        if text is None:
            return None
        try:
            checked = checked_metadata(msgspec.Raw(text.encode()))
        except InvalidMetadataError as error:
            raise FieldError("metadata", f"Value must be valid JSON: {error}.") from error
        if checked is not None and not bytes(checked).startswith(b"{"):
            raise FieldError("metadata", "Value must be a JSON object.")
        return checked

    def _text(self, name: str) -> str | None:
        part = self.fields.get(name)
        if part is not None and not isinstance(part, str):
            raise FieldError(name, "Not a valid string.")
        return part or None


def documented_form(*, required: tuple[str, ...], **fields: Schema) -> type[Operation]:
    """An operation whose OpenAPI entry tells the form's fields, with those that all have."""
    properties = {**dict.fromkeys(required, FILE), **fields, **_COMMON}

    return documented_body(MULTIPART, properties, required=required)


def documented_body(
    content_type: str, properties: Mapping[str, Schema], *, required: tuple[str, ...] = ()
) -> type[Operation]:
    """An operation whose OpenAPI entry tells a body that the handler reads by itself."""

    @dataclass
    class BodyOperation(Operation):
        def __post_init__(self) -> None:
            schema = Schema(
                type=OpenAPIType.OBJECT, required=list(required), properties=dict(properties)
            )
            self.request_body = RequestBody(
                required=bool(required), content={content_type: OpenAPIMediaType(schema=schema)}
            )

    return BodyOperation


FILE = Schema(
    type=OpenAPIType.STRING,
    format=OpenAPIFormat.BINARY,
    description="tiff, jpg, jpeg, png or webp, at most 5 MB",
)
PERCENT = Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=100, default=30)
_COMMON = {
    "rotate_image": Schema(type=OpenAPIType.BOOLEAN, default=False),
    "save_api_request": Schema(type=OpenAPIType.BOOLEAN, default=True),
    "vendor_data": Schema(type=OpenAPIType.STRING, max_length=VENDOR_DATA_LIMIT),
    "metadata": Schema(type=OpenAPIType.STRING, description="a JSON object"),
}
