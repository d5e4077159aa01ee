"""Create a tenant, with the gallery that the dialects without galleries use."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.domain.model import DEFAULT_GALLERY, Score, Tenant
from oneton.records.tenants import Tenants

DEFAULT_THRESHOLD = Score(50.0)
"""Match level 4, FMR 1e-5: one step above the 1:1 default, for 1:N multiplies false matches."""


@dataclass(frozen=True)
class CreateTenant:
    """The tenant and its default gallery."""

    tenants: Tenants
    model_pack_no: int

    async def __call__(self, name: str, *, threshold: Score = DEFAULT_THRESHOLD) -> Tenant:
        """Add a tenant.

        Raises:
            ConflictError: the name is taken.
        """
        return await self.tenants.create(name, DEFAULT_GALLERY, self.model_pack_no, threshold)
