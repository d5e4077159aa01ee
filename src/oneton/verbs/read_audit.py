"""Read the audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from oneton.domain.audit import EVERY, Act, Action, AuditEvent, AuditFilter
from oneton.domain.model import TenantId
from oneton.records.audit import Audit


@dataclass(frozen=True)
class ReadAudit:
    """Reading a page leaves no event; an export does."""

    audit: Audit

    async def page(
        self,
        tenant: TenantId | None,
        *,
        limit: int,
        before: int | None = None,
        which: AuditFilter = EVERY,
    ) -> list[AuditEvent]:
        """Some events, the newest first; None is operators' events that belong to no tenant.

        Args:
            before: only those of a smaller number.
        """
        return await self.audit.page(tenant, limit=limit, before=before, which=which)

    async def export(
        self, tenant: TenantId | None, which: AuditFilter = EVERY
    ) -> AsyncIterator[AuditEvent]:
        """All events that there are when it begins, the oldest first."""
        events = 0
        async for event in self.audit.every(tenant, which):
            events += 1
            yield event
        await self.audit.note_act(tenant, Act(Action.EXPORT_AUDIT, details={"events": events}))
