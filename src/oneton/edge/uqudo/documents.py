"""This dialect's part of the OpenAPI document, at the addresses that the vendor names."""

from __future__ import annotations

import json
import re
from typing import Any

from litestar import Request, Response, get
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin

TAG = "uqudo"
_REFERENCE = re.compile(r'"#/components/schemas/([^"]+)"')


@get("/doc/v3/id-api/face", include_in_schema=False, sync_to_thread=True)
def show_json(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The document as JSON."""
    rendered = JsonRenderPlugin().render(request, dialect_document(_whole(request)))
    return Response(rendered, media_type="application/json")


@get("/doc/v3/id-api.yaml/face", include_in_schema=False, sync_to_thread=True)
def show_yaml(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The document as YAML."""
    rendered = YamlRenderPlugin().render(request, dialect_document(_whole(request)))
    return Response(rendered, media_type="application/yaml")


def dialect_document(whole: dict[str, Any]) -> dict[str, Any]:
    """The operations of this dialect, and the schemas that they name."""
    paths = {}
    for path, methods in whole["paths"].items():
        kept = {name: each for name, each in methods.items() if TAG in each.get("tags", [])}
        if kept:
            paths[path] = kept
    components = dict(whole.get("components", {}))
    every: dict[str, Any] = components.get("schemas", {})
    wanted: set[str] = set()
    found = _named(paths)
    while found:
        wanted |= found
        found = {name for each in found for name in _named(every[each])} - wanted
    components["schemas"] = {name: each for name, each in every.items() if name in wanted}
    return {**whole, "paths": paths, "components": components}


def _whole(request: Request[Any, Any, Any]) -> dict[str, Any]:
    # Through JSON, for the document holds objects that refer to each other.
    rendered = JsonRenderPlugin().render(request, request.app.openapi_schema.to_schema())
    whole: dict[str, Any] = json.loads(rendered)
    return whole


def _named(part: object) -> set[str]:
    return set(_REFERENCE.findall(json.dumps(part)))
