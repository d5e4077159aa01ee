"""Import faces: many photos through bounded stages, enrolled in batches, in their order."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from oneton.domain.errors import (
    BadTextError,
    BusyError,
    NotFoundError,
    OnetonError,
    ProbeError,
    UnavailableError,
)
from oneton.domain.model import FaceId, Gallery, GalleryId, TenantId
from oneton.sources import Item, ItemError
from oneton.verbs.analyse import Picture
from oneton.verbs.enroll_batch import Embedded, EnrollBatch, Outcome
from oneton.verbs.import_lines import Line, exists, line_of, refused, refused_by

BATCH = 32
"""Faces of one transaction at most."""
LINGER_S = 0.25
"""How long a batch waits to become full."""
CHUNK_BYTES = 64 << 20
"""Photos that are read together at most."""
HELD_BYTES = 256 << 20
"""Photos that are in memory at most."""
READERS = 8
TRIES = 4
"""Of a batch, while a part does not answer."""
RETRY_S = 1.0
"""Before the second try; twice as long before each that follows."""


class Wanted(msgspec.Struct, frozen=True):
    """How an import is to be done.

    Attributes:
        at_once: analyses side by side.
        if_missing: leave out people who are in the gallery, or came before in this import.
        any_gallery: a row may name another gallery.
        rate: photos a second at most.
    """

    max_bytes: int
    at_once: int
    if_missing: bool = True
    rotate: bool = False
    any_gallery: bool = True
    rate: float | None = None


Done = Callable[[list[Line]], Awaitable[None]]
Enter = Callable[[TenantId, GalleryId, Sequence[Embedded]], Awaitable[Sequence[Outcome | Line]]]
"""Enrolls a batch, or tries what would come of it."""


@dataclass(frozen=True)
class _Read:
    """An item that was read; `line` says what it came to when that is known already."""

    item: Item
    gallery_id: GalleryId
    held_bytes: int
    data: bytes = b""
    key: str = ""
    line: Line | None = None


_Ready = tuple[_Read, Embedded | None]
"""Without an embedding, there is a line."""


@dataclass(frozen=True)
class ImportFaces:
    """Each photo is enrolled once under its key, however often an import is interrupted."""

    enroll: EnrollBatch

    async def __call__(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        items: Iterator[Item],
        wanted: Wanted,
        done: Done,
        *,
        enter: Enter | None = None,
    ) -> None:
        """Import every item; `done` hears of each in their order, after it is committed.

        Args:
            items: walked in a thread.
            enter: takes the place of enrolling.

        Raises:
            NotFoundError: the tenant has no such gallery.
            UnavailableError: a part does not answer; what was done is kept.
            OnetonError: of `items` and `done`, and what ends an enrolment for good.
        """
        really = partial(self.enroll, if_missing=wanted.if_missing)
        run = _Run(self.enroll, tenant, gallery_id, wanted, done, enter or really)
        await run.gallery(gallery_id)
        await run.through(items)


@dataclass
class _Run:
    enroll: EnrollBatch
    tenant: TenantId
    gallery_id: GalleryId
    wanted: Wanted
    done: Done
    enter: Enter
    galleries: dict[GalleryId, Gallery] = field(default_factory=dict)
    held_bytes: int = 0
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.readers = anyio.CapacityLimiter(READERS)
        self.analyses = asyncio.Semaphore(self.wanted.at_once)
        self.queue: asyncio.Queue[asyncio.Task[_Ready] | Exception | None] = asyncio.Queue(BATCH)
        self.waiting: asyncio.Task[_Ready | None] | None = None
        self.ended = False

    async def gallery(self, gallery_id: GalleryId) -> Gallery:
        """A gallery by its name, read once."""
        if gallery_id not in self.galleries:
            found = await self.enroll.galleries.read(self.tenant, gallery_id)
            self.galleries[gallery_id] = found
        return self.galleries[gallery_id]

    async def through(self, items: Iterator[Item]) -> None:
        """Read ahead while what was read is analysed and enrolled."""
        feeding = asyncio.create_task(self._feed(items))
        try:
            while batch := await self._batch():
                await self._enter(batch)
        finally:
            tasks: list[asyncio.Task[Any]] = [feeding]
            tasks += [] if self.waiting is None else [self.waiting]
            while not self.queue.empty():
                entry = self.queue.get_nowait()
                tasks += [entry] if isinstance(entry, asyncio.Task) else []
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _feed(self, items: Iterator[Item]) -> None:
        try:
            await self._feed_all(items)
        except Exception as error:  # noqa: BLE001 - raised where the items are taken
            await self.queue.put(error)
        else:
            await self.queue.put(None)

    async def _feed_all(self, items: Iterator[Item]) -> None:
        at_s = monotonic()
        while chunk := await anyio.to_thread.run_sync(self._chunk, items):
            sizes = sum(self._size(item) for item in chunk)
            while self.held_bytes and self.held_bytes + sizes > HELD_BYTES:
                self.freed.clear()
                await self.freed.wait()
            self.held_bytes += sizes
            for read in await self._known(await asyncio.gather(*map(self._read, chunk))):
                await self.queue.put(asyncio.create_task(self._embed(read)))
            if self.wanted.rate is not None:
                at_s = max(at_s, monotonic() - 1) + len(chunk) / self.wanted.rate
                await asyncio.sleep(at_s - monotonic())

    def _chunk(self, items: Iterator[Item]) -> list[Item]:
        """The next few items; the last may go past the bytes, for one is always taken."""
        chunk: list[Item] = []
        size, most = 0, min(BATCH, max(1, int(self.wanted.rate or BATCH)))
        for each in islice(items, most):
            item = _nameable(each)
            chunk.append(item)
            size += self._size(item)
            if len(chunk) == most or size >= CHUNK_BYTES:
                break
        return chunk

    def _size(self, item: Item) -> int:
        if item.note.problem is not None:
            return 0
        most = self.wanted.max_bytes
        return most if item.size_bytes is None else min(item.size_bytes, most)

    async def _read(self, item: Item) -> _Read:
        note = item.note
        read = _Read(item, GalleryId(note.gallery or self.gallery_id), self._size(item))
        try:
            if note.problem is not None:
                raise note.problem
            if read.gallery_id != self.gallery_id and not self.wanted.any_gallery:
                raise ItemError("OtherGallery", f"its row names gallery {read.gallery_id}")
            await self.gallery(read.gallery_id)
            reading = partial(item.read, self.wanted.max_bytes)
            data = await anyio.to_thread.run_sync(reading, limiter=self.readers)
        except ItemError as error:
            return replace(read, line=refused(item, error.reason, str(error)))
        except (OSError, ProbeError, NotFoundError, BadTextError) as error:
            return replace(read, line=refused_by(item, error))
        digest = await anyio.to_thread.run_sync(hashlib.sha256, data)
        key = note.idempotency_key or f"import:{item.name}:{digest.hexdigest()}"
        return replace(read, data=data, key=key)

    async def _known(self, chunk: Sequence[_Read]) -> list[_Read]:
        """Those that an earlier run enrolled need not be analysed."""
        keys: dict[GalleryId, list[str]] = {}
        for read in chunk:
            if read.line is None:
                keys.setdefault(read.gallery_id, []).append(read.key)
        found: dict[tuple[GalleryId, str], FaceId] = {}
        for gallery_id, some in keys.items():
            gallery = await self.gallery(gallery_id)
            known = await self.enroll.faces.enrolled_with_each(self.tenant, gallery, some)
            found |= {(gallery_id, key): face_id for key, face_id in known.items()}
        ids = [found.get((read.gallery_id, read.key)) for read in chunk]
        return [
            read
            if face_id is None
            else replace(read, data=b"", line=exists(read.item, face_id, None))
            for read, face_id in zip(chunk, ids, strict=True)
        ]

    async def _embed(self, read: _Read) -> _Ready:
        if read.line is not None:
            return read, None
        picture = Picture(read.data, rotate=self.wanted.rotate)
        note, name = read.item.note.face, read.item.name
        async with self.analyses:
            while True:
                try:
                    return read, await self.enroll.embed(
                        self.tenant, read.gallery_id, picture, key=read.key, note=note, name=name
                    )
                except BusyError as error:
                    await asyncio.sleep(error.retry_after_s)
                except ProbeError as error:
                    return replace(read, data=b"", line=refused_by(read.item, error)), None

    async def _next(self) -> _Ready | None:
        entry = await self.queue.get()
        if isinstance(entry, Exception):
            raise entry
        return None if entry is None else await entry

    async def _batch(self) -> list[_Ready]:
        """What is ready, in order; empty at the end."""
        batch: list[_Ready] = []
        until_s = monotonic()
        while len(batch) < BATCH and not self.ended:
            if self.waiting is None:
                self.waiting = asyncio.create_task(self._next())
            timeout_s = max(0.0, until_s - monotonic()) if batch else None
            await asyncio.wait([self.waiting], timeout=timeout_s)
            if not self.waiting.done():
                break
            ready = self.waiting.result()
            self.waiting = None
            if ready is None:
                self.ended = True
                break
            if not batch:
                until_s = monotonic() + LINGER_S
            batch.append(ready)
        return batch

    async def _enter(self, batch: Sequence[_Ready]) -> None:
        """Enroll, tell of it, and only then let go of what was held."""
        lines = {place: read.line for place, (read, _) in enumerate(batch) if read.line}
        groups: dict[GalleryId, dict[int, Embedded]] = {}
        for place, (read, embedded) in enumerate(batch):
            if embedded is not None:
                groups.setdefault(read.gallery_id, {})[place] = embedded
        ended: OnetonError | None = None
        for gallery_id, group in groups.items():
            outcomes = await self._try(gallery_id, list(group.values()))
            for place, outcome in zip(group, outcomes, strict=True):
                line = line_of(batch[place][0].item, outcome)
                if isinstance(line, Line):
                    lines[place] = line
                else:
                    ended = line
            if ended is not None:
                break
        await self.done([lines[place] for place in sorted(lines)])
        if ended is not None:
            raise ended
        self.held_bytes -= sum(read.held_bytes for read, _ in batch)
        self.freed.set()

    async def _try(
        self, gallery_id: GalleryId, batch: Sequence[Embedded]
    ) -> Sequence[Outcome | Line]:
        """Again while a part does not answer: a key makes that safe."""
        found: dict[int, Outcome | Line] = {}
        left = list(range(len(batch)))
        for tries in range(TRIES):
            some = [batch[place] for place in left]
            found.update(zip(left, await self.enter(self.tenant, gallery_id, some), strict=True))
            # What follows one that is away may be added all the same: it is not to be told of as if
            # an earlier import had done it.
            left = [place for place in left if _is_away(found[place])]
            if not left or tries == TRIES - 1:
                break
            await asyncio.sleep(RETRY_S * 2**tries)
        return [found[place] for place in range(len(batch))]


def _nameable(item: Item) -> Item:
    """An item as it is, or refused by a name that can be shown when its own cannot be kept."""
    shown = item.name.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    if shown == item.name:
        return item
    why = "has a zero character" if "\0" in item.name else "is not UTF-8"
    problem = item.note.problem or ItemError("BadName", f"its name {why}")
    note = msgspec.structs.replace(item.note, problem=problem)
    return replace(item, name=shown, size_bytes=0, stamp="", note=note)


def _is_away(outcome: Outcome | Line) -> bool:
    return isinstance(outcome, UnavailableError)
