"""Large files in blocks: never whole in memory, and given up soon after who waits has left."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

from oneton.domain.errors import StoreDownError

BLOCK_BYTES = 1 << 20
_WRITING = ".writing"


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


def go_on(stop: Event) -> None:
    """Raise StoreDownError, which nobody hears, once `stop` is set."""
    if stop.is_set():
        raise StoreDownError("nobody waits for this file any more")


def until(stop: Event, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass blocks on, as long as `go_on` lets them."""
    for block in blocks:
        go_on(stop)
        yield block


def read_blocks(path: Path, stop: Event) -> Iterator[bytes]:
    """A file's bytes, so many at a time, as `until` passes them on."""
    with path.open("rb", buffering=0) as file:
        yield from until(stop, iter(partial(file.read, BLOCK_BYTES), b""))


def write_blocks(path: Path, blocks: Iterable[bytes]) -> None:
    """Write beside, bring to the disk, rename: whole or not there.

    The name itself is on the disk only once its folder is synced.
    """
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_WRITING}")
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
