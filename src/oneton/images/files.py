"""Original pictures as files: nothing to install, durable, safe for several processes.

`<root>/<tenant>/<gallery>/<id>` is one picture, byte for byte. `<root>/.writing/` holds those being
written, and by being there says that the root is. `<root>/.snapshots/` holds copies of index
snapshots.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TypeVar

import anyio
import anyio.to_thread

from oneton.domain.errors import NotFoundError, StoreDownError
from oneton.domain.model import StoredObject
from oneton.images.blocks import read_blocks, stop_on_leaving, write_blocks
from oneton.images.keys import COPIES, check_key, copy_key

T = TypeVar("T")

UNKNOWN_TYPE = "application/octet-stream"
LEFTOVER_AGE_S = 3600.0
_WRITING = ".writing"
_THREADS = 16
_BATCH = 1000


def content_type_of(data: bytes) -> str:
    """Tell a picture's type by its first bytes; `application/octet-stream` for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "image/tiff"
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        return "image/bmp"
    return UNKNOWN_TYPE


class FileStore:
    """An ImageStore, and SnapshotCopies, in one folder, which processes of one machine may share.

    A picture's content type is read from its first bytes, not kept beside it, so it cannot get out
    of step. Empty folders stay: they are as few as the galleries, and removing one would race with
    a put. Once opened, a root that vanishes (an unmounted disk) is a store that is down, not an
    empty one.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writing = root / _WRITING
        self._opened = False
        self._limiter = anyio.CapacityLimiter(_THREADS)

    async def put(
        self,
        key: str,
        data: bytes,
        content_type: str,  # noqa: ARG002  `get` tells it from the bytes again
    ) -> None:
        """Store durably; a key that is there is overwritten."""
        path = self._path(key)
        await self._run(partial(self._put, path, (data,)))

    async def get(self, key: str) -> tuple[bytes, str]:
        """Read the bytes and the content type that they show."""
        path = self._path(key)
        data = await self._run(partial(self._get, path))
        if data is None:
            raise NotFoundError("image", key)
        return data, content_type_of(data)

    async def delete(self, key: str) -> None:
        """Delete; a key that is not there is no error."""
        path = self._path(key)
        await self._run(partial(self._delete, path))

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """All objects whose key starts with `prefix`, in order of key (by its UTF-8 bytes)."""
        objects = self._walk(prefix)
        while batch := await self._run(lambda: tuple(islice(objects, _BATCH))):
            for found in batch:
                yield found

    async def put_file(self, key: str, path: Path) -> None:
        """Copy a file into the store, durably; it is there whole or not at all."""
        target = self._root / copy_key(key)
        with stop_on_leaving() as stop:
            await self._run(partial(self._put, target, read_blocks(path, stop)))

    async def get_file(self, key: str, path: Path) -> None:
        """Copy a file out of the store."""
        source = self._root / copy_key(key)
        with stop_on_leaving() as stop:
            if not await self._run(partial(self._get_file, source, path, stop)):
                raise NotFoundError("snapshot copy", key)

    async def delete_file(self, key: str) -> None:
        """Delete a file of a copy."""
        await self._run(partial(self._delete, self._root / copy_key(key)))

    async def list_files(self, folder: str) -> tuple[StoredObject, ...]:
        """The files below a folder."""
        return await self._run(partial(self._list_files, self._root / copy_key(folder)))

    async def check(self) -> None:
        """Write, read and delete a few bytes; clear away what crashed writes left behind."""
        await self._run(self._check)

    async def close(self) -> None:
        """Nothing is held open."""

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*check_key(key).split("/"))

    async def _run(self, work: Callable[[], T]) -> T:
        """Do file work in a thread, the root opened first."""

        def opened() -> T:
            if not self._opened:
                _make_folders(self._writing)
                self._opened = True
            return work()

        try:
            return await anyio.to_thread.run_sync(opened, limiter=self._limiter)
        except OSError as error:
            raise StoreDownError(f"image folder {self._root}: {error.strerror or error}") from error

    def _put(self, path: Path, blocks: Iterable[bytes]) -> None:
        beside = self._write(blocks)
        try:
            _make_folders(path.parent, above=self._root)
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        _sync(path.parent)

    def _get(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            self._require_root()
            return None

    def _get_file(self, source: Path, path: Path, stop: Event) -> bool:
        if not source.is_file():
            self._require_root()
            return False
        write_blocks(path, read_blocks(source, stop))
        return True

    def _list_files(self, folder: Path) -> tuple[StoredObject, ...]:
        self._require_root()
        found = []
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file():
                    key = path.relative_to(self._root / COPIES).as_posix()
                    found.append(_described(path, key))
        return tuple(found)

    def _delete(self, path: Path) -> None:
        try:
            path.unlink()
        except FileNotFoundError:
            self._require_root()
        else:
            _sync(path.parent)

    def _check(self) -> None:
        probe = self._write((b"check",))
        try:
            if probe.read_bytes() != b"check":
                raise OSError("read other bytes than were written")
        finally:
            probe.unlink(missing_ok=True)
        oldest = time.time() - LEFTOVER_AGE_S
        with os.scandir(self._writing) as leftovers:
            for leftover in leftovers:
                with suppress(FileNotFoundError):
                    if leftover.stat().st_mtime < oldest:
                        Path(leftover).unlink()

    def _write(self, blocks: Iterable[bytes]) -> Path:
        """Write a new file that is on the disk when this returns, and in no listing."""
        path = self._writing / secrets.token_hex(16)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.writelines(blocks)
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _require_root(self) -> None:
        """Tell an object that is missing from a root that is."""
        self._writing.stat()

    def _walk(self, prefix: str) -> Iterator[StoredObject]:
        self._require_root()
        for tenant in _folders(self._root, "", prefix):
            for gallery in _folders(self._root / tenant, tenant, prefix):
                folder = self._root / gallery[:-1]
                for name in _names(folder):
                    key = gallery + name
                    if key.startswith(prefix) and (found := _stored(folder / name, key)):
                        yield found


def _stored(path: Path, key: str) -> StoredObject | None:
    """The object at a path; None when it was deleted meanwhile, or is not one of ours."""
    try:
        return _described(path, check_key(key))
    except (ValueError, FileNotFoundError):
        return None


def _described(path: Path, key: str) -> StoredObject:
    status = path.stat()
    return StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _folders(folder: Path, above: str, prefix: str) -> Iterator[str]:
    """Keys, each with a closing slash, of the folders that may hold keys of a prefix.

    Sorted with that slash, which is how the keys below them sort: `a-b/` comes before `a/`.
    """
    names = _names(folder, folders=True)
    for name in sorted((f"{name}/" for name in names), key=os.fsencode):
        key = above + name
        if key.startswith(prefix) or prefix.startswith(key):
            yield key


def _names(folder: Path, *, folders: bool = False) -> tuple[str, ...]:
    """Names of a folder's files, or its folders, sorted; none for a folder that is gone."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir() == folders
            ]
    except FileNotFoundError:
        return ()
    return tuple(sorted(names, key=os.fsencode))


def _make_folders(folder: Path, above: Path | None = None) -> None:
    """Make a folder, and those above it, private and durable.

    `above` must be there already: making it anew would hide that a disk is not mounted.
    """
    if folder == above or folder.is_dir():
        return
    _make_folders(folder.parent, above)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
