"""Download a snapshot: begin with a copy from the object store, where Postgres takes longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import structlog

from oneton.domain.errors import NotFoundError, SnapshotError
from oneton.index import copies
from oneton.index.manifest import SEGMENTS, Identity, Manifest, files_of
from oneton.verbs.shelf import Found, Shelf

log = structlog.get_logger()

LOOK_S = 5.0
"""A gallery that waits for a silent store is read from Postgres instead."""
SLOWEST_BYTES_S = 4 << 20
"""Slower than that, some 4000 faces a second, a store is of less use than Postgres."""


@dataclass(frozen=True)
class DownloadSnapshot:
    """Fetches what this machine lacks of a copy, and reads all of it before it counts.

    Args:
        changes: a copy is worth fetching when it is so many ahead of what is here.
        least_faces: galleries with fewer changes are read from Postgres in no time.
    """

    shelf: Shelf
    changes: int
    least_faces: int

    async def __call__(self, identity: Identity, head: int, own_head: int | None) -> bool:
        """Put the newest copy that is whole among a gallery's snapshots; False for none.

        Args:
            head: the gallery's, which no copy of it can be past.
            own_head: of the newest snapshot here; None when there is none.

        Raises:
            StoreDownError: the store does not answer.
            OSError: the files cannot be written, or come too slowly.
        """
        folder = self.shelf.folder(identity)
        enough = self.least_faces if own_head is None else self.changes
        if folder is None or head - (own_head or 0) < enough:
            return False
        async with asyncio.timeout(LOOK_S):
            found = await self.shelf.look(identity)
        least_head = 0 if own_head is None else own_head + self.changes
        names = [name for name in found.manifests if least_head <= copies.head_of(name) <= head]
        try:
            for name in names:
                if await self._try(identity, folder, found, name):
                    return True
        finally:
            if names:
                await self.shelf.off(partial(copies.clear_room, folder))
        return False

    async def _try(self, identity: Identity, folder: Path, found: Found, name: str) -> bool:
        """Fetch one copy; a damaged one is said to be that, and removed."""
        started_s = monotonic()
        shelf = self.shelf
        try:
            incoming = await shelf.off(partial(copies.make_room, folder))
            manifest = await shelf.read(identity, incoming, name)
        except (NotFoundError, SnapshotError) as error:
            # Perhaps of a newer version, which can use it.
            log.warning("a copy of a snapshot is left alone", name=name, why=str(error))
            return False
        sizes = [found.files[each].size_bytes for each in files_of(manifest) if each in found.files]
        try:
            async with asyncio.timeout(LOOK_S + sum(sizes) / SLOWEST_BYTES_S):
                await self._fetch(identity, folder, manifest)
        except (NotFoundError, SnapshotError) as error:
            log.warning("a copy of a snapshot is damaged", name=name, why=str(error))
            await shelf.delete(identity, [name])
            return False
        await shelf.off(partial(copies.accept, folder, manifest))
        log.info(
            "snapshot fetched",
            gallery=identity.gallery_id,
            head=manifest.head,
            faces=manifest.faces,
            took_s=round(monotonic() - started_s, 2),
        )
        return True

    async def _fetch(self, identity: Identity, folder: Path, manifest: Manifest) -> None:
        """Fetch what a manifest names and is not here.

        Raises:
            NotFoundError: a file is missing.
            SnapshotError: a file is damaged.
        """
        incoming = folder / copies.INCOMING
        for meta in manifest.segments:
            if not await self.shelf.off(partial(copies.has_segment, folder / SEGMENTS, meta)):
                check = partial(copies.check_segment, incoming / SEGMENTS, meta)
                names = copies.segment_files(manifest, meta)
                await self._fetch_files(identity, incoming, names, check)
        check = partial(copies.check_state, incoming, manifest)
        await self._fetch_files(identity, incoming, [manifest.state_file], check)

    async def _fetch_files(
        self, identity: Identity, incoming: Path, names: Sequence[str], check: Callable[[], None]
    ) -> None:
        """Fetch files; what does not pass `check` is removed, so that it is uploaded again."""
        for name in names:
            await self.shelf.get(identity, incoming, name)
        try:
            await self.shelf.off(check)
        except SnapshotError:
            await self.shelf.delete(identity, names)
            raise
