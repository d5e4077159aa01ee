"""Who calls CypherFace's dialect."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request

from oneton.domain.model import TenantId
from oneton.edge.guards import Check, Connection
from oneton.edge.platform import Platform
from oneton.verbs.authenticate import Principal
from oneton.verbs.merchants import Merchants

TOKEN = [{"merchantToken": list[str]()}]
IMAGE_LIMIT_BYTES = 10 * 1024 * 1024
ACCEPTED = ("image/jpeg", "image/png")


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and the verbs.

    Attributes:
        origin: where clients reach this server.
    """

    principal: Principal
    platform: Platform
    origin: str

    @property
    def tenant(self) -> TenantId:
        """Whose data it is about."""
        return self.principal.tenant_id

    @property
    def merchants(self) -> Merchants:
        """The verbs of this dialect."""
        return self.platform.merchants


def make_caller(platform: Platform, request: Request[Any, Any, Any]) -> Caller:
    """The dependency of every handler behind the guard."""
    here = f"{request.url.scheme}://{request.url.netloc}"
    origin = (platform.settings.public_url or here).rstrip("/")
    return Caller(request.state.principal, platform, origin)


def by_merchant_token(merchants: Merchants) -> Check:
    """`authorization` with a token, bare or after the word Bearer."""

    async def check(connection: Connection) -> Principal:
        return await merchants.tokens.check(bare_token(connection.headers.get("authorization", "")))

    return check


def bare_token(header: str) -> str:
    """The token of an `authorization` header."""
    scheme, _, rest = header.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else header.strip()
