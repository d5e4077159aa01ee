"""A backup's folder: the manifest, the dump, the list of objects, and the objects.

Everything is written into `<name>.writing` beside, which is renamed at the end: what has its own
name is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from oneton.domain.backups import FORMAT, Backup, FileSum, ListedObject
from oneton.domain.errors import ConflictError, NotFoundError, OnetonError, UnavailableError
from oneton.images.keys import check_key

MANIFEST = "manifest.json"
DUMP = "database.dump"
LIST = "objects.jsonl"
NAMES = "named.txt"
"""Keys that rows name, while the backup is made."""
WRITING = ".writing"
_BLOCK_BYTES = 1 << 20
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ListedObject)


@dataclass(frozen=True)
class BackupFolder:
    """Paths within a backup, and how they are read."""

    path: Path

    @property
    def dump(self) -> Path:
        """The database, in pg_dump's custom format."""
        return self.path / DUMP

    @property
    def list(self) -> Path:
        """One JSON document a line, in no order."""
        return self.path / LIST

    def object(self, key: str) -> Path:
        """Where an object is.

        Raises:
            OnetonError: the list has what is no key.
        """
        try:
            return self.path.joinpath("objects", *check_key(key).split("/"))
        except ValueError as error:
            raise OnetonError(f"the backup is damaged: {error}") from error

    def manifest(self) -> Backup:
        """What the backup says of itself.

        Raises:
            NotFoundError: there is no backup here.
            OnetonError: it is damaged, or of a format that this version does not know.
        """
        try:
            data = (self.path / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError("backup", self.path) from error
        except OSError as error:
            raise UnavailableError(f"{self.path}: {error.strerror or error}") from error
        try:
            found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            form = msgspec.json.decode(found.get("format", b"0"), type=int)
            if form != FORMAT:
                raise OnetonError(f"the backup has format {form}, this version reads {FORMAT}")
            return msgspec.json.decode(data, type=Backup)
        except msgspec.DecodeError as error:
            raise OnetonError(f"the backup is damaged: {MANIFEST}: {error}") from error

    def listed(self) -> Iterator[ListedObject]:
        """Every object that a row names.

        Raises:
            OnetonError: a line is damaged.
        """
        try:
            with self.list.open("rb") as lines:
                for line in lines:
                    yield _decoder.decode(line)
        except (msgspec.DecodeError, OSError) as error:
            raise OnetonError(f"the backup is damaged: {LIST}: {error}") from error

    def write_manifest(self, backup: Backup) -> None:
        """Write it, the last of all files."""
        write_private(self.path / MANIFEST, (msgspec.json.format(_encoder.encode(backup)),))


@contextmanager
def new_folder(path: Path) -> Iterator[BackupFolder]:
    """A folder that has its name only when the block ends well; else nothing is left of it.

    Raises:
        ConflictError: something is there already, or another backup is being written there.
        UnavailableError: it cannot be written.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConflictError(f"{path} is there already, and not an empty folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + WRITING)
        try:
            beside.mkdir(mode=0o700)
        except FileExistsError as error:
            raise ConflictError(
                f"{beside} is there: another backup is being written, or was interrupted; "
                "delete it in the second case"
            ) from error
        try:
            yield BackupFolder(beside)
            _sync_folders(beside)
            if path.is_dir():
                path.rmdir()
            beside.rename(path)
            _sync(path.parent)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror or error}") from error


def write_private(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file that only its owner reads, durably."""
    _make_private(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.writelines(blocks)
        file.flush()
        os.fsync(descriptor)


def keep(path: Path, data: bytes, old: Path | None) -> None:
    """Write an object, or link it to a backup's that has the same bytes."""
    if old is not None:
        _make_private(path.parent)
        with suppress(OSError):
            if old.stat().st_size == len(data) and file_sum(old).sha256 == sum_of(data):
                os.link(old, path)
                return
    write_private(path, (data,))


def sum_of(data: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sum(path: Path) -> FileSum:
    """Read a file whole, a block at a time.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return FileSum(size, digest.hexdigest())


def line_of(listed: ListedObject) -> bytes:
    """A line of the list."""
    return _encoder.encode(listed) + b"\n"


def _make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _sync_folders(folder: Path) -> None:
    for each, _, _ in os.walk(folder):
        _sync(Path(each))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
