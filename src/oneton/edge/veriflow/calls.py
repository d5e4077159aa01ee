"""Who calls the VeriFlow dialect, and how its bodies and pictures are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType

from oneton.domain import errors
from oneton.domain.metadata import InvalidMetadataError, checked_metadata
from oneton.domain.model import Permission, Tenant, TenantId
from oneton.edge.pictures import InvalidBase64Error, decode_base64
from oneton.edge.platform import Platform
from oneton.edge.veriflow.refusals import InvalidError, PictureError, plainly
from oneton.verbs.analyse import Picture
from oneton.verbs.authenticate import Principal

DIALECT = "veriflow"
SECURITY = [{"token": list[str]()}]
IMAGE_LIMIT_BYTES = 5 * 1024 * 1024
_PREFIX = re.compile(r"data:[\w/+.;=-]{0,100},", re.ASCII)
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)

Body = TypeVar("Body")


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and the verbs.

    Attributes:
        origin: scheme and host that the request came to, for links.
    """

    principal: Principal
    verbs: Platform
    origin: str

    @property
    def tenant_id(self) -> TenantId:
        """Whose data it is about."""
        return self.principal.tenant_id

    @property
    def base_url(self) -> str:
        """Where clients reach this server."""
        return (self.verbs.settings.public_url or self.origin).rstrip("/")

    def link(self, key: str | None) -> str | None:
        """A link to an object that is good for an hour; None to a key that may not read."""
        may_read = Permission.READ in self.principal.permissions
        return self.verbs.make_links(key, self.origin) if may_read else None

    async def tenant(self) -> Tenant:
        """The tenant and its options, as they were a second ago at most."""
        return await self.verbs.spend_credit.recent(self.tenant_id)


def make_caller(platform: Platform, request: Request[Any, Any, Any]) -> Caller:
    """The dependency of every handler."""
    return Caller(request.state.principal, platform, f"{request.url.scheme}://{request.url.netloc}")


async def read_body(request: Request[Any, Any, Any], kind: type[Body]) -> Body:
    """A body of JSON. By hand, for Litestar would take the caller's own JSON in it apart.

    Raises:
        InvalidError: it is no JSON, or lacks a field, or has a wrong one.
    """
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.DecodeError as error:
        raise InvalidError(plainly(str(error))) from error
    except UnicodeDecodeError as error:
        raise InvalidError("the body is not UTF-8") from error
    except RecursionError as error:
        raise InvalidError("the JSON is nested too deeply") from error


def read_metadata(raw: msgspec.Raw) -> msgspec.Raw | None:
    """The caller's own JSON; InvalidError when it cannot be kept."""
    try:
        return checked_metadata(raw)
    except InvalidMetadataError as error:
        raise InvalidError(f"metadata: {error}") from error


def read_picture(name: str, text: str, *, rotate: bool, liveness: bool = False) -> Picture:
    """A picture in base64.

    Raises:
        InvalidError: it is none; addresses are not fetched, for who could make this server ask
            any other could look around behind its firewall.
        PictureError: it is too large.
    """
    if not text.strip():
        raise InvalidError(f"{name} is required")
    if _URL.match(text):
        raise InvalidError(f"{name}: addresses are not fetched, send the picture itself in base64")
    too_large = PictureError(name, errors.TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES))
    if len(text) > 2 * IMAGE_LIMIT_BYTES:
        raise too_large
    try:
        data = decode_base64(text)
    except InvalidBase64Error as error:
        raise InvalidError(f"{name} is not base64: {error}") from error
    if len(data) > IMAGE_LIMIT_BYTES:
        raise too_large
    return Picture(data, rotate=rotate, attributes=True, liveness=liveness)


def prefix_of(text: str) -> str:
    """What stands before the base64 in a picture that is a data URL."""
    found = _PREFIX.match(text)
    return found[0] if found else ""


PICTURE = Schema(type=OpenAPIType.STRING, content_encoding="base64")
PERCENT = Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=100, default=30)
FLAG = Schema(type=OpenAPIType.BOOLEAN, default=False)
TEXT = Schema(type=OpenAPIType.STRING)
ANYTHING = Schema(description="any JSON, kept and repeated")


def one_of(*words: str, default: str | None = None) -> Schema:
    """A text of a few that there are."""
    return Schema(type=OpenAPIType.STRING, enum=list(words), default=default)


def documented(required: list[str], **properties: Schema) -> type[Operation]:
    """Documents a body that a handler reads by itself."""

    @dataclass
    class DocumentedOperation(Operation):
        def __post_init__(self) -> None:
            schema = Schema(type=OpenAPIType.OBJECT, required=required, properties=dict(properties))
            media = OpenAPIMediaType(schema=schema)
            self.request_body = RequestBody(required=True, content={"application/json": media})

    return DocumentedOperation
