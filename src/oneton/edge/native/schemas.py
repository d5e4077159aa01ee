"""The bodies of calls in the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import cleandoc
from typing import Any, cast

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Parameter, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType

JSON = "application/json"
FORM = "multipart/form-data"
REPEAT_KEY = "Idempotency-Key"
_ATTRIBUTE = re.compile(r"^(\w+): (.*(?:\n .*)*)", re.MULTILINE)


def takes(
    kind: type[msgspec.Struct], *, images: Sequence[str] = (), once: bool = True
) -> type[Operation]:
    """Documents a body that `read_body` reads.

    Args:
        once: the call is a POST, and takes an idempotency key.
    """
    schema = _schema(kind)
    content = {JSON: _media(schema)}
    if images:
        content[FORM] = _media(_form_schema(schema, images))
    body = RequestBody(required=True, content=content)

    @dataclass
    class Documented(Operation):
        def __post_init__(self) -> None:
            self.request_body = body
            if once:
                self.parameters = [*(self.parameters or []), _repeat_key()]

    return Documented


def _repeat_key() -> Parameter:
    return Parameter(
        name=REPEAT_KEY,
        param_in="header",
        required=False,
        description="Calls with the same key and body are carried out once, within a day; the "
        "others are answered alike, with `Idempotency-Replayed: true`.",
        schema=Schema(
            type=OpenAPIType.STRING, min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$"
        ),
    )


def _media(schema: dict[str, Any]) -> OpenAPIMediaType:
    # Litestar writes a mapping out as it is.
    return OpenAPIMediaType(schema=cast("Schema", schema))


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """A Struct's JSON schema with everything that it refers to inside."""
    whole = msgspec.json.schema(kind)
    parts = whole.get("$defs", {})
    for part in parts.values():
        _describe(part)

    def inside(value: object) -> object:
        if isinstance(value, dict):
            if "$ref" in value:
                return inside(parts[str(value["$ref"]).removeprefix("#/$defs/")])
            return {name: inside(each) for name, each in value.items() if name != "$defs"}
        return [inside(each) for each in value] if isinstance(value, list) else value

    return cast("dict[str, Any]", inside(whole))


def _describe(schema: dict[str, Any]) -> None:
    """Let a docstring's attributes describe their properties."""
    text, _, attributes = cleandoc(schema.get("description", "")).partition("\n\nAttributes:\n")
    schema["description"] = text
    for found in _ATTRIBUTE.finditer(cleandoc(attributes)):
        said = " ".join(found.group(2).split())
        schema["properties"][found.group(1)]["description"] = said[0].upper() + said[1:]


def _form_schema(schema: dict[str, Any], images: Sequence[str]) -> dict[str, Any]:
    """The same as a form: pictures are files, and an object is JSON in a part."""
    properties = {}
    for name, whole in schema["properties"].items():
        each = _not_null(whole)
        if name in images:
            each = {"type": "string", "format": "binary"}
        elif each.get("type") == "object":
            each = {"type": "string", "contentMediaType": JSON}
        properties[name] = each
    return {**schema, "title": f"{schema['title']}Form", "properties": properties}


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    several = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return several[0] if several else schema


@lru_cache(64)
def names_of(kind: type[msgspec.Struct], of_type: str) -> set[str]:
    """The fields of a Struct that are of one JSON type, such as `array`."""
    properties = _schema(kind)["properties"]
    return {name for name, each in properties.items() if _not_null(each).get("type") == of_type}
