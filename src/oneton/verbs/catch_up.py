"""Catch up: this process's index of a gallery, at the head that Postgres has now."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import aclosing
from functools import partial
from math import inf
from time import monotonic

import msgspec
import structlog

from oneton.domain.errors import ConflictError, IndexLoadingError, OnetonError
from oneton.domain.model import Gallery, GalleryId, ModelPack, TenantId
from oneton.domain.stages import stage
from oneton.index.manifest import Identity, Manifest, names_of
from oneton.index.segmented import BULK_FACES, SegmentedIndex
from oneton.index.store import IndexStore
from oneton.records.faces import CHUNK, LOAD_CHUNK, Faces
from oneton.records.galleries import Galleries
from oneton.verbs.copy_snapshots import CopySnapshots
from oneton.verbs.cpu import Cpu
from oneton.verbs.doubt_snapshot import DoubtSnapshot

log = structlog.get_logger()

SAID_FACES = 1000
"""Loading a smaller gallery is not worth a line in the log."""


class Current(msgspec.Struct, frozen=True):
    """A gallery and an index of it that has reached the gallery's head, or passed it."""

    gallery: Gallery
    index: SegmentedIndex


class Loaded:
    """An index that this process holds, or is loading.

    Attributes:
        lock: held by who brings the index further.
        size_bytes: as it was last counted.
        snapshot_head: of the newest snapshot.
        snapshot_files: names of its segments.
        snapshot_at_s: when that was taken, monotonic.
        snapshot_failed_s: when the last one that could not be was tried.
    """

    def __init__(self, gallery: Gallery, identity: Identity) -> None:
        self.gallery = gallery
        self.identity = identity
        self.index: SegmentedIndex | None = None
        self.lock = asyncio.Lock()
        self.size_bytes = 0
        self.snapshot_head = 0
        self.snapshot_files: set[str] = set()
        self.snapshot_at_s = monotonic()
        self.snapshot_failed_s = -inf


_Key = tuple[TenantId, GalleryId]


