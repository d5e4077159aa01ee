"""Change a tenant: how long what it saves is kept, and how many calls it may still make."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from oneton.domain.model import Score, Tenant, TenantId
from oneton.records.audit import Audit
from oneton.records.retention import NowDue, Retention
from oneton.records.tenants import Tenants


@dataclass(frozen=True)
class ChangeTenant:
    """Only operators do; the audit trail has who it was."""

    tenants: Tenants
    retention: Retention
    audit: Audit

    async def retain(
        self,
        tenant: TenantId,
        *,
        image_days: int | None,
        result_days: int | None,
        actor: str,
        keep: bool = True,
    ) -> NowDue:
        """Set for how many days pictures of saved calls, and saved calls, are kept.

        Args:
            image_days: None is what each dialect has by default, for what comes; what is kept
                already stays as long as it was to.
            result_days: likewise.
            keep: False only says what would be due.

        Returns:
            how much is due now, and soon erased.
        """
        options = msgspec.structs.replace(
            (await self.tenants.read(tenant)).options,
            image_days=image_days,
            result_days=result_days,
        )
        return await self.retention.change(tenant, options, actor, keep=keep)

    async def set_payment_threshold(
        self, tenant: TenantId, threshold: Score, *, actor: str
    ) -> Tenant:
        """Set the score from which CypherFace's face match says yes."""
        read = await self.tenants.read(tenant)
        options = msgspec.structs.replace(read.options, payment_threshold=threshold)
        await self.tenants.set_options(tenant, options)
        details = {"payment_threshold": threshold}
        await self.audit.note(tenant, actor, "tenant payment threshold", details)
        return await self.tenants.read(tenant)

    async def set_credits(self, tenant: TenantId, balance: int | None, *, actor: str) -> Tenant:
        """Set how many calls may still be made; None is without end."""
        await self.tenants.set_credits(tenant, balance)
        await self.audit.note(tenant, actor, "tenant credits", {"credits": balance})
        return await self.tenants.read(tenant)
