"""Examine snapshots: every byte of those on this machine, every file of the copies in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from oneton.domain.errors import NotFoundError, SnapshotError
from oneton.domain.examining import Examined, Finding, Kind
from oneton.domain.model import StoredObject, TenantId
from oneton.images import SnapshotCopies
from oneton.index.copies import head_of
from oneton.index.inspection import Found, Key, check_snapshot, find_snapshots
from oneton.index.manifest import files_of, read_manifest
from oneton.records.tenants import Tenants


@dataclass(frozen=True)
class ExamineSnapshots:
    """Those that are set aside are known to be of no use, and left out.

    Args:
        copies: where they are; None is nowhere.
    """

    tenants: Tenants
    folder: Path
    copies: SnapshotCopies | None

    async def __call__(self) -> Examined:
        """Look once."""
        examined = Examined("snapshots")
        await asyncio.to_thread(self._examine, examined)
        if self.copies is not None:
            for tenant in await self.tenants.list():
                await self._examine_copies(self.copies, tenant.tenant_id, examined)
        return examined

    def _examine(self, examined: Examined) -> None:
        checked: set[Key] = set()
        for each in find_snapshots(self.folder):
            if each.set_aside:
                continue
            examined.count("snapshots")
            if why := _damage(each, checked):
                tenant = each.tenant_id
                examined.findings.append(
                    Finding(
                        Kind.SNAPSHOT_DAMAGED,
                        why,
                        str(each.path),
                        UUID(tenant) if len(tenant) == 36 else None,
                        each.gallery_id,
                    )
                )

    async def _examine_copies(
        self, copies: SnapshotCopies, tenant: TenantId, examined: Examined
    ) -> None:
        files = {each.key: each for each in await copies.list_files(str(tenant))}
        for key in files:
            if head_of(key.rpartition("/")[2]) < 0:
                continue
            examined.count("copies")
            if why := await _lacks(copies, key, files):
                gallery = key.split("/")[1]
                examined.findings.append(Finding(Kind.COPY_INCOMPLETE, why, key, tenant, gallery))


def _damage(found: Found, checked: set[Key]) -> str:
    try:
        for _ in check_snapshot(found, checked):
            pass
    except (SnapshotError, OSError) as error:
        # A running server may have taken a newer one, and deleted it.
        return str(error) if found.path.exists() else ""
    return ""


async def _lacks(copies: SnapshotCopies, key: str, files: dict[str, StoredObject]) -> str:
    """What a copy lacks of the files that its manifest names; empty when nothing."""
    with TemporaryDirectory() as folder:
        path = Path(folder, key.rpartition("/")[2])
        try:
            await copies.get_file(key, path)
            manifest = await asyncio.to_thread(read_manifest, path)
        except NotFoundError:
            return ""
        except SnapshotError as error:
            return str(error)
    lacking = [
        name for name in files_of(manifest) if f"{key.rpartition('/')[0]}/{name}" not in files
    ]
    return f"it lacks {len(lacking)} files, the first is {lacking[0]}" if lacking else ""


def set_aside(paths: Sequence[Path], ending: str) -> int:
    """Use these snapshots no more; returns how many were there."""
    done = 0
    for path in paths:
        try:
            path.rename(path.with_name(path.name + ending))
        except FileNotFoundError:
            continue
        done += 1
    return done
