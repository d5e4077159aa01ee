"""Hold the indexes of galleries; what searches by templates alone needs no model in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep

import anyio
import anyio.to_thread
from threadpoolctl import threadpool_limits

from oneton.domain.model import Gallery, TenantId
from oneton.domain.watching import NO_WATCH, Watch
from oneton.images.scratch import FOLDER, delete_scratch
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.store import IndexStore, is_held
from oneton.models import make_analyser
from oneton.parts import Parts, open_find_pack
from oneton.records.duplicates import EnrolledFaces
from oneton.settings import Settings
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.copy_snapshots import CopySnapshots
from oneton.verbs.cpu import Cpu
from oneton.verbs.duplicates import FindDuplicates
from oneton.verbs.enroll_batch import EnrollBatch
from oneton.verbs.identify import Find
from oneton.verbs.keep_up import KeepUp
from oneton.verbs.load_model import FindPack, LoadModel
from oneton.verbs.take_snapshot import AskForSnapshot

UPKEEP_NICE = 10
FORGET_WITHIN_S = 10.0


@dataclass(frozen=True)
class Indexes:
    """The indexes of galleries, and what they are kept with."""

    packs: FindPack
    cpu: Cpu
    catch_up: CatchUp
    keep_up: KeepUp
    upkeep: Cpu
    follow: Cpu


@asynccontextmanager
async def open_indexes(
    settings: Settings, parts: Parts, *, load_within_s: float | None = None
) -> AsyncIterator[Indexes]:
    """Find the model pack, and hold the galleries that are asked about until the block ends.

    Args:
        load_within_s: how long a question waits for a gallery, as in a server, which also loads
            ahead what has snapshots; None is for ever.
    """
    packs = await open_find_pack(settings, parts)
    cpu = Cpu(settings.cpu_threads, settings.queue_limit)
    follow = Cpu(1, 0, name="follow")
    upkeep = Cpu(1, 0, name="upkeep", nice=UPKEEP_NICE)
    threads = ScanThreads(settings.cpu_threads)
    store = await anyio.to_thread.run_sync(partial(_open_store, settings, threads, parts.watch))
    copies = _make_copies(settings, parts, store, cpu, upkeep) if settings.snapshot_copy else None
    catch_up = CatchUp(
        parts.galleries,
        parts.faces,
        cpu,
        upkeep,
        store,
        parts.model_packs,
        load_within_s=load_within_s,
        copies=copies,
        follow=follow,
    )
    keep_up = KeepUp(
        catch_up,
        store,
        upkeep,
        memory_bytes=settings.index_memory,
        snapshot_interval_s=settings.snapshot_interval_s,
        snapshot_changes=settings.snapshot_changes,
        copies=copies,
        watch=parts.watch,
    )
    # A BLAS of several threads would take all cores from the answers, whoever calls it: sealing a
    # segment multiplies large matrices, on a thread that gives way; everything else small ones.
    blas = threadpool_limits(limits=1, user_api="blas")
    behind = [asyncio.create_task(keep_up.run())]
    if load_within_s is not None:
        behind.append(asyncio.create_task(keep_up.warm()))
    try:
        yield Indexes(packs, cpu, catch_up, keep_up, upkeep, follow)
    finally:
        with anyio.CancelScope(shield=True):
            for task in behind:
                task.cancel()
            await asyncio.gather(*behind, return_exceptions=True)
            await catch_up.close()
            if copies is not None:
                await copies.close()
            await keep_up.close()
            cpu.close()
            follow.close()
            upkeep.close()
            threads.close()
            store.close()
            blas.restore_original_limits()


async def forget_indexes(settings: Settings, tenant: TenantId) -> int:
    """Delete a former tenant's snapshots on this machine; how many galleries have any left.

    Where a server has the folder, it does so by itself, which is waited for.
    """
    return await anyio.to_thread.run_sync(partial(_forget_indexes, settings, tenant))


def _forget_indexes(settings: Settings, tenant: TenantId) -> int:
    root, until_s = settings.index_dir, monotonic() + FORGET_WITHIN_S
    delete_scratch(root / FOLDER, tenant)
    pattern = f"**/*.{tenant}"
    while left := len(list(root.glob(pattern))):
        if not is_held(root):
            threads = ScanThreads(1)
            store = _open_store(settings, threads, NO_WATCH)
            for each in store.galleries():
                if each.tenant_id == str(tenant):
                    store.discard_gallery(each)
            store.close()
            threads.close()
            return len(list(root.glob(pattern)))
        if monotonic() >= until_s:
            break
        sleep(0.2)
    return left


def _open_store(settings: Settings, threads: ScanThreads, watch: Watch) -> IndexStore:
    policy = Policy(seal_faces=settings.index_seal_faces, seal_after_s=settings.index_seal_after_s)
    return IndexStore(
        settings.index_dir, policy, threads, settings.snapshot_least_faces, watch=watch
    )


def _make_copies(
    settings: Settings, parts: Parts, store: IndexStore, cpu: Cpu, upkeep: Cpu
) -> CopySnapshots:
    return CopySnapshots(
        parts.images,
        store,
        cpu,
        upkeep,
        changes=settings.snapshot_changes,
        least_faces=settings.snapshot_least_faces,
    )


async def make_find_duplicates(parts: Parts, indexes: Indexes, gallery: Gallery) -> FindDuplicates:
    """What `oneton duplicates` uses."""
    files, calibration = await indexes.packs(gallery.model_pack_no)
    return FindDuplicates(
        indexes.catch_up,
        indexes.cpu,
        EnrolledFaces(parts.database),
        calibration,
        files.pack.dimension,
    )


def make_enroll_batch(settings: Settings, parts: Parts, indexes: Indexes, cpu: Cpu) -> EnrollBatch:
    """What imports use; all that they compute is done by `cpu`."""
    return EnrollBatch(
        LoadModel(indexes.packs, partial(make_analyser, settings), cpu),
        indexes.catch_up,
        Find(indexes.catch_up, cpu, parts.faces),
        parts.galleries,
        parts.faces,
        parts.images,
        cpu,
        settings.sweep_grace_s / 2,
        parts.trail,
    )


def make_ask_for_snapshot(settings: Settings, parts: Parts) -> AskForSnapshot:
    """What `oneton snapshot take` uses while a server runs."""
    return AskForSnapshot(parts.database, parts.galleries, settings.index_dir)
