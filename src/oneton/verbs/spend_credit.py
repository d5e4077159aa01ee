"""Spend credit: take a call off a tenant's balance before any work is done for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from oneton.domain.model import Tenant, TenantId
from oneton.records.tenants import Tenants


@dataclass(frozen=True)
class SpendCredit:
    """A tenant without a balance pays nothing, and only with one is anything written."""

    tenants: Tenants

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
