"""Sign results: what a caller can check without asking, with a key that we publish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import RSAAlgorithm

from oneton.domain.face_sessions import RESULT_LIFE, PublishedKey, SigningKey, utc_now
from oneton.records.signing_keys import SigningKeys

PUBLISHED = RESULT_LIFE + timedelta(minutes=5)
"""How long a retired key stays published: results that a slow replica signed last included."""
_BITS = 2048
_EXPONENT = 65537
_KEYS_READ = 20


@dataclass(frozen=True)
class SignResults:
    """JWS in compact form, RS256. Source: RFC 7515; claims as in RFC 7519.

    Args:
        issuer: the claim `iss`.
    """

    keys: SigningKeys
    issuer: str
    clock: Callable[[], datetime] = utc_now
    _read: dict[str, RSAPrivateKey] = field(default_factory=dict)

    async def __call__(self, audience: str, jti: UUID, data: Mapping[str, object]) -> str:
        """Sign the claim `data` for one reader; it holds for half an hour.

        Raises:
            StoreDownError: try again.
        """
        key = (await self._published())[0]
        now = self.clock()
        claims = {
            "iss": self.issuer,
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int((now + RESULT_LIFE).timestamp()),
            "jti": str(jti),
            "data": data,
        }
        # Without a type the header has a key's name and an algorithm only.
        headers = {"kid": key.kid, "typ": ""}
        return jwt.encode(claims, self._private(key), algorithm="RS256", headers=headers)

    async def published(self) -> list[PublishedKey]:
        """The public half of every key that a result in force may be signed with."""
        return [self._public(key) for key in await self._published()]

    async def _published(self) -> list[SigningKey]:
        """The key in force first; the first of all is made here."""
        since = self.clock() - PUBLISHED
        keys = await self.keys.published(since)
        if not keys:
            await self.keys.add_first(await make_signing_key(self.clock()))
            keys = await self.keys.published(since)
        return keys

    def _public(self, key: SigningKey) -> PublishedKey:
        parts = RSAAlgorithm.to_jwk(self._private(key).public_key(), as_dict=True)
        return PublishedKey(kid=key.kid, n=parts["n"], e=parts["e"])

    def _private(self, key: SigningKey) -> RSAPrivateKey:
        if key.kid not in self._read:
            if len(self._read) >= _KEYS_READ:
                self._read.clear()
            private = load_pem_private_key(key.private_pem.encode(), None)
            assert isinstance(private, RSAPrivateKey)
            self._read[key.kid] = private
        return self._read[key.kid]


async def make_signing_key(now: datetime) -> SigningKey:
    """A new key; computed in a thread, for it takes a tenth of a second or more."""
    private = await asyncio.to_thread(partial(generate_private_key, _EXPONENT, _BITS))
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey(uuid4().hex, pem.decode(), now, None)
