"""Sweep: delete objects that no row names, and report rows whose object is missing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import msgspec
import structlog

from oneton.domain.errors import NotFoundError
from oneton.domain.model import Face, FaceId, Gallery, StoredObject, TenantId, image_key
from oneton.images import ImageStore
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.tenants import Tenants

log = structlog.get_logger()

PAGE = 1000
Judge = Callable[[StoredObject], Awaitable[None]]
_KEY = re.compile(r"(?P<tenant>[0-9a-f-]{36})/(?P<gallery>[^/]+)/(?P<face>[0-9a-f-]{36})")


class SweepReport(msgspec.Struct):
    """What one sweep saw.

    Attributes:
        deleted: keys of objects that no row named.
        spared: number of such objects too young to be judged.
        foreign: keys that oneton never makes; they are left alone.
        missing: keys that rows name and the store does not have.
    """

    objects: int = 0
    rows: int = 0
    deleted: list[str] = msgspec.field(default_factory=list)
    spared: int = 0
    foreign: list[str] = msgspec.field(default_factory=list)
    missing: list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True)
class Sweep:
    """Walks the store and the rows of each gallery side by side, both in order of key."""

    tenants: Tenants
    galleries: Galleries
    faces: Faces
    images: ImageStore

    async def __call__(self, grace: timedelta, *, delete: bool = True) -> SweepReport:
        """Sweep everything once.

        Args:
            grace: an object younger than this may belong to an enrolment under way.
            delete: False only reports.
        """
        report = SweepReport()
        judge = partial(self._leftover, datetime.now(UTC) - grace, report, delete=delete)
        known: set[str] = set()
        for tenant in await self.tenants.list():
            for gallery in await self.galleries.list(tenant.tenant_id):
                prefix = image_key(tenant.tenant_id, gallery.gallery_id, "")
                known.add(prefix)
                await self._sweep_gallery(gallery, prefix, judge, report)
        # Stores disagree on the order of keys, so what no gallery claims is found by itself.
        async for stored in self.images.list():
            if stored.key.rpartition("/")[0] + "/" not in known:
                report.objects += 1
                await judge(stored)
        return report

    async def _sweep_gallery(
        self, gallery: Gallery, prefix: str, judge: Judge, report: SweepReport
    ) -> None:
        rows = self._rows(gallery)
        row = await anext(rows, None)
        async for stored in self.images.list(prefix):
            report.objects += 1
            while row is not None and row.image_key < stored.key:
                await self._note_missing(row, report)
                row = await anext(rows, None)
            if row is not None and row.image_key == stored.key:
                report.rows += 1
                row = await anext(rows, None)
            else:
                await judge(stored)
        while row is not None:
            await self._note_missing(row, report)
            row = await anext(rows, None)

    async def _rows(self, gallery: Gallery) -> AsyncIterator[Face]:
        """Every face record of a gallery that has an image, in order of its image's key."""
        after = None
        while page := await self.faces.page(gallery.tenant_id, gallery, after, PAGE):
            for face in page:
                if face.has_image:
                    yield face
            after = page[-1].face_id

    async def _note_missing(self, face: Face, report: SweepReport) -> None:
        # The row may be younger than the page of the listing that should have had its object.
        report.rows += 1
        try:
            await self.images.get(face.image_key)
        except NotFoundError:
            if await self._still_there(face):
                report.missing.append(face.image_key)
                log.error("an image is missing from the object store", key=face.image_key)

    async def _still_there(self, face: Face) -> bool:
        try:
            return (await self.faces.find(face.tenant_id, face.face_id)).has_image
        except NotFoundError:
            return False

    async def _leftover(
        self, too_young: datetime, report: SweepReport, stored: StoredObject, *, delete: bool
    ) -> None:
        parts = _KEY.fullmatch(stored.key)
        if parts is None:
            report.foreign.append(stored.key)
            return
        if stored.modified_at > too_young:
            report.spared += 1
            return
        tenant, face_id = TenantId(UUID(parts["tenant"])), FaceId(UUID(parts["face"]))
        try:
            if (await self.faces.find(tenant, face_id)).has_image:
                report.spared += 1
                return
        except NotFoundError:
            pass
        report.deleted.append(stored.key)
        if delete:
            await self.images.delete(stored.key)
            log.info("deleted an object that no row names", key=stored.key)
