"""Merchant users: register, and compare with a new picture."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from oneton.domain.errors import NotFoundError, UnavailableError
from oneton.domain.merchants import NewUser, Refusal, checked_user_id
from oneton.domain.model import Score, TenantId, Verification
from oneton.domain.requests import PictureId
from oneton.records.merchants import MerchantUsers as Records
from oneton.records.tenants import Tenants
from oneton.verbs.analyse import Picture
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.verify import Verify


@dataclass(frozen=True)
class MerchantUsers:
    """The source picture is analysed anew with each comparison, under the pack in force."""

    users: Records
    tenants: Tenants
    keep_picture: KeepPicture
    verify: Verify

    async def register(self, tenant: TenantId, new: NewUser) -> str:
        """Add a user; returns the id.

        Raises:
            ConflictError: there is one with this email or external id.
        """
        user_id = secrets.token_hex(12)
        await self.users.add(tenant, user_id, new)
        return user_id

    async def match(self, tenant: TenantId, user_id: str) -> tuple[Verification, bool] | Refusal:
        """Compare the source with the target, and erase the target, whatever comes of it.

        Returns:
            the comparison, and whether the score reaches the tenant's threshold.

        Raises:
            NotFoundError: the tenant has no such user.
            ProbeError: one of them cannot be used under the model pack in force.
            UnavailableError: try again; the target is still there.
        """
        user_id = checked_user_id(user_id)
        user = await self.users.find(tenant, user_id)
        if user.source_id is None:
            return Refusal.SOURCE_IMAGE_MISSING
        target_id = await self.users.take_target(tenant, user_id)
        if target_id is None:
            return Refusal.TARGET_IMAGE_MISSING
        try:
            found = await self.compare(tenant, user.source_id, target_id)
        except UnavailableError:
            await self.users.put_back_target(tenant, user_id, target_id)
            raise
        except BaseException:
            await self.keep_picture.erase(tenant, target_id)
            raise
        await self.keep_picture.erase(tenant, target_id)
        return found

    async def compare(
        self, tenant: TenantId, source_id: PictureId, target_id: PictureId
    ) -> tuple[Verification, bool] | Refusal:
        """The same of any two pictures, and nothing is erased."""
        try:
            source, _ = await self.keep_picture.read(tenant, source_id)
        except NotFoundError:
            return Refusal.SOURCE_IMAGE_MISSING
        try:
            target, _ = await self.keep_picture.read(tenant, target_id)
        except NotFoundError:
            return Refusal.TARGET_IMAGE_MISSING
        found = await self.verify(tenant, Picture(source), Picture(target))
        return found, found.score >= await self._threshold(tenant)

    async def source_of(self, tenant: TenantId, user_id: str) -> PictureId | None:
        """The picture that a user is registered with, if there is one."""
        return (await self.users.find(tenant, user_id)).source_id

    async def _threshold(self, tenant: TenantId) -> Score:
        return (await self.tenants.read(tenant)).options.payment_threshold
