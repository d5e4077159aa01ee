"""Manage encryption: begin to seal anew, wrap keys anew, destroy keys, say how it stands."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import anyio.to_thread
import msgspec

from oneton.domain.errors import ConflictError, NotFoundError, SettingError
from oneton.domain.model import Tenant, TenantId
from oneton.images import ObjectStore
from oneton.images.encrypted import key_number
from oneton.images.scratch import FOLDER, delete_scratch
from oneton.records.encryption import Counted, Encryption, KeyState, Run

WINDOW = 50_000
AT_ONCE = 8


class Objects(msgspec.Struct, frozen=True):
    """Objects of a tenant as they lie in the store, read one by one."""

    objects: int
    sealed: int
    current: int


class State(msgspec.Struct, frozen=True):
    """How the encryption of a tenant stands.

    Attributes:
        objects: None when they were not looked at.
        run: the last one.
    """

    tenant: str
    keys: KeyState
    templates: Counted
    objects: Objects | None
    run: Run | None


@dataclass(frozen=True)
class ManageEncryption:
    """Operators do; what takes long is left to workers.

    Args:
        objects: the store below, as it lies there.
        index_dir: where this machine has snapshots.
    """

    encryption: Encryption | None
    objects: ObjectStore
    index_dir: Path

    async def begin(self, tenant: TenantId, *, rotate: bool, actor: str) -> Run:
        """See `Encryption.begin`."""
        return await self._encryption().begin(tenant, rotate=rotate, actor=actor)

    async def rewrap(self, tenant: TenantId) -> int:
        """See `Encryption.rewrap`."""
        return await self._encryption().rewrap(tenant)

    async def look(self, tenant: Tenant, *, deep: bool) -> State:
        """How it stands.

        Args:
            deep: read every object, too.
        """
        encryption, tenant_id = self._encryption(), tenant.tenant_id
        keys = await encryption.state(tenant_id)
        return State(
            tenant=tenant.name,
            keys=keys,
            templates=await self._count(tenant_id, keys.number),
            objects=await self._count_objects(tenant_id, keys.number) if deep else None,
            run=await encryption.newest_run(tenant_id),
        )

    async def destroy(self, tenant: TenantId, *, actor: str) -> None:
        """Destroy a tenant's keys; nothing of it opens any more.

        Raises:
            ConflictError: it has no key, or some of its data is in plain.
            KeyDestroyedError: that was done before.
        """
        encryption = self._encryption()
        number = (await encryption.state(tenant)).number
        if number is not None:
            counted = await self._count(tenant, number)
            objects = await self._count_objects(tenant, number)
            plain = (counted.templates - counted.sealed) + (objects.objects - objects.sealed)
            if plain:
                raise ConflictError(
                    f"{plain} templates and images are not encrypted: oneton encryption apply first"
                )
        details = {"templates": counted.templates if number is not None else 0}
        await encryption.destroy(tenant, actor=actor, details=details)
        await anyio.to_thread.run_sync(self._delete_snapshots, tenant)
        for copy in await self.objects.list_files(str(tenant)):
            await self.objects.delete_file(copy.key)

    async def _count(self, tenant: TenantId, number: int | None) -> Counted:
        encryption = self._encryption()
        found = [
            await encryption.count(tenant, gallery_no, since, since + WINDOW, number)
            for gallery_no, head in await encryption.galleries(tenant)
            for since in range(0, head, WINDOW)
        ]
        return Counted(
            sum(each.templates for each in found),
            sum(each.sealed for each in found),
            sum(each.current for each in found),
        )

    async def _count_objects(self, tenant: TenantId, number: int | None) -> Objects:
        numbers: list[int] = []
        page: list[str] = []
        async for stored in self.objects.list(f"{tenant}/"):
            page.append(stored.key)
            if len(page) >= AT_ONCE:
                numbers += await self._numbers(page)
                page = []
        numbers += await self._numbers(page)
        return Objects(
            len(numbers), sum(each > 0 for each in numbers), sum(each == number for each in numbers)
        )

    async def _numbers(self, keys: list[str]) -> list[int]:
        """The key of each object that is there."""
        found = await asyncio.gather(
            *(self.objects.get(key) for key in keys), return_exceptions=True
        )
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, NotFoundError):
                raise each
        return [key_number(each[0]) for each in found if not isinstance(each, BaseException)]

    def _delete_snapshots(self, tenant: TenantId) -> None:
        """On this machine; servers on others do as soon as they hear of it."""
        delete_scratch(self.index_dir / FOLDER, tenant)
        for folder in (*self.index_dir.glob(f"*.{tenant}"), *self.index_dir.glob(f"*/*.{tenant}")):
            rmtree(folder, ignore_errors=True)

    def _encryption(self) -> Encryption:
        if self.encryption is None:
            raise SettingError("encryption is off: set ONETON_MASTER_KEY")
        return self.encryption
