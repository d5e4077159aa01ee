"""Create a tenant, with the gallery that the dialects without galleries use."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.domain.model import DEFAULT_GALLERY, DEFAULT_NEW_GALLERY, NewGallery, Tenant
from oneton.records.tenants import Tenants


@dataclass(frozen=True)
class CreateTenant:
    """The tenant and its default gallery."""

    tenants: Tenants
    model_pack_no: int

    async def __call__(self, name: str, new: NewGallery = DEFAULT_NEW_GALLERY) -> Tenant:
        """Add a tenant.

        Args:
            new: its gallery.

        Raises:
            ConflictError: the name is taken.
        """
        return await self.tenants.create(name, DEFAULT_GALLERY, self.model_pack_no, new)
