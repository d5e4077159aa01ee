"""Original pictures, and copies of index snapshots, in files or in an S3 store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
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


class SnapshotCopies(Protocol):
    """Files of any size by key, in the same store as the pictures and apart from them.

    A key has one or more parts, as a path has; no ImageStore's listing shows it, and no picture's
    key is the same. Every method raises StoreDownError when the store does not answer. A task that
    is cancelled leaves nothing half done in the store.
    """

    async def put_file(self, key: str, path: Path) -> None:
        """Store a file durably; a key that is there is overwritten."""
        ...

    async def get_file(self, key: str, path: Path) -> None:
        """Write what was stored to a file, beside it first; a file that is there is replaced.

        Raises:
            NotFoundError: nothing has this key.
        """
        ...

    async def delete_file(self, key: str) -> None:
        """Delete; a key that is not there is no error."""
        ...

    async def list_files(self, folder: str) -> tuple[StoredObject, ...]:
        """Everything whose key begins with `folder` and a slash, in no order."""
        ...


class ObjectStore(ImageStore, SnapshotCopies, Protocol):
    """What files and S3 are."""
