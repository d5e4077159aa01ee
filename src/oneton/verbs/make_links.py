"""Make links: addresses of pictures that are good for a while, and need no key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from oneton.domain.errors import NotFoundError, SuspendedError
from oneton.domain.model import Tenant, TenantId
from oneton.images import ImageStore
from oneton.records.trail import Trail
from oneton.verbs.keep_picture import read_of

LINK_LIFE_S = 3600
_TAG_BYTES = 16


@dataclass(frozen=True)
class MakeLinks:
    """Links that any replica checks by itself; they name an object and a time, signed.

    Args:
        secret: the same on every replica.
        tenant_of: the tenant as it was a moment ago.
        base_url: where clients reach this server; None is where the request came to.
    """

    secret: bytes
    images: ImageStore
    trail: Trail
    tenant_of: Callable[[TenantId], Awaitable[Tenant]]
    base_url: str | None = None
    clock: Callable[[], float] = time.time

    def __call__(self, key: str | None, origin: str, life_s: float = LINK_LIFE_S) -> str | None:
        """A link to an object; None for None.

        Args:
            origin: scheme and host of the request, such as `http://localhost:8080`.
        """
        if key is None:
            return None
        said = f"{int(self.clock() + life_s):x}.{key}".encode()
        token = base64.urlsafe_b64encode(self._tag(said) + said).decode().rstrip("=")
        return f"{(self.base_url or origin).rstrip('/')}/media/{token}"

    async def read(self, token: str) -> tuple[bytes, str]:
        """The bytes and the content type that a link is of.

        Raises:
            NotFoundError: it is no link of ours, its time is over, or the object is gone.
            SuspendedError: its tenant is suspended.
            StoreDownError: try again.
        """
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            tag, said = data[:_TAG_BYTES], data[_TAG_BYTES:]
            ends, _, key = said.decode().partition(".")
            is_good = hmac.compare_digest(tag, self._tag(said)) and int(ends, 16) > self.clock()
        except ValueError:
            is_good = False
        if not is_good:
            raise NotFoundError("link", "it is over, or never was")
        tenant, act = read_of(key)
        owner = await self.tenant_of(tenant)
        if owner.suspended_at is not None or owner.deleted_at is not None:
            raise SuspendedError
        found = await self.images.get(key)
        self.trail.note(tenant, act)
        return found

    def _tag(self, said: bytes) -> bytes:
        return hmac.digest(self.secret, said, hashlib.sha256)[:_TAG_BYTES]
