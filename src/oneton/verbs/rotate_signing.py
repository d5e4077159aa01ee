"""Rotate signing: results are signed with a new key from now on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from oneton.domain.face_sessions import SigningKey, utc_now
from oneton.records.signing_keys import SigningKeys
from oneton.verbs.sign_results import PUBLISHED, make_signing_key


class RotatedKey(msgspec.Struct, frozen=True):
    """A key that is published, without its private half.

    Attributes:
        published_until: None while it signs.
    """

    kid: str
    created_at: datetime
    published_until: datetime | None


@dataclass(frozen=True)
class RotateSigning:
    """Every replica signs with the new key at once, for each reads it when it signs."""

    keys: SigningKeys
    clock: Callable[[], datetime] = utc_now

    async def __call__(self) -> list[RotatedKey]:
        """Put a new key in force; older ones stay until what they signed has expired.

        Returns:
            the key in force first. Of several calls at once one makes it.

        Raises:
            StoreDownError: try again.
        """
        now = self.clock()
        await self.keys.rotate(await make_signing_key(now), now - PUBLISHED)
        return [_rotated(each) for each in await self.keys.published(now - PUBLISHED)]


def _rotated(key: SigningKey) -> RotatedKey:
    until = None if key.retired_at is None else key.retired_at + PUBLISHED
    return RotatedKey(key.kid, key.created_at, until)
