"""Forget a merchant's user, with every picture."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.domain.merchants import checked_user_id
from oneton.domain.model import TenantId
from oneton.records.merchants import MerchantUsers
from oneton.verbs.keep_picture import KeepPicture


@dataclass(frozen=True)
class ForgetMerchantUser:
    """Ends the user's upload links and liveness sessions, too; the audit trail has who did it."""

    users: MerchantUsers
    keep_picture: KeepPicture

    async def __call__(self, tenant: TenantId, user_id: str, *, actor: str) -> None:
        """Delete a user.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        gone = await self.users.delete(tenant, checked_user_id(user_id), actor)
        await self.keep_picture.erase(tenant, *gone)
