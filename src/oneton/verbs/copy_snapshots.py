"""Copy snapshots to the object store, behind the answers' backs, and begin with a copy from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic

import structlog

from oneton.domain.errors import OnetonError
from oneton.images import SnapshotCopies
from oneton.index import copies
from oneton.index.manifest import Identity, KeptGallery, Manifest
from oneton.index.store import IndexStore
from oneton.verbs.cpu import Cpu
from oneton.verbs.download_snapshot import DownloadSnapshot
from oneton.verbs.shelf import Shelf, delete_copies
from oneton.verbs.upload_snapshot import UploadSnapshot

log = structlog.get_logger()

PAUSE_S = 60.0
"""For so long a store that failed is not asked again on behalf of who waits."""


class CopySnapshots:
    """What fails is said, the first time as a warning; nothing depends on it.

    Args:
        images: the object store.
        cpu: for what a gallery that loads waits for.
        upkeep: one thread of low priority, for the rest.
        changes: a copy so far behind is replaced, and so far ahead fetched.
        least_faces: galleries with fewer changes are read from Postgres in no time.
    """

    def __init__(
        self,
        images: SnapshotCopies,
        store: IndexStore,
        cpu: Cpu,
        upkeep: Cpu,
        *,
        changes: int,
        least_faces: int,
    ) -> None:
        self._shelf = Shelf(images, store, upkeep)
        self.upload = UploadSnapshot(self._shelf, changes)
        self._download = DownloadSnapshot(Shelf(images, store, cpu), changes, least_faces)
        self._turn = asyncio.Semaphore()
        self._images = images
        self._tasks: dict[tuple[str, Identity | KeptGallery], asyncio.Task[None]] = {}
        self._closed = False
        self._failed_at_s: float | None = None

    def start_upload(self, manifest: Manifest) -> None:
        """Copy a snapshot when it is due, one gallery after the other.

        It is passed over while an older one of the gallery is copied; the next one will be due.
        """
        self._start("upload", manifest.identity, partial(self.upload, manifest))

    def start_discard(self, manifest: Manifest) -> None:
        """Remove a copy, for Postgres disagrees with the snapshot."""

        async def discard(manifest: Manifest) -> None:
            await self._shelf.delete(manifest.identity, [copies.manifest_name(manifest)])

        self._start("discard", manifest.identity, partial(discard, manifest))

    def start_forget(self, identity: Identity) -> None:
        """Remove all copies of a gallery under a pack that it uses no more."""

        async def forget() -> None:
            found = await self._shelf.look(identity)
            # The manifests first: what has none is no copy.
            rest = [name for name in found.files if name not in found.manifests]
            await self._shelf.delete(identity, [*found.manifests, *rest])

        self._start("forget", identity, forget)

    def start_forget_gallery(self, gallery: KeptGallery) -> None:
        """Remove all copies of a gallery that is no more, once what is copied now is."""
        self._start("forget", gallery, partial(delete_copies, self._images, gallery))

    async def download(self, identity: Identity, head: int, own_head: int | None) -> bool:
        """See `DownloadSnapshot`; never raises what the store or the disk did wrong."""
        failed_at_s = self._failed_at_s
        if failed_at_s is not None and monotonic() - failed_at_s < PAUSE_S:
            return False
        try:
            done = await self._download(identity, head, own_head)
        except (OnetonError, OSError) as error:
            self._say_failed("no copy of a snapshot can be fetched", identity, error)
            return False
        self._failed_at_s = None
        return done

    async def close(self) -> None:
        """Give up what is under way; files that were sent are of use to the next upload."""
        self._closed = True
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(
        self, what: str, identity: Identity | KeptGallery, work: Callable[[], Awaitable[object]]
    ) -> None:
        key = (what, identity)
        if self._closed or key in self._tasks:
            return

        async def in_turn() -> None:
            try:
                async with self._turn:
                    await work()
            except FileNotFoundError as error:
                log.info("a snapshot was deleted before it was copied", file=error.filename)
            except (OnetonError, OSError) as error:
                self._say_failed("a snapshot cannot be copied", identity, error)
            else:
                self._failed_at_s = None
            finally:
                del self._tasks[key]

        self._tasks[key] = asyncio.create_task(in_turn())

    def _say_failed(self, what: str, identity: Identity | KeptGallery, error: Exception) -> None:
        """Once, until something works again."""
        say = log.warning if self._failed_at_s is None else log.debug
        self._failed_at_s = monotonic()
        say(what, gallery=identity.gallery_id, error=str(error) or type(error).__name__)
