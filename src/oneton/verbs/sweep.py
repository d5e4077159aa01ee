"""Sweep: delete objects that no row names, and report rows whose object is missing."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import msgspec
import structlog

from oneton.domain.errors import NotFoundError
from oneton.domain.model import (
    FaceId,
    Gallery,
    GalleryId,
    StoredObject,
    TenantId,
    image_key,
)
from oneton.domain.requests import PICTURES, PictureId
from oneton.domain.watching import NO_WATCH, Watch
from oneton.images import ImageStore
from oneton.records.faces import Faces
from oneton.records.galleries import DELETE_GALLERY, Galleries
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.requests import Pictures
from oneton.records.tenants import Tenants
from oneton.verbs.watch_clock import WatchClock

log = structlog.get_logger()

PAGE = 1000
Judge = Callable[[StoredObject], Awaitable[None]]
_KEY = re.compile(r"(?P<folder>(?P<tenant>[0-9a-f-]{36})/(?P<gallery>[^/]+)/)(?P<id>[0-9a-f-]{36})")


class SweepReport(msgspec.Struct):
    """What one sweep saw.

    Attributes:
        leftovers: keys of objects that no row names.
        deleted: how many of them were deleted.
        spared: objects without a row, too young to be judged.
        doomed: objects without a row in a gallery that was deleted, which a job is emptying.
        foreign: objects with a key that oneton never makes, or of a tenant that this database
            does not know; they are left alone, for the store may be another database's.
        missing: keys that rows name and the store does not have.
        doubt: why ages were not believed, so that nothing was deleted.
    """

    objects: int = 0
    rows: int = 0
    leftovers: list[str] = msgspec.field(default_factory=list)
    deleted: int = 0
    spared: int = 0
    doomed: int = 0
    foreign: int = 0
    missing: list[str] = msgspec.field(default_factory=list)
    doubt: str | None = None

    def tell(self, watch: Watch) -> None:
        """Tell what was found."""
        watch.count("sweeps", "done")
        watch.level("swept_at", time.time())
        found = {
            "leftover": len(self.leftovers) - self.deleted,
            "deleted": self.deleted,
            "spared": self.spared,
            "foreign": self.foreign,
            "missing": len(self.missing),
        }
        for finding, objects in found.items():
            watch.level("swept", objects, finding)


class Named(msgspec.Struct, frozen=True):
    """An object that a row names."""

    tenant: TenantId
    gallery: GalleryId
    id: UUID

    @property
    def key(self) -> str:
        """Its key in the object store."""
        return image_key(self.tenant, self.gallery, str(self.id))


@dataclass(frozen=True)
class Sweep:
    """Walks the store and the rows of each gallery side by side, both in order of key.

    A tenant's pictures that are of no face record are walked likewise, as if in a gallery.
    """

    tenants: Tenants
    galleries: Galleries
    faces: Faces
    pictures: Pictures
    jobs: JobsOfTenants
    images: ImageStore
    clock: WatchClock = field(default_factory=WatchClock, kw_only=True)
    watch: Watch = field(default=NO_WATCH, kw_only=True)

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
        report = SweepReport(doubt=await self.clock.doubt(grace.total_seconds()))
        tenants = {tenant.tenant_id for tenant in await self.tenants.list()}
        # First, or a job that ends meanwhile would be missed with its last objects listed.
        doomed = await self._doomed()
        judge = partial(self._judge, datetime.now(UTC) - grace, tenants, doomed, report)
        known: set[str] = set()
        for tenant in tenants:
            walks = [(PICTURES, self._pictures_of(tenant))]
            walks += [
                (each.gallery_id, self._faces_of(each))
                for each in await self.galleries.list(tenant)
            ]
            for gallery_id, rows in walks:
                prefix = image_key(tenant, GalleryId(gallery_id), "")
                known.add(prefix)
                await self._walk(rows, prefix, judge, report)
        # Stores disagree on the order of keys, so what no gallery claims is found by itself.
        async for stored in self.images.list():
            if stored.key.rpartition("/")[0] + "/" not in known:
                report.objects += 1
                await judge(stored)
        if at_most is not None and len(report.leftovers) > max(at_most, report.objects // 10):
            log.error("too many leftovers to delete unasked", leftovers=len(report.leftovers))
        elif delete and report.doubt is not None:
            log.warning("nothing is swept", why=report.doubt, leftovers=len(report.leftovers))
        elif delete:
            for key in report.leftovers:
                await self.images.delete(key)
                report.deleted += 1
                log.info("deleted an object that no row names", key=key)
        return report

    async def _doomed(self) -> set[str]:
        """What the keys begin with of galleries that jobs are emptying."""
        found: set[str] = set()
        for tenant, job_id, kind in await self.jobs.open():
            if kind == DELETE_GALLERY:
                job = await self.jobs.read(tenant, job_id)
                found.add(image_key(tenant, GalleryId(job.subject), ""))
        return found

    async def _walk(
        self, rows: AsyncIterator[Named], prefix: str, judge: Judge, report: SweepReport
    ) -> None:
        row = await anext(rows, None)
        async for stored in self.images.list(prefix):
            report.objects += 1
            while row is not None and row.key < stored.key:
                await self._note_missing(row, report)
                row = await anext(rows, None)
            if row is not None and row.key == stored.key:
                report.rows += 1
                row = await anext(rows, None)
            else:
                await judge(stored)
        while row is not None:
            await self._note_missing(row, report)
            row = await anext(rows, None)

    async def _faces_of(self, gallery: Gallery) -> AsyncIterator[Named]:
        """Every face record of a gallery that has an image, in order of its image's key."""
        after = None
        while page := await self.faces.page(gallery.tenant_id, gallery, after, PAGE):
            for face in page:
                if face.has_image:
                    yield Named(face.tenant_id, face.gallery_id, face.face_id)
            after = page[-1].face_id

    async def _pictures_of(self, tenant: TenantId) -> AsyncIterator[Named]:
        """Every picture of a tenant that is of no face record, in order of its key."""
        after = None
        while page := await self.pictures.page(tenant, after, PAGE):
            for picture in page:
                yield Named(tenant, GalleryId(PICTURES), picture.picture_id)
            after = page[-1].picture_id

    async def _note_missing(self, row: Named, report: SweepReport) -> None:
        # The row may be younger than the page of the listing that should have had its object.
        report.rows += 1
        try:
            await self.images.get(row.key)
        except NotFoundError:
            if await self._is_named(row):
                report.missing.append(row.key)
                log.error("an image is missing from the object store", key=row.key)

    async def _is_named(self, row: Named) -> bool:
        """Whether a row names an object now."""
        try:
            if row.gallery == PICTURES:
                await self.pictures.find(row.tenant, PictureId(row.id))
                return True
            return (await self.faces.find(row.tenant, FaceId(row.id))).has_image
        except NotFoundError:
            return False

    async def _judge(
        self,
        too_young: datetime,
        tenants: set[TenantId],
        doomed: set[str],
        report: SweepReport,
        stored: StoredObject,
    ) -> None:
        """Sort an object that no row has named so far into the report."""
        parts = _KEY.fullmatch(stored.key)
        if parts is None or TenantId(UUID(parts["tenant"])) not in tenants:
            report.foreign += 1
            return
        if parts["folder"] in doomed:
            # Its job deletes it. One that is a leftover indeed is so after the job, too.
            report.doomed += 1
            return
        # The store and whoever made the key have clocks of their own.
        if max(stored.modified_at, made_at(UUID(parts["id"]))) > too_young:
            report.spared += 1
            return
        tenant, gallery = TenantId(UUID(parts["tenant"])), GalleryId(parts["gallery"])
        if await self._is_named(Named(tenant, gallery, UUID(parts["id"]))):
            report.spared += 1
            return
        report.leftovers.append(stored.key)


def made_at(made: UUID) -> datetime:
    """When an id was made, as a UUIDv7 says; of any other long ago."""
    return datetime.fromtimestamp((made.int >> 80) / 1000 if made.version == 7 else 0, UTC)
