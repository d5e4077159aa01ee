"""Catch up: this process's index of a gallery, at the head that Postgres has now."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import aclosing
from functools import partial
from math import inf
from time import monotonic
from uuid import UUID

import msgspec
import structlog

from oneton.domain.errors import IndexLoadingError, NotFoundError, OnetonError
from oneton.domain.model import Gallery, GalleryId, ModelPack, SecondPack, TenantId
from oneton.domain.stages import stage
from oneton.index.manifest import Identity, KeptGallery, Manifest, names_of
from oneton.index.segmented import BULK_FACES, SegmentedIndex
from oneton.index.store import IndexStore
from oneton.records.faces import CHUNK, LOAD_CHUNK, Faces
from oneton.records.galleries import Galleries
from oneton.records.model_packs import ModelPacks
from oneton.verbs.copy_snapshots import CopySnapshots
from oneton.verbs.cpu import Cpu
from oneton.verbs.doubt_snapshot import DoubtSnapshot

log = structlog.get_logger()

FOLLOW_EVERY_S = 0.05
SAID_FACES = 1000
"""Loading a smaller gallery is not worth a line in the log."""


class Current(msgspec.Struct, frozen=True):
    """A gallery and an index of it that has reached the gallery's head, or passed it.

    Attributes:
        pack_no: the model pack of the index's templates: that of the gallery, or the one that was
            before, while the index of the new one is being loaded here.
    """

    gallery: Gallery
    index: SegmentedIndex
    pack_no: int


class Loaded:
    """An index that this process holds, or is loading.

    Attributes:
        lock: held by who brings the index further.
        size_bytes: as it was last counted.
        snapshot_head: of the newest snapshot.
        snapshot_files: names of its segments.
        snapshot_at_s: when that was taken, monotonic.
        snapshot_failed_s: when the last one that could not be was tried.
        newest: the gallery at the highest head that anybody asked for.
        is_moving: changes are being applied.
        gone: the gallery was deleted; no file of it is to be written any more.
    """

    def __init__(self, gallery: Gallery, pack_no: int, identity: Identity) -> None:
        self.gallery = gallery
        self.pack_no = pack_no
        self.fill = identity.fill
        self.identity = identity
        self.index: SegmentedIndex | None = None
        self.newest = gallery
        self.is_moving = False
        self.size_bytes = 0
        self.snapshot_head = 0
        self.snapshot_files: set[str] = set()
        self.snapshot_at_s = monotonic()
        self.snapshot_failed_s = -inf
        self.gone = False

    @property
    def key(self) -> _Key:
        """What it is held under."""
        return (self.gallery.tenant_id, self.gallery.gallery_id, self.pack_no, self.fill)


_Key = tuple[TenantId, GalleryId, int, int]


class CatchUp:
    """Holds the indexes that this process was asked about.

    Args:
        cpu: for opening and loading.
        follow: one thread for the changes that answers wait for, which would otherwise queue up
            behind pictures; None is `cpu`.
        upkeep: one thread of low priority, for what would keep the others too long.
        packs: what is known of model packs by their numbers.
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
        packs: ModelPacks,
        *,
        load_within_s: float | None = None,
        copies: CopySnapshots | None = None,
        follow: Cpu | None = None,
    ) -> None:
        self._galleries = galleries
        self._faces = faces
        self._cpu = cpu
        self._follow_cpu = follow or cpu
        self._upkeep = upkeep
        self._store = store
        self._packs = packs
        self._known: dict[int, ModelPack] = {}
        self._load_within_s = load_within_s
        self._copies = copies
        self._doubt = DoubtSnapshot(galleries, faces)
        self._held: OrderedDict[_Key, Loaded] = OrderedDict()
        self._tasks: dict[tuple[str, _Key], asyncio.Task[None]] = {}
        self._heard: set[_Key] = set()
        self.size_bytes = 0

    async def __call__(
        self, tenant: TenantId, gallery_id: GalleryId, *, pack_no: int | None = None
    ) -> Current:
        """Read the head, and bring the index there.

        Args:
            pack_no: of the index that is wanted; None is the one that answers. Just after a
                cut-over that is the one before, for as long as the new one is being loaded.

        Raises:
            NotFoundError: the tenant has no such gallery.
            IndexLoadingError: the index is being loaded; try again.
        """
        with stage("head"):
            gallery = await self._galleries.read(tenant, gallery_id)
        held = await self._chosen(gallery, pack_no)
        self._held.move_to_end(held.key)
        index = held.index
        if index is None or index.damage is not None:
            with stage("load"):
                index = await self._wait_for(held, gallery)
        if index.head < gallery.head:
            with stage("catch_up"):
                await self._bring(held, index, gallery)
        return Current(gallery, index, held.pack_no)

    def forget(self, current: Current, why: str) -> None:
        """Use neither an index nor its snapshots any more, for Postgres disagrees."""
        gallery = current.gallery
        for held in self._of(gallery.tenant_id, gallery.gallery_id):
            if held.index is current.index:
                current.index.damage = why

    def drop(self, held: Loaded) -> None:
        """Let go of an index; the next question loads it again."""
        if self._held.get(held.key) is held:
            del self._held[held.key]
            self.size_bytes -= held.size_bytes

    async def discard(self, identity: Identity) -> None:
        """Delete what is kept of a gallery under a model pack that it uses no more."""
        await self._upkeep.run_upkeep(partial(self._store.discard, identity))
        if self._copies is not None:
            self._copies.start_forget(identity)

    async def forget_deleted(self) -> None:
        """Let go of galleries that are no more: indexes, snapshots, and copies of these.

        Raises:
            StoreDownError: Postgres does not answer.
        """
        kept = await self._upkeep.run_upkeep(self._store.galleries)
        kept |= {_kept(held.gallery) for held in self._held.values()}
        if not kept:
            return
        gone = await self._galleries.gone(
            [(TenantId(UUID(each.tenant_id)), each.gallery_no) for each in kept]
        )
        for each in kept:
            if each.gallery_no not in gone:
                continue
            for held in list(self._held.values()):
                if held.gallery.gallery_no == each.gallery_no:
                    self._let_go(held)
            await self._upkeep.run_upkeep(partial(self._store.discard_gallery, each))
            if self._copies is not None:
                self._copies.start_forget_gallery(each)

    async def is_of_use(self, identity: Identity) -> bool:
        """Whether a snapshot is of a gallery and a model pack that Postgres has together.

        Raises:
            NotFoundError: Postgres has no such gallery.
        """
        gallery = await self._galleries.read(
            TenantId(UUID(identity.tenant_id)), GalleryId(identity.gallery_id)
        )
        if gallery.gallery_no != identity.gallery_no:
            return False
        for pack_no in gallery.pack_nos:
            sha256 = (await self._packs.named(pack_no)).sha256
            if (sha256, gallery.fill_of(pack_no)) == (identity.model_sha256, identity.fill):
                return True
        return False

    def held(self) -> list[Loaded]:
        """The indexes in memory, the least recently asked first."""
        return [each for each in self._held.values() if each.index is not None]

    def count(self, held: Loaded) -> None:
        """Note how much memory an index takes now."""
        if held.index is not None and self._held.get(held.key) is held:
            self.size_bytes += held.index.size_bytes - held.size_bytes
            held.size_bytes = held.index.size_bytes

    def hear(self, tenant: TenantId, gallery_id: GalleryId) -> None:
        """Catch up ahead of the next question, when this gallery is held at all."""
        for held in self._of(tenant, gallery_id):
            if held.index is not None:
                self._heard.add(held.key)
                self._start("follow", held.key, self._follow_all(held))

    def hear_closed(self, tenant: TenantId, _: GalleryId) -> None:
        """Let go of what is held of a tenant whose keys were destroyed."""
        self._start("close", (tenant, GalleryId(""), 0, 0), self._forget_quietly())

    async def close(self) -> None:
        """End what `hear` and the questions began; nothing may be heard any more."""
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _of(self, tenant: TenantId, gallery_id: GalleryId) -> list[Loaded]:
        return [each for key, each in self._held.items() if key[:2] == (tenant, gallery_id)]

    async def _chosen(self, gallery: Gallery, pack_no: int | None) -> Loaded:
        """The index to ask: of the gallery's pack, or of the one before while that loads."""
        wanted = gallery.model_pack_no if pack_no is None else pack_no
        held = await self._hold(gallery, wanted)
        if pack_no is not None or gallery.second is not SecondPack.KEPT:
            return held
        assert gallery.second_pack_no is not None
        before = self._held.get(
            (gallery.tenant_id, gallery.gallery_id, gallery.second_pack_no, gallery.second_fill)
        )
        is_ready = held.index is not None and held.index.damage is None
        if is_ready or before is None or before.index is None or before.index.damage is not None:
            return held
        self._start("load", held.key, self._load(held, gallery))
        return before

    async def _hold(self, gallery: Gallery, pack_no: int) -> Loaded:
        fill = gallery.fill_of(pack_no)
        if fill is None:
            raise IndexLoadingError(f"gallery {gallery.gallery_id} changed its model pack")
        key = (gallery.tenant_id, gallery.gallery_id, pack_no, fill)
        held = self._held.get(key)
        if held is not None and held.gallery.gallery_no == gallery.gallery_no:
            return held
        if held is not None:
            # Of a gallery that was deleted before another one got its name.
            self._let_go(held)
        if pack_no not in self._known:
            self._known[pack_no] = await self._packs.named(pack_no)
            # Another question may have been first.
            return await self._hold(gallery, pack_no)
        made = Loaded(gallery, pack_no, _identity(gallery, self._known[pack_no], fill))
        self._held[key] = made
        return made

    def _start(self, what: str, key: _Key, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Begin a piece of work, unless it is under way."""
        task = self._tasks.get((what, key))
        # One that is over, and is about to be forgotten, did not see what this one is for.
        if task is not None and not task.done():
            work.close()
            return task
        task = self._tasks[what, key] = asyncio.create_task(work)

        def ended(done: asyncio.Task[None]) -> None:
            if self._tasks.get((what, key)) is done:
                del self._tasks[what, key]
            if not done.cancelled() and done.exception() is not None:
                log.debug("ended with an error", what=what, error=str(done.exception()))

        task.add_done_callback(ended)
        return task

    async def _wait_for(self, held: Loaded, gallery: Gallery) -> SegmentedIndex:
        task = self._start("load", held.key, self._load(held, gallery))
        try:
            async with asyncio.timeout(self._load_within_s):
                await asyncio.shield(task)
        except TimeoutError:
            raise IndexLoadingError("the gallery's index is being loaded", 2) from None
        if held.index is None:
            # The task was that of a deleted gallery of the same name.
            raise IndexLoadingError("the gallery's index is being loaded", 1)
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
        await self._replay(held, index, gallery, self._cpu)
        held.index = index
        held.snapshot_head = 0 if manifest is None else manifest.head
        held.snapshot_files = set() if manifest is None else names_of(manifest)
        held.snapshot_at_s = monotonic()
        self.count(held)
        if self._copies is not None and manifest is not None and not held.gone:
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
            why = await self._doubt(gallery, held.pack_no, manifest, index)
            if why is None:
                return index, manifest
            self._store.refuse(held.identity, manifest, why)
            if self._copies is not None:
                self._copies.start_discard(manifest)

    def _let_go(self, held: Loaded) -> None:
        """Drop the index of a gallery that is no more; who asked before may use it to the end."""
        held.gone = True
        self.drop(held)

    async def _bring(self, held: Loaded, index: SegmentedIndex, gallery: Gallery) -> None:
        """Bring an index to a gallery's head, or further.

        Who comes while changes are applied waits for those and one round more, whatever the
        number of others: a round goes as far as anybody has asked for by then.

        Raises:
            IndexLoadingError: it takes too long; it goes on all the same.
        """
        if gallery.head > held.newest.head:
            held.newest = gallery
        try:
            async with asyncio.timeout(self._load_within_s):
                while index.head < gallery.head:
                    # A task of its own: who gives up waiting must not end it half way.
                    task = self._start("bring", held.key, self._bring_newest(held, index))
                    await asyncio.shield(task)
        except TimeoutError:
            raise IndexLoadingError("the gallery's index is catching up", 2) from None

    async def _bring_newest(self, held: Loaded, index: SegmentedIndex) -> None:
        held.is_moving = True
        try:
            await self._replay(held, index, held.newest, self._follow_cpu)
            self.count(held)
        finally:
            held.is_moving = False

    async def _replay(
        self, held: Loaded, index: SegmentedIndex, gallery: Gallery, cpu: Cpu
    ) -> None:
        """Apply what Postgres has after the index's head; many faces at once become segments."""
        behind = gallery.head - index.head
        if behind <= 0:
            return
        many = behind >= BULK_FACES
        found = self._faces.changes(
            gallery.tenant_id,
            gallery,
            index.head,
            index.dimension,
            pack_no=held.pack_no,
            chunk=LOAD_CHUNK if many else CHUNK,
        )
        threads = self._upkeep if many else cpu
        async with aclosing(found) as chunks:
            async for changes in chunks:
                await threads.run_upkeep(partial(index.catch_up, changes))

    async def _follow_all(self, held: Loaded) -> None:
        """Follow for as long as there is news; between, what comes is let gather.

        One change after another would cost more than the answers; a question does not wait for
        this, but brings the index further by itself.
        """
        while held.key in self._heard:
            self._heard.discard(held.key)
            await self._follow(held)
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _follow(self, held: Loaded) -> None:
        index = held.index
        try:
            gallery = await self._galleries.read(held.gallery.tenant_id, held.gallery.gallery_id)
            if held.gallery.gallery_no != gallery.gallery_no:
                await self.forget_deleted()
                return
            if index is None:
                return
            if gallery.fill_of(held.pack_no) != held.fill:
                # Cancelled, rolled back, or kept long enough.
                self.drop(held)
                await self.discard(held.identity)
                return
            await self._bring(held, index, gallery)
            if gallery.second is SecondPack.FILLED and held.pack_no == gallery.model_pack_no:
                assert gallery.second_pack_no is not None
                ahead = await self._hold(gallery, gallery.second_pack_no)
                if ahead.index is None:
                    self._start("load", ahead.key, self._load(ahead, gallery))
        except NotFoundError:
            await self._forget_quietly()
        except OnetonError as error:
            log.warning("following a gallery failed", error=str(error))

    async def _forget_quietly(self) -> None:
        try:
            await self.forget_deleted()
        except OnetonError as error:
            # It is done again soon.
            log.warning("letting go of deleted galleries failed", error=str(error))


def _kept(gallery: Gallery) -> KeptGallery:
    return KeptGallery(str(gallery.tenant_id), gallery.gallery_id, gallery.gallery_no)


def _identity(gallery: Gallery, pack: ModelPack, fill: int = 0) -> Identity:
    return Identity(
        tenant_id=str(gallery.tenant_id),
        gallery_id=gallery.gallery_id,
        gallery_no=gallery.gallery_no,
        model_pack=pack.name,
        model_sha256=pack.sha256,
        dimension=pack.dimension,
        fill=fill,
    )
