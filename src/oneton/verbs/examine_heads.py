"""Examine heads: is every number from 1 to a gallery's head one change of a face?"""

from __future__ import annotations

from dataclasses import dataclass

from oneton.domain.examining import Examined, Finding, Kind
from oneton.records.examining import Examining
from oneton.records.galleries import Galleries
from oneton.records.tenants import Tenants


@dataclass(frozen=True)
class ExamineHeads:
    """Every gallery's stamps, each gallery at one moment."""

    tenants: Tenants
    galleries: Galleries
    examining: Examining

    async def __call__(self) -> Examined:
        """Look once."""
        examined = Examined("heads")
        for tenant in await self.tenants.list():
            for gallery in await self.galleries.list(tenant.tenant_id):
                heads = await self.examining.heads(tenant.tenant_id, gallery)
                examined.count("galleries")
                examined.count("stamps", heads.stamps)
                if not heads.are_in_order:
                    said = (
                        f"head {heads.head}, {heads.stamps} stamps, {heads.different} different, "
                        f"from {heads.least} to {heads.most}"
                    )
                    examined.findings.append(
                        Finding(
                            Kind.HEADS, said, tenant=tenant.tenant_id, gallery=gallery.gallery_id
                        )
                    )
        return examined
