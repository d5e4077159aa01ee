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
        leftovers: keys of objects that no row names.
        deleted: how many of them were deleted.
        spared: objects without a row, too young to be judged.
        foreign: objects with a key that oneton never makes, or of a tenant that this database
            does not know; they are left alone, for the store may be another database's.
        missing: keys that rows name and the store does not have.
    """

    objects: int = 0
    rows: int = 0
    leftovers: list[str] = msgspec.field(default_factory=list)
    deleted: int = 0
    spared: int = 0
    foreign: int = 0
    missing: list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True)
class Sweep:
    """Walks the store and the rows of each gallery side by side, both in order of key."""

    tenants: Tenants
    galleries: Galleries
    faces: Faces
    images: ImageStore

    async def __call__(
        self, grace: timedelta, *, delete: bool = True, at_most: int | None = None
    ) -> SweepReport:
        """Sweep everything once.

        Args:
            grace: an object younger than this may belong to an enrolment under way.
            delete: False only reports.
            at_most: delete nothing when more than this and a tenth of all objects is left over,
                for then the rows are rather the ones that are lost.
        """
        report = SweepReport()
        tenants = {tenant.tenant_id for tenant in await self.tenants.list()}
        judge = partial(self._judge, datetime.now(UTC) - grace, tenants, report)
        known: set[str] = set()
        for tenant in tenants:
            for gallery in await self.galleries.list(tenant):
                prefix = image_key(tenant, gallery.gallery_id, "")
                known.add(prefix)
                await self._sweep_gallery(gallery, prefix, judge, report)
        # Stores disagree on the order of keys, so what no gallery claims is found by itself.
        async for stored in self.images.list():
            if stored.key.rpartition("/")[0] + "/" not in known:
                report.objects += 1
                await judge(stored)
        if at_most is not None and len(report.leftovers) > max(at_most, report.objects // 10):
            log.error("too many leftovers to delete unasked", leftovers=len(report.leftovers))
        elif delete:
            for key in report.leftovers:
                await self.images.delete(key)
                report.deleted += 1
                log.info("deleted an object that no row names", key=key)
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

    async def _judge(
        self,
        too_young: datetime,
        tenants: set[TenantId],
        report: SweepReport,
        stored: StoredObject,
    ) -> None:
        """Sort an object that no row has named so far into the report."""
        parts = _KEY.fullmatch(stored.key)
        if parts is None or TenantId(UUID(parts["tenant"])) not in tenants:
            report.foreign += 1
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
        report.leftovers.append(stored.key)
