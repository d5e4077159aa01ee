"""Upload a snapshot: copy it to the object store when that is due, and remove old copies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import structlog

from oneton.domain.errors import NotFoundError, SnapshotError, StoreDownError
from oneton.index import copies
from oneton.index.manifest import Manifest, files_of
from oneton.index.snapshot import KEPT
from oneton.verbs.shelf import Found, Shelf

log = structlog.get_logger()

UNNAMED_STAYS = timedelta(hours=1)
"""For so long a file that no manifest names may be one of a copy that is being made."""
OLDEST = timedelta(days=1)
"""A copy is replaced past this age, however few the changes: templates of purged faces leave the
segments within a day, and are to leave the object store, too."""
ATTEMPTS = 3


@dataclass(frozen=True)
class UploadSnapshot:
    """Sends only files that the shelf lacks: segments never change.

    Replicas build segments of their own, so it is best when the same one goes on copying: one of
    whose bytes the shelf lacks more than half waits until the newest copy is twice as far behind.

    Args:
        changes: a copy that is so many behind is replaced.
    """

    shelf: Shelf
    changes: int

    async def __call__(self, manifest: Manifest) -> bool:
        """Copy a snapshot of this process; False when the shelf has one that is new enough.

        Raises:
            StoreDownError: the store does not answer, or does not keep what it is given.
            OSError: the snapshot was deleted meanwhile, or cannot be read.
        """
        shelf, identity = self.shelf, manifest.identity
        folder = shelf.folder(identity)
        if folder is None:
            return False
        started_s = monotonic()
        try:
            held, sizes = await shelf.off(partial(copies.hold, folder, manifest))
            found = await shelf.look(identity)
            if not self._is_due(manifest, sizes, found):
                return False
            sent_bytes = await self._send(manifest, held, sizes, found)
            await self._tidy(manifest, folder / copies.OUTGOING)
        finally:
            await shelf.off(partial(copies.let_go, folder))
        log.info(
            "snapshot copied",
            gallery=identity.gallery_id,
            head=manifest.head,
            sent_bytes=sent_bytes,
            took_s=round(monotonic() - started_s, 2),
        )
        return True

    def _is_due(self, manifest: Manifest, sizes: dict[str, int], found: Found) -> bool:
        if not found.manifests:
            return True
        if copies.manifest_name(manifest) in found.files:
            return False
        lacking = sum(found.lacking(sizes).values())
        patience = 2 if 2 * lacking > sum(sizes.values()) else 1
        newest = found.manifests[0]
        # Ahead of us it is when Postgres was restored from a backup.
        behind = abs(manifest.head - copies.head_of(newest))
        age = datetime.now(UTC) - found.files[newest].modified_at
        return behind >= patience * self.changes or age >= patience * OLDEST

    async def _send(
        self, manifest: Manifest, held: Path, sizes: dict[str, int], found: Found
    ) -> int:
        """Send what the shelf lacks, the manifest last; returns the bytes."""
        shelf, identity = self.shelf, manifest.identity
        sent_bytes = 0
        for _ in range(ATTEMPTS):
            lacking = found.lacking(sizes)
            if not lacking:
                await shelf.put(identity, held, copies.manifest_name(manifest))
                return sent_bytes
            for name, size in lacking.items():
                await shelf.put(identity, held, name)
                sent_bytes += size
            # Another replica may have removed a file that no manifest named.
            found = await shelf.look(identity)
        raise StoreDownError("the object store does not keep what it is given")

    async def _tidy(self, own: Manifest, scratch: Path) -> None:
        """Remove all but the newest copies, and files that none of these names."""
        shelf, identity = self.shelf, own.identity
        found = await shelf.look(identity)
        await shelf.delete(identity, found.manifests[KEPT:])
        named: set[str] = set()
        for name in found.manifests[:KEPT]:
            try:
                named |= set(files_of(await shelf.read(identity, scratch, name)))
            except (NotFoundError, SnapshotError) as error:
                # Perhaps of a newer version; what it names is not known, so all files stay.
                log.info("a copy of a snapshot is left alone", name=name, why=str(error))
                return
        before = found.files[found.manifests[0]].modified_at - UNNAMED_STAYS
        unnamed = [
            name
            for name, stored in found.files.items()
            if name not in named and copies.head_of(name) < 0 and stored.modified_at < before
        ]
        await shelf.delete(identity, unnamed)
