"""A tenant's keys in memory, and what is sealed with them.

Sealing is AES-256-GCM with a random nonce of 96 bits. What is sealed begins with a head that names
the form and the key's number; it is authenticated, with what the bytes are and whose.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import msgspec

from oneton.domain.errors import SealBrokenError
from oneton.domain.model import TenantId

NONCE_BYTES = 12
TAG_BYTES = 16
KEY_BYTES = 32
MOST_KEYS = 0xFF_FF_FF
"""A key's number has three bytes."""


class Cipher(Protocol):
    """What `AESGCM` of the library `cryptography` is."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The sealed bytes, their tag last."""
        ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The opened bytes; InvalidTag."""
        ...


class Ring(msgspec.Struct, frozen=True):
    """A tenant's keys that are not destroyed.

    Attributes:
        number: of the key in force, which everything is sealed with.
        ciphers: by number.
    """

    tenant_id: TenantId
    number: int
    ciphers: Mapping[int, Cipher]

    def seal(self, data: bytes, said: bytes) -> bytes:
        """Nonce, sealed bytes and tag.

        Args:
            said: what is authenticated with them.
        """
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.ciphers[self.number].encrypt(nonce, data, said)

    def open(self, number: int, sealed: bytes, said: bytes) -> bytes:
        """What `seal` was given.

        Raises:
            KeyError: the ring has no key of this number, though a newer one may.
            SealBrokenError: these are other bytes than were sealed.
        """
        cipher = self.ciphers[number]
        with broken_seals():
            return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], said)


class Rings(Protocol):
    """Where tenants' keys come from."""

    async def ring(self, tenant: TenantId, *, fresh: bool = False) -> Ring:
        """A tenant's keys; its first one is made when there is none.

        Args:
            fresh: as they are now; else as they were seconds ago at most.

        Raises:
            KeyDestroyedError: they were destroyed.
            NotFoundError: no such tenant.
            StoreDownError: Postgres does not answer.
        """
        ...


@contextmanager
def broken_seals(what: str = "what is encrypted") -> Iterator[None]:
    """Turn the library's error about bytes that are not those sealed into a SealBrokenError."""
    # Loaded where keys are used only.
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415

    try:
        yield
    except (InvalidTag, ValueError) as error:
        raise SealBrokenError(what) from error


def split_master_keys(text: str) -> tuple[str, ...]:
    """The master keys of a setting, the newest first.

    Raises:
        ValueError: one is none, or there is none; the keys are not repeated.
    """
    keys = tuple(text.replace(",", " ").split())
    if not keys:
        raise ValueError("there is no key in it")
    for number, key in enumerate(keys, start=1):
        try:
            size = len(base64.b64decode(key, b"-_", validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if size != KEY_BYTES:
            raise ValueError(
                f"key {number} of {len(keys)} is none; oneton encryption new-key prints one"
            )
    return keys
