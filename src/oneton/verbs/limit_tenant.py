"""Limit a tenant: how many face records it may have, and how many calls it may make a day."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from oneton.domain.model import TenantId
from oneton.records.tenants import Tenants
from oneton.records.usage import Usage


class Quota(msgspec.Struct, frozen=True):
    """What a tenant may have and do; None is without end.

    Attributes:
        faces: face records in all galleries.
        requests_a_day: in all dialects, on a day of UTC.
    """

    faces: int | None
    requests_a_day: int | None


@dataclass(frozen=True)
class LimitTenant:
    """Only operators do. A limit below what there is refuses what comes, and removes nothing."""

    tenants: Tenants
    usage: Usage

    async def __call__(self, tenant: TenantId, quota: Quota) -> None:
        """Set both limits; enrolments wait while the faces are counted."""
        await self.usage.limit(tenant, faces=quota.faces, requests_a_day=quota.requests_a_day)

    async def read(self, tenant: TenantId) -> Quota:
        """Both limits as they are."""
        holdings = await self.usage.holdings(tenant)
        return Quota(holdings.most_faces, (await self.tenants.read(tenant)).most_requests_a_day)
