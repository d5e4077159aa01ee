"""Large files in blocks: never whole in memory, and given up soon after who waits has left."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from threading import Event

from oneton.domain.errors import StoreDownError

BLOCK_BYTES = 1 << 20


@contextmanager
def stop_on_leaving() -> Iterator[Event]:
    """An event for a thread to look at: set once nobody waits for its work any more.

    A task that is cancelled leaves at once, but its thread would go on for minutes.
    """
    stop = Event()
    try:
        yield stop
    finally:
        stop.set()


class StoppableFile(FileIO):
    """A file to send; reading it raises StoreDownError once it need not be sent any more."""

    def __init__(self, path: Path, stop: Event) -> None:
        super().__init__(path)
        self._stop = stop

    def read(self, size: int | None = -1, /) -> bytes:
        go_on(self._stop)
        return super().read(-1 if size is None else size)


def go_on(stop: Event) -> None:
    """Raise StoreDownError, which nobody hears, once `stop` is set."""
    if stop.is_set():
        raise StoreDownError("nobody waits for this file any more")


def read_blocks(path: Path, stop: Event) -> Iterator[bytes]:
    """A file's bytes, so many at a time."""
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            go_on(stop)
            yield block


def write_blocks(path: Path, blocks: Iterable[bytes]) -> None:
    """Write beside, bring to the disk, rename: whole or not there.

    The name itself is on the disk only once its folder is synced.
    """
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.writing")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            for block in blocks:
                view = memoryview(block)
                while view:
                    view = view[file.write(view) :]
            os.fsync(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
