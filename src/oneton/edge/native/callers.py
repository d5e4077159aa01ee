"""Who calls the native API, and the verbs."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from oneton.domain.errors import ForbiddenError
from oneton.domain.model import Permission, TenantId
from oneton.edge.platform import Platform
from oneton.verbs.authenticate import Principal

CHANGES = (Permission.INSERT, Permission.ERASE, Permission.PURGE, Permission.ADMIN)


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and the verbs."""

    principal: Principal
    verbs: Platform

    @property
    def tenant(self) -> TenantId:
        """Whose key it is."""
        return self.principal.tenant_id


def refuse_sandbox(principal: Principal, handler: BaseRouteHandler) -> None:
    """Raise ForbiddenError where a sandbox key would change something."""
    if principal.sandbox:
        for permission in handler.opt["permissions"]:
            if permission in CHANGES:
                raise ForbiddenError(f"{permission} of a key that is not for the sandbox")


def guard_sandbox(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """The same as a guard, after the one that finds out who asks."""
    refuse_sandbox(connection.state.principal, handler)


def origin(request: Request[Any, Any, Any]) -> str:
    """Scheme and host that a request came to, for links."""
    return f"{request.url.scheme}://{request.url.netloc}"
