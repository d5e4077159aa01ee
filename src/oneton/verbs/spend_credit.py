"""Spend credit: take a call off a tenant's balance before any work is done for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from oneton.domain.model import Tenant, TenantId
from oneton.records.tenants import Tenants

TENANT_HOLDS_S = 1.0
TENANTS_SEEN = 10_000


@dataclass(frozen=True)
class SpendCredit:
    """A tenant without a balance pays nothing, and only with one is anything written."""

    tenants: Tenants
    _seen: dict[TenantId, tuple[float, Tenant]] = field(default_factory=dict)

    @asynccontextmanager
    async def __call__(self, tenant: Tenant) -> AsyncIterator[None]:
        """Take one off, and give it back when the block ends with an error.

        Raises:
            OutOfCreditError: nothing is left.
        """
        if tenant.credits is None:
            yield
            return
        await self.tenants.spend(tenant.tenant_id)
        try:
            yield
        except BaseException:
            await self.tenants.spend(tenant.tenant_id, -1)
            raise

    async def read(self, tenant: TenantId) -> Tenant:
        """A tenant with its balance and options."""
        return await self.tenants.read(tenant)

    async def recent(self, tenant: TenantId) -> Tenant:
        """The same, as it was `TENANT_HOLDS_S` ago at most; its balance is not to be relied on."""
        asked_s = time.monotonic()
        seen_s, known = self._seen.get(tenant, (-TENANT_HOLDS_S, None))
        if known is None or asked_s - seen_s >= TENANT_HOLDS_S:
            if len(self._seen) >= TENANTS_SEEN:
                self._seen.clear()
            known = await self.read(tenant)
            self._seen[tenant] = (asked_s, known)
        return known
