"""Original pictures, in files or in an S3 store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from oneton.domain.model import StoredObject


class ImageStore(Protocol):
    """Bytes by key, private; every method raises StoreDownError when the store does not answer."""

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store durably; a key that is there is overwritten."""
        ...

    async def get(self, key: str) -> tuple[bytes, str]:
        """Read the bytes and their content type.

        Raises:
            NotFoundError: nothing has this key.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete; a key that is not there is no error."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """All objects whose key starts with `prefix`, in order of key."""
        ...

    async def check(self) -> None:
        """Answer only if a write, a read and a delete work."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...
