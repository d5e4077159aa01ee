"""Delete a tenant: everything that it has, and proof of that."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import msgspec
import structlog

from oneton.domain.acting import actor
from oneton.domain.model import TenantId
from oneton.domain.requests import PICTURES
from oneton.images import ObjectStore
from oneton.records.locks import Locks
from oneton.records.tenant_deletions import TenantDeletion, TenantDeletions
from oneton.verbs.authenticate import KEY_HOLDS_S

log = structlog.get_logger()

ROWS = 5000
OBJECTS = 500
AT_ONCE = 16
"""Objects that are deleted side by side."""
SETTLE_S = 2 * KEY_HOLDS_S
"""By then every process knows that the tenant's calls are refused."""
POLL_S = 0.5
GAP_S = 0.05
"""Between steps, for whoever else waits for the lock: who gets it does these steps, too."""
FACE_IMAGES, OTHER_PICTURES, COPIES = "face images", "pictures", "snapshot files"


class Proof(msgspec.Struct, frozen=True):
    """What was deleted, and what is found of it now: nothing.

    Attributes:
        rows_left: by table, of every table that has tenants' rows.
    """

    deletion: TenantDeletion
    rows_left: dict[str, int]
    objects_left: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left."""
        return self.objects_left == 0 and not any(self.rows_left.values())


@dataclass(frozen=True)
class EraseTenant:
    """The steps of the job. Objects go before rows, so that a crash leaves what says go on."""

    deletions: TenantDeletions
    images: ObjectStore

    async def step(self, tenant: TenantId) -> bool:
        """Erase some of what is left; whether that was all.

        Raises:
            StoreDownError: try again.
        """
        wait_s = SETTLE_S - await self.deletions.asked_ago_s(tenant)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if gone := await self.erase_objects(tenant):
            await self.deletions.count_objects(tenant, gone)
            return False
        if await self.deletions.erase(tenant, ROWS):
            return False
        if await self.deletions.end(tenant):
            log.info("a deleted tenant is erased", tenant=str(tenant))
        return True

    async def erase_objects(self, tenant: TenantId) -> Counter[str]:
        """Delete some of a tenant's objects; how many of each kind."""
        gone: Counter[str] = Counter()
        keys: list[str] = []
        async for each in self.images.list(f"{tenant}/"):
            keys.append(each.key)
            is_picture = each.key.startswith(f"{tenant}/{PICTURES}/")
            gone[OTHER_PICTURES if is_picture else FACE_IMAGES] += 1
            if len(keys) == OBJECTS:
                break
        for first in range(0, len(keys), AT_ONCE):
            some = (self.images.delete(key) for key in keys[first : first + AT_ONCE])
            for done in await asyncio.gather(*some, return_exceptions=True):
                if isinstance(done, BaseException):
                    raise done
        if not keys:
            for copy in await self.images.list_files(str(tenant)):
                await self.images.delete_file(copy.key)
                gone[COPIES] += 1
        return gone

    async def objects_left(self, tenant: TenantId) -> int:
        """How many objects a tenant has, copies of snapshots with them."""
        found = len(await self.images.list_files(str(tenant)))
        async for _ in self.images.list(f"{tenant}/"):
            found += 1
        return found


@dataclass(frozen=True)
class DeleteTenant:
    """Only operators do. When this process ends, any server or worker goes on with the job."""

    deletions: TenantDeletions
    erase: EraseTenant
    locks: Locks

    async def __call__(self, tenant: TenantId) -> Proof:
        """Delete a tenant, or go on with it, and wait until that is over.

        Raises:
            NotFoundError: there is no such tenant.
            StoreDownError: Postgres or the object store does not answer; what is left is deleted
                later.
        """
        await self.deletions.begin(tenant, actor().name)
        while True:
            # A step each time, or others' jobs would wait for all of this tenant's.
            async with self.locks.held("jobs") as mine:
                if mine:
                    await self.erase.step(tenant)
            if (await self.deletions.read(tenant)).ended_at is not None:
                return await self.prove(tenant)
            await asyncio.sleep(GAP_S if mine else POLL_S)

    async def prove(self, tenant: TenantId) -> Proof:
        """Look for whatever there may be of a deleted tenant.

        Raises:
            NotFoundError: it was not deleted.
        """
        return Proof(
            await self.deletions.read(tenant),
            await self.deletions.left(tenant),
            await self.erase.objects_left(tenant),
        )


@dataclass(frozen=True)
class ForgetTenants:
    """What came in after a tenant was deleted, of a call or a process that ended half-way."""

    deletions: TenantDeletions
    erase: EraseTenant

    async def __call__(self) -> int:
        """Delete it; returns how many objects and events."""
        late = await self.deletions.forget_late()
        for tenant in await self.deletions.lately():
            while gone := await self.erase.erase_objects(tenant):
                late += gone.total()
        return late
