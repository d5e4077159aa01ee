"""Merchant tokens: a merchant's id and key to a token of two days, and that to a new one."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import jwt
import msgspec

from oneton.domain.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from oneton.domain.model import Permission, Tenant
from oneton.records.tenants import Tenants
from oneton.verbs.authenticate import Authenticate, CreateKey, Principal

TOKEN_LIFE_S = 172_800
RENEWED_WITHIN_S = 30 * 86_400
KEY_MAY = (Permission.MATCH, Permission.INSERT, Permission.ERASE)
"""What the dialect's calls need."""


class _Claims(msgspec.Struct, frozen=True, rename="camel"):
    """As the vendor's tokens have them.

    Attributes:
        x_api_key: names the key, as a UUID; never its secret, for a token can be read by anybody.
    """

    cypher_face_id: str
    merchant_id: str
    x_api_key: UUID
    iat: int
    exp: int


@dataclass(frozen=True)
class MerchantTokens:
    """Tokens are HS256 JWTs; with its key each of them ends.

    Args:
        secret: the same on every replica.
        operator_secret: of who may make keys; None, and nobody may.
    """

    authenticate: Authenticate
    tenants: Tenants
    create_key: CreateKey
    secret: bytes
    operator_secret: str | None
    clock: Callable[[], float] = time.time

    async def issue(self, merchant_id: str, api_key: str) -> str:
        """A token for a merchant's key.

        Raises:
            UnauthenticatedError: there is no such pair in force.
            ForbiddenError: the key is for calls that keep nothing, which no call here can.
        """
        principal = await self.authenticate.check_secret(api_key)
        try:
            tenant = await self.tenants.by_public_id(merchant_id)
        except NotFoundError as error:
            raise UnauthenticatedError("unknown merchant or wrong key") from error
        if tenant.tenant_id != principal.tenant_id:
            raise UnauthenticatedError("unknown merchant or wrong key")
        if principal.sandbox:
            raise ForbiddenError("to keep users")
        return self._sign(tenant.public_id, principal.key_id)

    async def check(self, token: str) -> Principal:
        """Who holds this token.

        Raises:
            UnauthenticatedError: it is not ours, has expired, or its key was revoked.
        """
        claims = self._read(token)
        if claims.exp <= self.clock():
            raise UnauthenticatedError("the token has expired")
        return await self.authenticate.check_key(claims.x_api_key)

    async def renew(self, token: str) -> str:
        """A new token for one in force, or for one that expired at most 30 days ago.

        Raises:
            UnauthenticatedError: it is neither, or its key was revoked.
        """
        claims = self._read(token)
        if claims.exp + RENEWED_WITHIN_S <= self.clock():
            raise UnauthenticatedError("the token expired too long ago")
        await self.authenticate.check_key(claims.x_api_key)
        return self._sign(claims.merchant_id, claims.x_api_key)

    async def make_key(self, merchant_id: str, operator_secret: str) -> tuple[Tenant, str]:
        """A new key of a merchant, in the form of a UUID; earlier ones stay good.

        Raises:
            ForbiddenError: no operator secret is set.
            UnauthenticatedError: it is another one.
            NotFoundError: there is no such merchant.
        """
        if self.operator_secret is None:
            raise ForbiddenError("to make keys here")
        given, own = operator_secret.encode(), self.operator_secret.encode()
        if not hmac.compare_digest(given, own):
            raise UnauthenticatedError("the operator's secret is another one")
        try:
            tenant = await self.tenants.by_public_id(merchant_id)
        except NotFoundError as error:
            raise NotFoundError("merchant", merchant_id) from error
        _, secret = await self.create_key(
            tenant.tenant_id, label="merchant-api-key", permissions=KEY_MAY, as_uuid=True
        )
        return tenant, secret

    def _sign(self, merchant_id: str, key_id: UUID) -> str:
        issued_s = int(self.clock())
        claims = _Claims(merchant_id, merchant_id, key_id, issued_s, issued_s + TOKEN_LIFE_S)
        return jwt.encode(msgspec.to_builtins(claims), self.secret, algorithm="HS256")

    def _read(self, token: str) -> _Claims:
        """The claims of a token of ours, whenever it expires: the clock is not PyJWT's."""
        try:
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=["HS256"],
                options={"verify_exp": False, "verify_iat": False},
            )
            return msgspec.convert(claims, _Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError) as error:
            raise UnauthenticatedError("the token is not valid") from error
