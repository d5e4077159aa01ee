"""Who calls the uqudo dialect, and how its calls bring pictures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import UploadFile
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType

from oneton.domain import errors
from oneton.edge.guards import Connection, by_token, make_guard
from oneton.edge.pictures import InvalidBase64Error, decode_base64
from oneton.edge.platform import Platform
from oneton.edge.uqudo.refusals import BadRequestError
from oneton.verbs.analyse import Picture
from oneton.verbs.authenticate import Principal

IMAGE_LIMIT_BYTES = 5 * 1024 * 1024
ACCEPTED = ("image/jpeg", "image/png")
BEARER = [{"token": list[str]()}]

T = TypeVar("T")


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and the verbs; one dependency, for Litestar resolves several in a task each."""

    principal: Principal
    verbs: Platform


def make_limited_guard(
    platform: Platform,
) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """The guard of every call: the token, then how often its key called, where that is limited."""
    admit = make_guard(by_token(platform.authenticate), platform, "uqudo")
    limit = platform.settings.uqudo_calls_a_minute

    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        await admit(connection, handler)
        if limit is not None:
            await platform.limit_rate(connection.state.principal, "uqudo", limit)

    return guard


@dataclass
class FormOrJsonOperation(Operation):
    """Documents a body that a call reads by itself, in either form; a subclass says which."""

    def describe(self, schema: Schema) -> None:
        """Set the body's schema."""
        media = OpenAPIMediaType(schema=schema)
        self.request_body = RequestBody(
            required=True, content={"application/json": media, "multipart/form-data": media}
        )


PICTURE_SCHEMA = Schema(type=OpenAPIType.STRING, content_encoding="base64")


def is_form(request: Request[Any, Any, Any]) -> bool:
    """Whether the body is multipart; everything else is read as JSON."""
    return request.content_type[0] == "multipart/form-data"


async def read_json(request: Request[Any, Any, Any], kind: type[T]) -> T:
    """The body as JSON.

    Raises:
        BadRequestError: it is none of this kind.
    """
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused_input(error) from error


def refused_input(error: Exception) -> BadRequestError:
    """What msgspec says about a body, with the code of this dialect."""
    said = str(error)
    if "missing required field" in said:
        return BadRequestError("MISSING_INPUT", said)
    if "`$.minimumMatchLevel`" in said:
        return BadRequestError("INVALID_MATCH_LEVEL", said)
    return BadRequestError("INVALID_INPUT", said)


async def part_bytes(name: str, part: UploadFile | str | None) -> bytes:
    """A picture in a form, as a file or as base64 text.

    Raises:
        BadRequestError: it is missing, or no base64.
        TooLargeError: it is over the limit.
    """
    if part is None:
        raise BadRequestError("MISSING_INPUT", f"{name} is required")
    return decoded(name, part) if isinstance(part, str) else await part.read()


def decoded(name: str, text: str) -> bytes:
    """A picture's bytes from base64.

    Raises:
        BadRequestError: it is empty, or no base64.
        TooLargeError: it is over the limit.
    """
    if not text:
        raise BadRequestError("MISSING_INPUT", f"{name} is empty")
    if len(text) > 2 * IMAGE_LIMIT_BYTES:
        raise errors.TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES)
    try:
        return decode_base64(text)
    except InvalidBase64Error as error:
        raise BadRequestError("INVALID_BASE64", f"{name}: {error}") from error


def as_picture(data: bytes, *, liveness: bool = False) -> Picture:
    """A picture of the dialect's types; TooLargeError when it is over the limit."""
    if len(data) > IMAGE_LIMIT_BYTES:
        raise errors.TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES)
    return Picture(data, accepted=ACCEPTED, liveness=liveness)