class CatchUp:
    """Holds the indexes that this process was asked about.

    Args:
        cpu: for changes that answers wait for.
        upkeep: one thread of low priority, for what would keep the others too long.
        pack: the model pack this process embeds with, and its number in Postgres.
        load_within_s: how long a question waits for an index to be loaded; None is for ever.
        copies: of snapshots in the object store; None is for none.
    """

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        galleries: Galleries,
        faces: Faces,
        cpu: Cpu,
        upkeep: Cpu,
        store: IndexStore,
        pack: tuple[int, ModelPack],
        *,
        load_within_s: float | None = None,
        copies: CopySnapshots | None = None,
    ) -> None:
        self._galleries = galleries
        self._faces = faces
        self._cpu = cpu
        self._upkeep = upkeep
        self._store = store
        self._pack_no, self._pack = pack
        self._load_within_s = load_within_s
        self._copies = copies
        self._doubt = DoubtSnapshot(galleries, faces)
        self._held: OrderedDict[_Key, Loaded] = OrderedDict()
        self._tasks: dict[tuple[str, _Key], asyncio.Task[None]] = {}
        self.size_bytes = 0

    async def __call__(self, tenant: TenantId, gallery_id: GalleryId) -> Current:
        """Read the head, and bring the index there.

        Raises:
            NotFoundError: the tenant has no such gallery.
            ConflictError: the gallery was made by another model pack.
            IndexLoadingError: the index is being loaded; try again.
        """
        with stage("head"):
            gallery = await self._galleries.read(tenant, gallery_id)
        if gallery.model_pack_no != self._pack_no:
            raise ConflictError(
                f"gallery {gallery_id} was made by another model pack than {self._pack.name}"
            )
        key = (tenant, gallery_id)
        held = self._held.get(key)
        if held is None or held.gallery.gallery_no != gallery.gallery_no:
            held = self._held[key] = Loaded(gallery, self._identity(gallery))
        self._held.move_to_end(key)
        index = held.index
        if index is None or index.damage is not None:
            with stage("load"):
                index = await self._wait_for(key, held, gallery)
        if index.head < gallery.head:
            with stage("catch_up"):
                await self._bring(held, index, gallery)
        return Current(gallery, index)

    def forget(self, gallery: Gallery, why: str) -> None:
        """Use neither the index of a gallery nor its snapshots any more, for Postgres disagrees."""
        held = self._held.get((gallery.tenant_id, gallery.gallery_id))
        if held is not None and held.index is not None:
            held.index.damage = why

    def drop(self, held: Loaded) -> None:
        """Let go of an index; the next question loads it again."""
        key = (held.gallery.tenant_id, held.gallery.gallery_id)
        if self._held.get(key) is held:
            del self._held[key]
            self.size_bytes -= held.size_bytes

    def held(self) -> list[Loaded]:
        """The indexes in memory, the least recently asked first."""
        return [each for each in self._held.values() if each.index is not None]

    def count(self, held: Loaded) -> None:
        """Note how much memory an index takes now."""
        key = (held.gallery.tenant_id, held.gallery.gallery_id)
        if held.index is not None and self._held.get(key) is held:
            self.size_bytes += held.index.size_bytes - held.size_bytes
            held.size_bytes = held.index.size_bytes

    def hear(self, tenant: TenantId, gallery_id: GalleryId) -> None:
        """Catch up ahead of the next question, when this gallery is held at all."""
        held = self._held.get((tenant, gallery_id))
        if held is not None and held.index is not None:
            self._start("follow", (tenant, gallery_id), self._follow(held))

    async def close(self) -> None:
        """End what `hear` and the questions began; nothing may be heard any more."""
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _identity(self, gallery: Gallery) -> Identity:
        return Identity(
            tenant_id=str(gallery.tenant_id),
            gallery_id=gallery.gallery_id,
            gallery_no=gallery.gallery_no,
            model_pack=self._pack.name,
            model_sha256=self._pack.sha256,
            dimension=self._pack.dimension,
        )

    def _start(self, what: str, key: _Key, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Begin a piece of work, unless it is under way."""
        task = self._tasks.get((what, key))
        if task is not None:
            work.close()
            return task
        task = self._tasks[what, key] = asyncio.create_task(work)

        def ended(done: asyncio.Task[None]) -> None:
            del self._tasks[what, key]
            if not done.cancelled() and done.exception() is not None:
                log.debug("ended with an error", what=what, error=str(done.exception()))

        task.add_done_callback(ended)
        return task

    async def _wait_for(self, key: _Key, held: Loaded, gallery: Gallery) -> SegmentedIndex:
        task = self._start("load", key, self._load(held, gallery))
        try:
            async with asyncio.timeout(self._load_within_s):
                await asyncio.shield(task)
        except TimeoutError:
            raise IndexLoadingError("the gallery's index is being loaded", 2) from None
        assert held.index is not None
        return held.index

    async def _load(self, held: Loaded, gallery: Gallery) -> None:
        """From the newest snapshot that Postgres confirms, and from Postgres what came after."""
        started_s = monotonic()
        damage = None if held.index is None else held.index.damage
        if damage is not None:
            self._store.set_aside(held.identity, damage)
        index, manifest = await self._open(held, gallery)
        # A damaged index is read from Postgres, for a copy may be damaged likewise.
        if self._copies is not None and damage is None:
            head = None if manifest is None else manifest.head
            if await self._copies.download(held.identity, gallery.head, head):
                index, manifest = await self._open(held, gallery)
        from_snapshot = len(index)
        await self._replay(index, gallery)
        held.index = index
        held.snapshot_head = 0 if manifest is None else manifest.head
        held.snapshot_files = set() if manifest is None else names_of(manifest)
        held.snapshot_at_s = monotonic()
        self.count(held)
        if self._copies is not None and manifest is not None:
            self._copies.start_upload(manifest)
        if len(index) >= SAID_FACES:
            log.info(
                "index loaded",
                gallery=gallery.gallery_id,
                faces=len(index),
                from_snapshot=from_snapshot,
                took_s=round(monotonic() - started_s, 2),
            )

    async def _open(self, held: Loaded, gallery: Gallery) -> tuple[SegmentedIndex, Manifest | None]:
        """The index of the newest snapshot that Postgres confirms, or an empty one."""
        while True:
            opened = await self._cpu.run_upkeep(partial(self._store.open, held.identity))
            index, manifest = opened
            if manifest is None:
                return index, None
            why = await self._doubt(gallery, manifest, index)
            if why is None:
                return index, manifest
            self._store.refuse(held.identity, manifest, why)
            if self._copies is not None:
                self._copies.start_discard(manifest)

    async def _bring(self, held: Loaded, index: SegmentedIndex, gallery: Gallery) -> None:
        async with held.lock:
            await self._replay(index, gallery)
            self.count(held)

    async def _replay(self, index: SegmentedIndex, gallery: Gallery) -> None:
        """Apply what Postgres has after the index's head; many faces at once become segments."""
        behind = gallery.head - index.head
        if behind <= 0:
            return
        many = behind >= BULK_FACES
        found = self._faces.changes(
            gallery.tenant_id,
            gallery,
            index.head,
            self._pack.dimension,
            chunk=LOAD_CHUNK if many else CHUNK,
        )
        threads = self._upkeep if many else self._cpu
        async with aclosing(found) as chunks:
            async for changes in chunks:
                await threads.run_upkeep(partial(index.catch_up, changes))

    async def _follow(self, held: Loaded) -> None:
        index = held.index
        try:
            gallery = await self._galleries.read(held.gallery.tenant_id, held.gallery.gallery_id)
            if index is not None and held.gallery.gallery_no == gallery.gallery_no:
                await self._bring(held, index, gallery)
        except OnetonError as error:
            log.warning("following a gallery failed", error=str(error))
