"""Authenticate: client credentials to a token, a token to who asks."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

import jwt
import msgspec

from oneton.domain.acting import actor
from oneton.domain.addresses import may_call_from
from oneton.domain.errors import (
    ElsewhereError,
    ExpiredKeyError,
    ForbiddenError,
    NotFoundError,
    SuspendedError,
    UnauthenticatedError,
)
from oneton.domain.model import Key, Permission, TenantId
from oneton.records.tenants import Keys, KnownKey

TOKEN_LIFE_S = 1800
KEY_HOLDS_S = 1.0
KEYS_SEEN = 10_000
_ISSUER = "oneton"


class Token(msgspec.Struct, frozen=True):
    """An access token and what its answer says about it."""

    text: str
    jti: UUID
    expires_in_s: int
    permissions: tuple[Permission, ...]


class Principal(msgspec.Struct, frozen=True):
    """Who asks, and what they may do.

    Attributes:
        most_requests_a_day: of the tenant; None is without end.
    """

    tenant_id: TenantId
    key_id: UUID
    permissions: frozenset[Permission]
    sandbox: bool = False
    most_requests_a_day: int | None = None

    def require(self, *needed: Permission) -> None:
        """Raise ForbiddenError for the first permission that is not held."""
        for permission in needed:
            if permission not in self.permissions:
                raise ForbiddenError(str(permission))


@dataclass(frozen=True)
class CreateKey:
    """Make an API key; its secret is shown once and kept only as a SHA-256."""

    keys: Keys

    async def __call__(
        self,
        tenant: TenantId,
        *,
        label: str,
        permissions: Sequence[Permission],
        sandbox: bool = False,
        as_uuid: bool = False,
        expires_at: datetime | None = None,
        addresses: Sequence[str] = (),
    ) -> tuple[Key, str]:
        """The key and its secret.

        Args:
            addresses: and networks that it may be used from; none is everywhere.
            sandbox: calls with it are checked, answered alike, and kept nowhere.
            as_uuid: the secret has the form of a UUID, of 122 random bits; else it is 256 as text.
        """
        # Hexadecimal, for a secret that begins with a dash is an option on a command line.
        secret = str(uuid4()) if as_uuid else secrets.token_hex(32)
        key = await self.keys.create(
            tenant,
            _digest(secret),
            label=label,
            permissions=permissions,
            sandbox=sandbox,
            expires_at=expires_at,
            addresses=addresses,
        )
        return key, secret


@dataclass(frozen=True)
class Authenticate:
    """Tokens are HS256 JWTs, signed with a secret that all replicas share.

    What Postgres said of a key holds for `KEY_HOLDS_S`, so a revoked key ends that much later at
    most, and its tokens with it; so do all calls of a tenant that is suspended or deleted.

    Every check raises UnauthenticatedError for what is no key in force, and a ForbiddenError where
    one is known but expired, used from another address than it may, or of a suspended tenant. The
    address is that of whoever acts.
    """

    keys: Keys
    signing_secret: bytes
    clock: Callable[[], float] = time.time
    _seen: dict[UUID, tuple[float, KnownKey]] = field(default_factory=dict)
    _signed: dict[str, tuple[float, UUID]] = field(default_factory=dict)
    _secrets: dict[bytes, tuple[float, KnownKey]] = field(default_factory=dict)

    async def issue(self, client_id: str, client_secret: str) -> Token:
        """Exchange a key's id and secret for a token.

        Raises:
            UnauthenticatedError: they are not those of a key in force.
        """
        try:
            known = await self.keys.find(UUID(client_id))
        except (ValueError, NotFoundError) as error:
            raise UnauthenticatedError("unknown client or wrong secret") from error
        key = known.key
        if not hmac.compare_digest(_digest(client_secret), known.secret_sha256) or key.revoked_at:
            raise UnauthenticatedError("unknown client or wrong secret")
        self._principal(known)
        issued_s = int(time.time())
        jti = uuid4()
        claims = {
            "iss": _ISSUER,
            "sub": str(key.key_id),
            "iat": issued_s,
            "exp": issued_s + TOKEN_LIFE_S,
            "jti": str(jti),
        }
        text = jwt.encode(claims, self.signing_secret, algorithm="HS256")
        return Token(text, jti, TOKEN_LIFE_S, key.permissions)

    async def check(self, token: str) -> Principal:
        """Who holds this token.

        Raises:
            UnauthenticatedError: it is not ours, has expired, or its key was revoked.
        """
        try:
            known = await self._key(self._signed_for(token))
        except (jwt.InvalidTokenError, ValueError, NotFoundError) as error:
            raise UnauthenticatedError("the token is not valid") from error
        return self._principal(known)

    async def check_secret(self, secret: str) -> Principal:
        """Whose key has this secret; for dialects that send nothing else.

        Raises:
            UnauthenticatedError: it is no key's, or its key was revoked.
        """
        digest = _digest(secret)
        asked_s = time.monotonic()
        seen_s, known = self._secrets.get(digest, (-KEY_HOLDS_S, None))
        if known is None or asked_s - seen_s >= KEY_HOLDS_S:
            if len(self._secrets) >= KEYS_SEEN:
                self._secrets.clear()
            try:
                known = await self.keys.find_secret(digest)
            except NotFoundError as error:
                raise UnauthenticatedError("the key is not valid") from error
            self._secrets[digest] = (asked_s, known)
        return self._principal(known)

    async def check_key(self, key_id: UUID, *, from_anywhere: bool = False) -> Principal:
        """Whose key this is; for dialects with tokens of their own, which they have checked.

        Args:
            from_anywhere: what is checked was handed on to somebody with another address.

        Raises:
            UnauthenticatedError: there is none of this id, or it was revoked.
        """
        try:
            known = await self._key(key_id)
        except NotFoundError as error:
            raise UnauthenticatedError("the key is not valid") from error
        return self._principal(known, from_anywhere=from_anywhere)

    async def check_pair(self, client_id: str, client_secret: str) -> Principal:
        """Whose key has this id and this secret.

        Raises:
            UnauthenticatedError: they are not those of a key in force.
        """
        principal = await self.check_secret(client_secret)
        if not hmac.compare_digest(str(principal.key_id).encode(), client_id.lower().encode()):
            raise UnauthenticatedError("unknown client or wrong secret")
        return principal

    def _signed_for(self, token: str) -> UUID:
        """The key that a token of ours was issued to; a signature is checked once."""
        expires_s, key_id = self._signed.get(token, (0.0, None))
        if key_id is None or expires_s <= time.time():
            claims = jwt.decode(
                token,
                self.signing_secret,
                algorithms=["HS256"],
                issuer=_ISSUER,
                # Another replica's clock may be a little ahead, or one was set back.
                options={"require": ["exp", "sub", "iss"], "verify_iat": False},
            )
            if len(self._signed) >= KEYS_SEEN:
                self._signed.clear()
            key_id = UUID(claims["sub"])
            self._signed[token] = (float(claims["exp"]), key_id)
        return key_id

    async def _key(self, key_id: UUID) -> KnownKey:
        asked_s = time.monotonic()
        seen_s, known = self._seen.get(key_id, (-KEY_HOLDS_S, None))
        if known is None or asked_s - seen_s >= KEY_HOLDS_S:
            if len(self._seen) >= KEYS_SEEN:
                self._seen.clear()
            known = await self.keys.find(key_id)
            self._seen[key_id] = (asked_s, known)
        return known

    def _principal(self, known: KnownKey, *, from_anywhere: bool = False) -> Principal:
        """Checked at every call, whatever is remembered of the key."""
        key = known.key
        if key.revoked_at is not None:
            raise UnauthenticatedError("the key was revoked")
        if known.suspended:
            raise SuspendedError
        if key.expires_at is not None and key.expires_at.timestamp() <= self.clock():
            raise ExpiredKeyError
        if not from_anywhere and not may_call_from(actor().address, key.addresses):
            raise ElsewhereError
        return Principal(
            key.tenant_id,
            key.key_id,
            frozenset(key.permissions),
            key.sandbox,
            known.most_requests_a_day,
        )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
