"""Take a snapshot: by a server that runs, when one holds the folder of this machine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from oneton.domain.errors import ConflictError, UnavailableError
from oneton.domain.model import GalleryId, TenantId
from oneton.index.inspection import Found, find_snapshots
from oneton.records.database import Database
from oneton.records.galleries import Galleries
from oneton.records.news import ask_for_snapshot

LOOK_S = 0.2


@dataclass(frozen=True)
class AskForSnapshot:
    """Asks the servers that run, and looks for what they write on this machine.

    Args:
        root: ONETON_INDEX_DIR.
    """

    database: Database
    galleries: Galleries
    root: Path

    async def __call__(self, tenant: TenantId, gallery_id: GalleryId, within_s: float) -> Found:
        """The snapshot that was taken, at the gallery's head of now or a later one.

        Raises:
            NotFoundError: the tenant has no such gallery.
            ConflictError: nothing was ever enrolled there.
            UnavailableError: none was taken in time.
        """
        gallery = await self.galleries.read(tenant, gallery_id)
        if not gallery.head:
            raise ConflictError(f"gallery {gallery_id} has no faces")
        before = {each.path for each in self._snapshots(tenant, gallery_id)}
        deadline_s = monotonic() + within_s
        await ask_for_snapshot(self.database, tenant, gallery_id)
        while monotonic() < deadline_s:
            await asyncio.sleep(LOOK_S)
            for each in self._snapshots(tenant, gallery_id):
                manifest = each.manifest
                if each.path not in before and manifest and manifest.head >= gallery.head:
                    return each
        raise UnavailableError(
            f"no server took a snapshot of {gallery_id} within {within_s:g} s; its log says why, "
            f"or it is no server that holds {self.root}"
        )

    def _snapshots(self, tenant: TenantId, gallery_id: GalleryId) -> list[Found]:
        return [
            each
            for each in find_snapshots(self.root)
            if not each.set_aside and (each.tenant_id, each.gallery_id) == (str(tenant), gallery_id)
        ]
