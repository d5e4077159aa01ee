"""Who calls the Didit dialect, and how often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.handlers.base import BaseRouteHandler

from oneton.domain.model import Permission
from oneton.edge.guards import Connection, by_header, make_guard
from oneton.edge.platform import Platform
from oneton.verbs.authenticate import Principal

DIALECT: Final = "didit"
WRITES_A_MINUTE = 300
READS_A_MINUTE = 600


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and the verbs.

    Attributes:
        origin: scheme and host that the request came to, for links to pictures.
    """

    principal: Principal
    verbs: Platform
    origin: str

    def link(self, key: str | None) -> str | None:
        """A link to an object that is good for an hour; None to a key that may not read."""
        may_read = Permission.READ in self.principal.permissions
        return self.verbs.make_links(key, self.origin) if may_read else None


def make_caller(platform: Platform, request: Request[Any, Any, Any]) -> Caller:
    """The dependency of every handler."""
    return Caller(request.state.principal, platform, f"{request.url.scheme}://{request.url.netloc}")


def make_limited_guard(
    platform: Platform,
) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """The guard of every call: the key, then how often it called in the last minute."""
    admit = make_guard(by_header(platform.authenticate, "x-api-key"), platform, DIALECT)

    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        await admit(connection, handler)
        is_read = connection.scope.get("method") in ("GET", "HEAD")
        limit = READS_A_MINUTE if is_read else WRITES_A_MINUTE
        kind = "didit-read" if is_read else "didit-write"
        await platform.limit_rate(connection.state.principal, kind, limit)

    return guard
