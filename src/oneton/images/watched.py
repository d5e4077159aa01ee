"""An object store that tells how long its calls took, and which it did not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from oneton.domain.errors import StoreDownError
from oneton.domain.model import StoredObject
from oneton.domain.watching import Watch
from oneton.images import ObjectStore


class WatchedStore:
    """The store below, call by call; see the Protocol `ObjectStore`."""

    def __init__(self, store: ObjectStore, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        with self._told("put"):
            await self._store.put(key, data, content_type)

    async def get(self, key: str) -> tuple[bytes, str]:
        with self._told("get"):
            return await self._store.get(key)

    async def delete(self, key: str) -> None:
        with self._told("delete"):
            await self._store.delete(key)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        # Without its time, of which the most is the caller's between two pages.
        with self._errors("list"):
            async for each in self._store.list(prefix):
                yield each

    async def check(self) -> None:
        with self._told("check"):
            await self._store.check()

    async def close(self) -> None:
        await self._store.close()

    async def put_file(self, key: str, path: Path) -> None:
        with self._told("put_file"):
            await self._store.put_file(key, path)

    async def get_file(self, key: str, path: Path) -> None:
        with self._told("get_file"):
            await self._store.get_file(key, path)

    async def delete_file(self, key: str) -> None:
        with self._told("delete_file"):
            await self._store.delete_file(key)

    async def list_files(self, folder: str) -> tuple[StoredObject, ...]:
        with self._told("list_files"):
            return await self._store.list_files(folder)

    @contextmanager
    def _told(self, operation: str) -> Iterator[None]:
        started_s = perf_counter()
        try:
            with self._errors(operation):
                yield
        finally:
            self._watch.took("store", perf_counter() - started_s, operation)

    @contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        try:
            yield
        except StoreDownError:
            self._watch.count("store_errors", operation)
            raise
