"""Follow jobs: what a tenant's long work has come to."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from oneton.domain.model import Job, TenantId
from oneton.records.jobs_of_tenants import JobsOfTenants


@dataclass(frozen=True)
class FollowJobs:
    """Jobs that are over are kept, for their callers ask later."""

    jobs: JobsOfTenants

    async def show(self, tenant: TenantId, job_id: UUID) -> Job:
        """One job; NotFoundError when the tenant has none of this id."""
        return await self.jobs.read(tenant, job_id)

    async def list(self, tenant: TenantId, *, limit: int, before: UUID | None = None) -> list[Job]:
        """A tenant's jobs, the newest first; `before` a job, when given."""
        return await self.jobs.page(tenant, limit=limit, before=before)
