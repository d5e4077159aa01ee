"""Show usage: a tenant's calls by day, and what it has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import msgspec

from oneton.domain.model import TenantId
from oneton.records.usage import DayUsage, Holdings, Usage


class UsageReport(msgspec.Struct, frozen=True):
    """Calls from one day of UTC to another, both included, and what there is now."""

    since: date
    until: date
    days: list[DayUsage]
    holdings: Holdings


@dataclass(frozen=True)
class ShowUsage:
    """Calls of the last seconds may be missing."""

    usage: Usage

    async def __call__(self, tenant: TenantId, since: date, until: date) -> UsageReport:
        """What a tenant called from one day to another."""
        days = await self.usage.days(tenant, since, until)
        return UsageReport(since, until, days, await self.usage.holdings(tenant))
