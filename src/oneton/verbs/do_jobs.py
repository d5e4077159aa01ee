"""Do jobs: erase what deleted galleries and tenants hold."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from oneton.domain.errors import NotFoundError, OnetonError
from oneton.domain.model import GalleryId, Job, image_key
from oneton.domain.watching import NO_WATCH, Watch, watched_job
from oneton.images import ObjectStore
from oneton.index.manifest import KeptGallery
from oneton.records.deletion import Deletion, DoomedFace
from oneton.records.galleries import DELETE_GALLERY
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.locks import Locks
from oneton.records.tenant_deletions import DELETE_TENANT
from oneton.verbs.delete_tenant import EraseTenant
from oneton.verbs.shelf import delete_copies

log = structlog.get_logger()

PAGE = 500
AT_ONCE = 16
"""Objects that are deleted side by side."""
WAIT_S = 5.0
"""While another process does the jobs, or a part does not answer."""


@dataclass(frozen=True)
class DoJobs:
    """One process at a time, though two would do no harm: every step may be done again.

    Objects go before rows, so that a crash leaves rows that say which objects are to go.
    """

    jobs: JobsOfTenants
    deletion: Deletion
    images: ObjectStore
    locks: Locks
    erase_tenant: EraseTenant
    watch: Watch = field(default=NO_WATCH, kw_only=True)

    async def has_work(self) -> bool:
        """Whether a gallery or a tenant is to be emptied."""
        return bool(await self._open())

    async def run(self) -> None:
        """Until none is; another process may be at it."""
        while await self.has_work():
            async with self.locks.held("jobs") as mine:
                if mine and await self.drain():
                    return
            await asyncio.sleep(WAIT_S)

    async def drain(self) -> bool:
        """Do a page of every job in turn, so that no tenant waits for another's millions.

        Returns:
            whether all jobs ended; False when what is left has to wait.
        """
        reached: dict[UUID, int] = {}
        waiting = False
        while jobs := await self._open():
            waiting = False
            for job in jobs:
                try:
                    with watched_job(self.watch, job.kind):
                        reached[job.job_id] = await self._advance(job, reached.get(job.job_id, 0))
                except OnetonError as error:
                    log.warning("a job waits", kind=job.kind, subject=job.subject, error=str(error))
                    await self.jobs.wait(job, str(error))
                    waiting = True
            if waiting:
                return False
        return True

    async def _open(self) -> list[Job]:
        """Those that this version knows how to do."""
        found = []
        for tenant, job_id, kind in await self.jobs.open():
            if kind in (DELETE_GALLERY, DELETE_TENANT):
                # A tenant's job goes with the tenant, perhaps meanwhile.
                with suppress(NotFoundError):
                    found.append(await self.jobs.read(tenant, job_id))
        return found

    async def _advance(self, job: Job, after_head: int) -> int:
        """Erase the next page, or end the job when there is none; the head that was reached."""
        if job.kind == DELETE_TENANT:
            await self.erase_tenant.step(job.tenant_id)
            return 0
        page = await self.deletion.page(job, after_head, PAGE)
        if page:
            await self._delete_images(job, page)
            await self.deletion.erase(job, [each.face_no for each in page])
            return page[-1].added_at_head
        if after_head:
            # Once more from the beginning: nothing may be left before the job ends.
            return 0
        assert job.subject_no is not None
        await delete_copies(
            self.images, KeptGallery(str(job.tenant_id), job.subject, job.subject_no)
        )
        if await self.deletion.end(job):
            log.info("a deleted gallery is erased", gallery=job.subject, faces=job.done)
        return 0

    async def _delete_images(self, job: Job, page: list[DoomedFace]) -> None:
        keys = [
            image_key(job.tenant_id, GalleryId(job.subject), each.face_id)
            for each in page
            if each.face_id is not None and each.has_image
        ]
        for first in range(0, len(keys), AT_ONCE):
            some = (self.images.delete(key) for key in keys[first : first + AT_ONCE])
            for done in await asyncio.gather(*some, return_exceptions=True):
                if isinstance(done, BaseException):
                    raise done
