"""Doubt a snapshot: was it taken of this Postgres, or of one that was restored from a backup?"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

import msgspec
import numpy as np

from oneton.domain.model import FaceNo, Gallery
from oneton.index.manifest import Manifest
from oneton.index.segmented import SegmentedIndex
from oneton.index.snapshot import ANCHORS
from oneton.index.templates import check_rows, unit_rows
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries


@dataclass(frozen=True)
class DoubtSnapshot:
    """Compares the newest faces and changes, for two histories differ in their last ones."""

    galleries: Galleries
    faces: Faces

    async def __call__(
        self, gallery: Gallery, pack_no: int, manifest: Manifest, index: SegmentedIndex
    ) -> str | None:
        """Why a snapshot was not taken of this Postgres; None when it was."""
        if manifest.head > gallery.head:
            # Another process may have gone on, and written, since the head was read.
            gallery = await self.galleries.read(gallery.tenant_id, gallery.gallery_id)
        if manifest.head > gallery.head:
            return f"its head {manifest.head} is past Postgres's {gallery.head}"
        face_nos = [anchor.face_no for anchor in manifest.anchors]
        stamps = await self.faces.stamps(gallery.tenant_id, gallery, pack_no, face_nos)
        for anchor in manifest.anchors:
            stamp = stamps.get(FaceNo(anchor.face_no))
            if stamp is None or (stamp.template is None and not stamp.removed_after(manifest.head)):
                return f"Postgres does not know its face {anchor.face_no}"
            if stamp.template is not None:
                template = np.frombuffer(stamp.template, dtype="<f2")[np.newaxis]
                # The tail's are of unit length, which may have changed the last bit.
                both = np.concatenate([template, unit_rows(template).astype(np.float16)])
                if anchor.check not in check_rows(both).tolist():
                    return f"Postgres has another face {anchor.face_no}"
        return await self._other_changes(gallery, pack_no, manifest.head, index)

    async def _other_changes(
        self, gallery: Gallery, pack_no: int, head: int, index: SegmentedIndex
    ) -> str | None:
        """What Postgres changed just before a head, when the index has not, as a purge."""
        then = msgspec.structs.replace(gallery, head=head)
        since = max(0, head - ANCHORS)
        found = self.faces.changes(gallery.tenant_id, then, since, index.dimension, pack_no=pack_no)
        async with aclosing(found) as chunks:
            async for changes in chunks:
                if not index.holds(changes.added_face_nos).all():
                    return f"it lacks a face that Postgres added before head {head}"
                if index.holds(changes.removed_face_nos).any():
                    return f"it has a face that Postgres removed before head {head}"
        return None
