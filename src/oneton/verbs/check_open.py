"""Check open: whether a tenant's data can still be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oneton.domain.model import TenantId

if TYPE_CHECKING:
    from oneton.records.tenant_keys import TenantKeys


class CheckOpen:
    """What Postgres said of a tenant's keys holds for seconds.

    Args:
        keys: None where encryption is off, so that every tenant is open.
    """

    def __init__(self, keys: TenantKeys | None) -> None:
        # No dataclass: Litestar would read its annotations when it runs, and import what seals.
        self.keys = keys

    async def __call__(self, tenant: TenantId) -> None:
        """Pass, or raise KeyDestroyedError."""
        if self.keys is not None:
            await self.keys.check_open(tenant)
