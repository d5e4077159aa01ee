"""Keep up: seal, merge, take snapshots, let idle galleries go; all behind the answers' backs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from time import monotonic
from uuid import UUID

import structlog

from oneton.domain.errors import OnetonError, SnapshotError
from oneton.domain.model import GalleryId, TenantId
from oneton.index.store import IndexStore
from oneton.verbs.catch_up import CatchUp, Loaded
from oneton.verbs.cpu import Cpu

log = structlog.get_logger()

TICK_S = 0.5


@dataclass(frozen=True)
class KeepUp:
    """Works through the indexes that this process holds.

    Args:
        upkeep: one thread of low priority.
        memory_bytes: what the indexes may take together; one in use may take more alone.
        snapshot_interval_s: age at which changes are written.
        snapshot_changes: number at which they are.
    """

    catch_up: CatchUp
    store: IndexStore
    upkeep: Cpu
    memory_bytes: int
    snapshot_interval_s: float
    snapshot_changes: int

    async def run(self) -> None:
        """Keep up until cancelled."""
        while True:
            try:
                await self.once()
            except Exception:
                # Answers do not depend on it, and the next round may do better.
                log.exception("keeping up failed")
            await asyncio.sleep(TICK_S)

    async def warm(self) -> None:
        """Load the galleries that have snapshots before they are asked about, the largest first."""
        for identity in await self.upkeep.run_upkeep(self.store.identities):
            if self.catch_up.size_bytes >= self.memory_bytes:
                return
            try:
                await self.catch_up(
                    TenantId(UUID(identity.tenant_id)), GalleryId(identity.gallery_id)
                )
            except (OnetonError, ValueError) as error:
                log.info("not loaded ahead", gallery=identity.gallery_id, why=str(error))

    async def once(self) -> None:
        """Do what is due now."""
        for held in self.catch_up.held():
            index = held.index
            if index is None or index.damage is not None or not index.wants_upkeep():
                continue
            await self._seal_and_merge(held)
            if self._snapshot_is_due(held):
                await self.take_snapshot(held)
        await self._let_go()

    async def take_snapshot(self, held: Loaded) -> bool:
        """Write what an index holds; False when it is small or cannot be written."""
        index = held.index
        if index is None or index.damage is not None:
            return False
        held.snapshot_at_s = monotonic()
        work = partial(self.store.take, held.identity, index)
        manifest = await self.upkeep.run_upkeep(work)
        if manifest is None:
            return False
        held.snapshot_head = manifest.head
        log.info(
            "snapshot taken",
            gallery=manifest.identity.gallery_id,
            head=manifest.head,
            faces=manifest.faces,
        )
        return True

    async def close(self) -> None:
        """Write what changed since the last snapshots, at shutdown."""
        for held in self.catch_up.held():
            if held.index is not None and held.index.head > held.snapshot_head:
                await self.take_snapshot(held)

    async def _seal_and_merge(self, held: Loaded) -> None:
        index = held.index
        assert index is not None
        try:
            while await self.upkeep.run_upkeep(index.upkeep):
                self.catch_up.count(held)
        except SnapshotError as error:
            # The next question sets the snapshots aside and loads anew.
            log.warning("an index is damaged", gallery=held.identity.gallery_id, error=str(error))

    def _snapshot_is_due(self, held: Loaded) -> bool:
        assert held.index is not None
        changes = held.index.head - held.snapshot_head
        age_s = monotonic() - held.snapshot_at_s
        return changes >= self.snapshot_changes or (
            changes > 0 and age_s >= self.snapshot_interval_s
        )

    async def _let_go(self) -> None:
        """Drop the indexes that were asked about longest ago, until the rest fits."""
        if self.catch_up.size_bytes <= self.memory_bytes:
            return
        for held in self.catch_up.held()[:-1]:
            if self.catch_up.size_bytes <= self.memory_bytes:
                return
            if held.lock.locked():
                continue
            index = held.index
            if index is not None and index.head > held.snapshot_head:
                await self.take_snapshot(held)
            self.catch_up.drop(held)
