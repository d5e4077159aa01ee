"""Around every request: where it really comes from, when it comes through proxies."""

from __future__ import annotations

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from oneton.domain.acting import Actor, acting_as
from oneton.domain.addresses import Network, caller_of, is_within, read_address

UNKNOWN = "caller"
"""Who acts until a key is known."""
_SCHEMES = ("http", "https")


class Origins:
    """ASGI middleware: the caller's address and scheme, where trusted proxies tell them.

    Everything further in sees them as if there were no proxy: guards, limits, the audit trail, and
    links that are made of a request's own address.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[Network, ...]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        host, port = scope.get("client") or (None, 0)
        address = caller_of(host, self._headers(scope, b"x-forwarded-for"), self._trusted)
        peer = None if host is None else read_address(host)
        if peer is not None and is_within(peer, self._trusted):
            said = self._headers(scope, b"x-forwarded-proto")
            if said and said[-1].strip().lower() in _SCHEMES:
                scope["scheme"] = said[-1].strip().lower()
        scope["client"] = None if address is None else (address, port)
        with acting_as(Actor(UNKNOWN, address)):
            await self._app(scope, receive, send)

    @staticmethod
    def _headers(scope: Scope, wanted: bytes) -> list[str]:
        return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
