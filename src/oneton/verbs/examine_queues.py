"""Examine queues: deliveries, jobs, claims and re-embedding that nobody goes on with."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.domain.examining import Examined, Finding, Kind
from oneton.domain.model import TenantId
from oneton.records.examining import Examining
from oneton.records.tenants import Tenants


@dataclass(frozen=True)
class ExamineQueues:
    """What waits for longer than any of it takes."""

    tenants: Tenants
    examining: Examining

    async def __call__(self) -> Examined:
        """Look once."""
        examined = Examined("queues")
        for tenant in await self.tenants.list():
            examined.count("tenants")
            examined.findings += await self._of(tenant.tenant_id)
        for kind, count in (await self.examining.queue_stuck()).items():
            examined.findings.append(Finding(Kind.QUEUE_STUCK, f"{count} entries of {kind}", kind))
        for owner, gallery, state, why in await self.examining.reindex_stuck():
            examined.findings.append(
                Finding(Kind.REINDEX_STUCK, f"{state}: {why}", tenant=owner, gallery=gallery)
            )
        return examined

    async def _of(self, tenant: TenantId) -> list[Finding]:
        found: list[Finding] = []
        if count := await self.examining.deliveries_stuck(tenant):
            said = f"{count} webhook deliveries are long overdue"
            found.append(Finding(Kind.DELIVERIES_STUCK, said, tenant=tenant))
        if count := await self.examining.dead_claims(tenant):
            said = f"{count} idempotency keys were claimed over a day ago and have no answer"
            found.append(Finding(Kind.CLAIMS_LEFT, said, tenant=tenant))
        found += [
            Finding(Kind.JOB_STUCK, f"{kind}: {why or 'not heard of for long'}", str(job), tenant)
            for job, kind, why in await self.examining.jobs_stuck(tenant)
        ]
        found += [
            Finding(
                Kind.REINDEX_STUCK,
                "it has a second model pack, and no run",
                tenant=tenant,
                gallery=gallery,
            )
            for gallery in await self.examining.halfway(tenant)
        ]
        return found
