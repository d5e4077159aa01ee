"""Calls that have several paths."""

from __future__ import annotations

from collections.abc import Callable

from litestar.types.internal_types import PathParameterDefinition


def aliased(
    name: str, *paths: str
) -> Callable[[object, object, list[str | PathParameterDefinition]], str]:
    """An operation id for each path of a call, for no two operations may share one."""

    def create(_: object, __: object, parts: list[str | PathParameterDefinition]) -> str:
        path = "/" + "/".join(str(part) for part in parts)
        at = paths.index(path)
        return name if at == 0 else f"{name}Alias{at if at > 1 else ''}"

    return create
