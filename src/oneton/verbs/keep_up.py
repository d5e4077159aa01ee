"""Keep up: seal, merge, take snapshots, let idle galleries go; all behind the answers' backs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic
from uuid import UUID

import structlog

from oneton.domain.errors import (
    ConflictError,
    IndexLoadingError,
    OnetonError,
    SnapshotError,
    UnavailableError,
)
from oneton.domain.model import GalleryId, TenantId
from oneton.domain.watching import NO_WATCH, Watch
from oneton.index.manifest import Manifest, names_of
from oneton.index.store import IndexStore
from oneton.verbs.catch_up import CatchUp, Loaded
from oneton.verbs.copy_snapshots import CopySnapshots
from oneton.verbs.cpu import Cpu

log = structlog.get_logger()

TICK_S = 0.5
STEPS = 4
"""Of sealing and merging in a row; then come snapshots, other galleries, and what memory allows."""
FORGET_EVERY_S = 60.0
"""So often files are looked for of galleries that are no more, for news may be lost."""
LAST_LOOK_S = 2.0
"""For so long a shutdown waits for what Postgres says of that."""
RETRY_S = 60.0
"""After a snapshot that could not be written."""


@dataclass(frozen=True)
class KeepUp:
    """Works through the indexes that this process holds.

    Args:
        upkeep: one thread of low priority.
        memory_bytes: what the indexes may take together; one in use may take more alone.
        snapshot_interval_s: age at which changes are written.
        snapshot_changes: number at which they are.
        copies: of snapshots in the object store; None is for none.
        asked: galleries of which a snapshot is wanted soon.
    """

    catch_up: CatchUp
    store: IndexStore
    upkeep: Cpu
    memory_bytes: int
    snapshot_interval_s: float
    snapshot_changes: int
    copies: CopySnapshots | None = None
    asked: set[tuple[TenantId, GalleryId]] = field(default_factory=set)
    watch: Watch = field(default=NO_WATCH, kw_only=True)

    async def run(self) -> None:
        """Keep up until cancelled."""
        looked_s = -inf
        while True:
            try:
                if monotonic() - looked_s >= FORGET_EVERY_S:
                    looked_s = monotonic()
                    await self._forget_deleted()
                await self.once()
            except Exception:
                # Answers do not depend on it, and the next round may do better.
                log.exception("keeping up failed")
            await asyncio.sleep(TICK_S)

    async def _forget_deleted(self) -> None:
        """Whether there was news of it or not."""
        try:
            await self.catch_up.forget_deleted()
        except UnavailableError as error:
            log.info("deleted galleries are let go of later", why=str(error))

    async def warm(self) -> None:
        """Load the galleries that have snapshots before they are asked about, the largest first."""
        for identity in await self.upkeep.run_upkeep(self.store.identities):
            if self.catch_up.size_bytes >= self.memory_bytes:
                return
            try:
                if not await self.catch_up.is_of_use(identity):
                    await self.catch_up.discard(identity)
                    continue
                await self.catch_up(
                    TenantId(UUID(identity.tenant_id)), GalleryId(identity.gallery_id)
                )
            except (OnetonError, ValueError) as error:
                log.info("not loaded ahead", gallery=identity.gallery_id, why=str(error))

    async def once(self) -> None:
        """Do what is due now."""
        await self._take_asked()
        for held in self.catch_up.held():
            index = held.index
            if index is not None and index.damage is not None:
                await self._repair(held)
                continue
            if index is None or not index.wants_upkeep():
                continue
            await self._seal_and_merge(held)
            if self._snapshot_is_due(held):
                await self.take_snapshot(held)
        await self._let_go()

    def ask(self, tenant: TenantId, gallery_id: GalleryId) -> None:
        """Take a snapshot of a gallery soon, whatever its size.

        A gallery that is not held is for the first process of a machine to load.
        """
        held = [(each.gallery.tenant_id, each.gallery.gallery_id) for each in self.catch_up.held()]
        if self.store.is_first or (tenant, gallery_id) in held:
            self.asked.add((tenant, gallery_id))

    async def take_now(self, tenant: TenantId, gallery_id: GalleryId) -> Manifest:
        """Take a snapshot of a gallery as it is now, whatever its size; load it if need be.

        Raises:
            NotFoundError: the tenant has no such gallery.
            ConflictError: the gallery is empty, or was made by another model pack.
            UnavailableError: the snapshot cannot be written.
        """
        current = await self.catch_up(tenant, gallery_id)
        if not len(current.index):
            raise ConflictError(f"gallery {gallery_id} has no faces")
        for held in self.catch_up.held():
            if held.index is current.index:
                manifest = await self.take_snapshot(held, however_small=True)
                if manifest is not None:
                    return manifest
        raise UnavailableError(f"no snapshot of {gallery_id} can be written to {self.store.folder}")

    async def take_snapshot(self, held: Loaded, *, however_small: bool = False) -> Manifest | None:
        """Write what an index holds; None when it is small or cannot be written."""
        index = held.index
        if index is None or index.damage is not None or held.gone:
            return None
        held.snapshot_at_s = monotonic()
        take = self.store.take_any if however_small else self.store.take
        try:
            manifest = await self.upkeep.run_upkeep(partial(take, held.identity, index))
        except SnapshotError as error:
            index.damage = str(error)
            self.watch.count("snapshots", "failed")
            return None
        if manifest is None:
            held.snapshot_failed_s = monotonic()
            return None
        held.snapshot_head = manifest.head
        held.snapshot_files = names_of(manifest)
        self.watch.count("snapshots", "taken")
        log.info(
            "snapshot taken",
            gallery=manifest.identity.gallery_id,
            head=manifest.head,
            faces=manifest.faces,
        )
        if self.copies is not None:
            self.copies.start_upload(manifest)
        return manifest

    async def close(self) -> None:
        """Write what changed since the last snapshots, at shutdown."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_LOOK_S):
                await self._forget_deleted()
        for held in self.catch_up.held():
            if held.index is not None and held.index.head > held.snapshot_head:
                await self.take_snapshot(held)

    async def _seal_and_merge(self, held: Loaded) -> None:
        index = held.index
        assert index is not None
        try:
            for _ in range(STEPS):
                before = len(index.view.parts)
                if held.gone or not await self.upkeep.run_upkeep(index.upkeep):
                    return
                sealed = len(index.view.parts) > before
                self.watch.count("upkeep", "seal" if sealed else "merge")
                self.catch_up.count(held)
        except SnapshotError:
            # Noted as the index's damage, which the next round repairs.
            return

    async def _repair(self, held: Loaded) -> None:
        """Load a damaged index anew, unless a question was first."""
        try:
            await self.catch_up(held.gallery.tenant_id, held.gallery.gallery_id)
        except UnavailableError:
            return
        except OnetonError:
            self.catch_up.drop(held)

    async def _take_asked(self) -> None:
        """Take the snapshots that were asked for; one that is being loaded has its turn later."""
        for tenant, gallery_id in list(self.asked):
            self.asked.discard((tenant, gallery_id))
            try:
                await self.take_now(tenant, gallery_id)
            except IndexLoadingError:
                self.asked.add((tenant, gallery_id))
            except OnetonError as error:
                log.warning("no snapshot was taken", gallery=gallery_id, error=str(error))

    def _snapshot_is_due(self, held: Loaded) -> bool:
        assert held.index is not None
        if monotonic() - held.snapshot_failed_s < RETRY_S:
            return False
        changes = held.index.head - held.snapshot_head
        if changes >= self.snapshot_changes:
            return True
        # A segment that was written anew without its removed faces counts as a change: their
        # templates are to leave the older snapshots, too.
        changed = changes > 0 or held.index.files() != held.snapshot_files
        return changed and monotonic() - held.snapshot_at_s >= self.snapshot_interval_s

    async def _let_go(self) -> None:
        """Drop the indexes that were asked about longest ago, until the rest fits."""
        if self.catch_up.size_bytes <= self.memory_bytes:
            return
        for held in self.catch_up.held()[:-1]:
            if self.catch_up.size_bytes <= self.memory_bytes:
                return
            if held.is_moving:
                continue
            index = held.index
            if index is not None and index.head > held.snapshot_head:
                await self.take_snapshot(held)
            self.catch_up.drop(held)
