"""Who asks: the guards of every dialect's calls.

A guard runs before the body is read, so that a stranger's body never is.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from oneton.domain import errors
from oneton.domain.acting import Actor, act_as, actor
from oneton.edge.platform import Platform
from oneton.verbs.authenticate import Authenticate, Principal
from oneton.verbs.limit_rate import LimitRate

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], Awaitable[None]]
Check = Callable[[Connection], Awaitable[Principal]]
"""Who asks, by a connection's headers.

Raises:
    UnauthenticatedError: nobody known.
"""


def by_token(authenticate: Authenticate) -> Check:
    """`Authorization: Bearer` with a token of the token call."""

    async def check(connection: Connection) -> Principal:
        return await authenticate.check(_credentials(connection, "bearer"))

    return check


def by_token_or_secret(authenticate: Authenticate) -> Check:
    """`Authorization: Bearer` with such a token, or with a key's secret itself."""

    async def check(connection: Connection) -> Principal:
        text = _credentials(connection, "bearer")
        if text.count(".") == 2:
            return await authenticate.check(text)
        return await authenticate.check_secret(text)

    return check


def by_header(authenticate: Authenticate, name: str) -> Check:
    """A header that is a key's secret."""

    async def check(connection: Connection) -> Principal:
        secret = connection.headers.get(name, "").strip()
        if not secret:
            raise errors.UnauthenticatedError(f"the header {name} is needed")
        return await authenticate.check_secret(secret)

    return check


def by_basic(authenticate: Authenticate) -> Check:
    """HTTP Basic with a key's id and secret."""

    async def check(connection: Connection) -> Principal:
        try:
            pair = base64.b64decode(_credentials(connection, "basic"), validate=True).decode()
        except ValueError as error:
            raise errors.UnauthenticatedError("the credentials are not Base64") from error
        client_id, _, secret = pair.partition(":")
        return await authenticate.check_pair(client_id, secret)

    return check


def act_for(principal: Principal) -> None:
    """From here on this is who acts, in the log and in the audit trail."""
    structlog.contextvars.bind_contextvars(tenant=str(principal.tenant_id))
    act_as(
        Actor(
            f"key {principal.key_id}",
            actor().address,
            structlog.contextvars.get_contextvars().get("request_id"),
        )
    )


def make_guard(check: Check, platform: Platform, dialect: str) -> Guard:
    """A guard that leaves the principal in the request's state, and counts the call.

    Handlers say `permissions=(...)`, and `computes=True` when they need the CPU budget.
    """

    async def admit(connection: Connection, handler: BaseRouteHandler) -> None:
        principal = await check(connection)
        act_for(principal)
        # Litestar's own answer to OPTIONS does nothing, and says none.
        is_options = connection.scope.get("method") == "OPTIONS"
        permissions = () if is_options else handler.opt["permissions"]
        principal.require(*permissions)
        await platform.check_open(principal.tenant_id)
        if handler.opt.get("computes"):
            platform.cpu.check_room()
        if not is_options:
            await platform.count_usage(principal, dialect, permissions)
        connection.state.principal = principal

    return admit


def make_limited_guard(guard: Guard, limit_rate: LimitRate, kind: str, limit: int | None) -> Guard:
    """The same guard, which then counts the key's calls of a kind; with no limit it does not."""
    if limit is None:
        return guard

    async def admit(connection: Connection, handler: BaseRouteHandler) -> None:
        await guard(connection, handler)
        await limit_rate(connection.state.principal, kind, limit)

    return admit


def _credentials(connection: Connection, wanted: str) -> str:
    scheme, _, text = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != wanted or not text:
        raise errors.UnauthenticatedError(f"{wanted} credentials are needed")
    return text.strip()
