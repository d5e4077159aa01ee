"""The guard of every call that takes a bearer token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from oneton.domain import errors
from oneton.verbs.authenticate import Authenticate
from oneton.verbs.cpu import Cpu


def make_guard(
    authenticate: Authenticate, cpu: Cpu
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Any]:
    """A guard: it runs before the body is read, so that a stranger's body never is."""

    async def admit(
        connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise errors.UnauthenticatedError("a bearer token is needed")
        principal = await authenticate.check(token.strip())
        structlog.contextvars.bind_contextvars(tenant=str(principal.tenant_id))
        principal.require(*handler.opt["permissions"])
        if handler.opt.get("computes"):
            cpu.check_room()
        connection.state.principal = principal

    return admit
