"""Files that are whole or not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import SnapshotError

Part = bytes | NDArray[np.float16]

WRITING = ".writing"


def write_durably(path: Path, parts: Iterable[Part]) -> int:
    """Write beside, bring to the disk, rename; return the bytes written.

    The name itself is on the disk only after `sync_folder`.

    Raises:
        OSError: no room, or no permission; nothing is left.
    """
    beside = path.with_name(path.name + WRITING)
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            size = sum(_write_all(file.fileno(), part) for part in parts)
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return size


def read_checked(path: Path, sha256: str) -> bytes:
    """Read a file that must have this digest.

    Raises:
        SnapshotError: it is missing or has another.
        OSError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SnapshotError(f"{path.name} is missing") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SnapshotError(f"{path.name} ({len(data)} bytes) is not what was written")
    return data


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, part: Part) -> int:
    view = memoryview(part if isinstance(part, bytes) else part.tobytes())
    done = 0
    while done < len(view):
        done += os.write(descriptor, view[done : done + (1 << 30)])
    return done
