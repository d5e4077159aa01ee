"""Drive a reindex: hand out chunks, compare, cut over, end, clean up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from oneton.domain.errors import ConflictError, IndexLoadingError, OnetonError, SnapshotError
from oneton.domain.model import Cosine, Gallery, Score
from oneton.domain.reindexing import GalleryState, OnFailure, RunState, Work
from oneton.records.galleries import Galleries
from oneton.records.jobs import Jobs
from oneton.records.locks import Locks
from oneton.records.reindexing import Reindexing
from oneton.records.templates import decode_templates
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.cpu import Cpu
from oneton.verbs.keep_up import KeepUp
from oneton.verbs.load_model import FindPack
from oneton.verbs.reembed import KIND, Chunk

log = structlog.get_logger()

TICK_S = 0.5
OTHERS_TICK_S = 5.0
"""While another process drives, or old packs are only kept."""
CHUNK = 64
AHEAD = 16
"""Chunks that wait or are at work at once, of a gallery: enough for many processes."""
SAMPLE = 200
LIKE = Score(50.0)
"""Neighbours of at least this score count as found; below, as none."""
LEAST_AGREEMENT = 0.8
"""Of the faces compared; a pack that agrees less is not cut over without an operator."""
CLEAN_ROWS = 5000
_ENDED = (GalleryState.FINISHED, GalleryState.CANCELLED, GalleryState.ROLLED_BACK)


@dataclass(frozen=True)
class DriveReindex:
    """One process at a time drives; which one does not matter, for all it knows is in Postgres."""

    reindexing: Reindexing
    galleries: Galleries
    jobs: Jobs
    locks: Locks
    catch_up: CatchUp
    keep_up: KeepUp
    find_pack: FindPack
    cpu: Cpu

    async def has_work(self) -> bool:
        """Whether anything is due, or soon will be."""
        return any(
            each.state not in _ENDED or not each.cleaned for each in await self.reindexing.works()
        )

    async def run(self) -> None:
        """Drive until there is nothing left to do; another process may be at it."""
        while await self.has_work():
            try:
                async with self.locks.held("reindex") as mine:
                    while mine and await self.has_work():
                        busy = await self.once()
                        await asyncio.sleep(TICK_S if busy else OTHERS_TICK_S)
            except OnetonError as error:
                log.warning("driving a reindex failed", error=str(error))
            await asyncio.sleep(OTHERS_TICK_S)

    async def once(self) -> bool:
        """Do what is due now; whether there is more than old packs that are kept."""
        works = await self.reindexing.works()
        for work in works:
            try:
                await self._advance(work)
            except OnetonError as error:
                log.warning("a reindex waits", gallery=work.gallery_id, error=str(error))
        for run_id in {work.run_id for work in works if work.run_state is RunState.RUNNING}:
            states = {work.state for work in await self.reindexing.works(run_id)}
            if states <= set(_ENDED):
                await self.reindexing.set_run(run_id, RunState.FINISHED)
                log.info("reindex finished", run=str(run_id))
        return any(each.state is not GalleryState.KEPT and not each.cleaned for each in works)

    async def _advance(self, work: Work) -> None:
        if work.state in _ENDED:
            if not work.cleaned:
                finished = work.state is GalleryState.FINISHED
                pack_no = work.from_pack_no if finished else work.to_pack_no
                await self.reindexing.clean(work, pack_no, CLEAN_ROWS)
            return
        if work.state is GalleryState.KEPT:
            await self._finish_in_time(work)
        elif work.run_state is RunState.RUNNING:
            if work.state is GalleryState.FILLING:
                await self._hand_out(work)
            elif work.state is GalleryState.FILLED:
                await self._cut_over(work)

    async def _hand_out(self, work: Work) -> None:
        """Keep enough chunks in the queue; at the end look whether any was lost."""
        key = f"{work.run_id}:{work.gallery_no}:"
        waiting = await self.jobs.waiting(KIND, key)
        while waiting < AHEAD:
            face_nos = await self.reindexing.hand_out(work, CHUNK)
            if not face_nos:
                break
            chunk = Chunk(str(work.run_id), work.gallery_no, list(face_nos))
            await self.jobs.put(KIND, [msgspec.json.encode(chunk)], [f"{key}{face_nos[0]}"])
            waiting += 1
        if waiting:
            return
        if await self.reindexing.left(work):
            await self.reindexing.hand_out_again(work)
            return
        (now,) = [
            each
            for each in await self.reindexing.works(work.run_id)
            if each.gallery_no == work.gallery_no
        ]
        if now.failed and now.on_failure is OnFailure.STOP:
            await self.reindexing.steps.stop(work, f"{now.failed} images yield no face")
            log.warning("a reindex stopped", gallery=work.gallery_id, failed=now.failed)
        elif await self.reindexing.steps.fill(await self._gallery(work), work):
            log.info("a gallery is re-embedded", gallery=work.gallery_id, faces=now.embedded)

    async def _cut_over(self, work: Work) -> None:
        """Compare the two indexes, write a snapshot of the new one, then let it answer."""
        if work.compared is None:
            compared, agreed = await self._compare(work)
            await self.reindexing.steps.note_agreement(work, compared, agreed)
            log.info("packs compared", gallery=work.gallery_id, compared=compared, agreed=agreed)
            if agreed < LEAST_AGREEMENT * compared:
                why = f"nearest neighbours agree for {agreed} of {compared} faces only"
                await self.reindexing.steps.stop(work, why)
                return
        await self._load(work, work.to_pack_no)
        for held in self.catch_up.held():
            if held.gallery.gallery_no == work.gallery_no and held.pack_no == work.to_pack_no:
                await self.keep_up.take_snapshot(held, however_small=False)
        dropped = await self.reindexing.steps.cut_over(await self._gallery(work), work)
        if dropped is not None:
            log.info("cut over", gallery=work.gallery_id, dropped=dropped)

    async def _compare(self, work: Work) -> tuple[int, int]:
        """How many of some faces have the same nearest other face under both packs."""
        sample = await self.reindexing.sample(work, SAMPLE)
        if not sample:
            return 0, 0
        face_nos = np.array([each.face_no for each in sample])
        nearest: list[NDArray[np.int64]] = []
        for number, pack_no in ((1, work.from_pack_no), (2, work.to_pack_no)):
            current = await self._load(work, pack_no)
            files, calibration = await self.find_pack(pack_no)
            stored = b"".join(each.old if number == 1 else each.new for each in sample)
            rows = decode_templates(stored, files.pack.dimension)
            least = calibration.cosine(LIKE)
            nearest.append(await self._nearest(current, rows, face_nos, least))
        return len(sample), int((nearest[0] == nearest[1]).sum())

    async def _nearest(
        self,
        current: Current,
        rows: NDArray[np.float32],
        face_nos: NDArray[np.int64],
        least: Cosine,
    ) -> NDArray[np.int64]:
        """The nearest other face of each; -1 where none is near, -2 where it misses itself."""
        try:
            cosines, found = await self.cpu.run_upkeep(
                partial(current.index.search, rows, min(8, max(2, len(current.index))))
            )
        except SnapshotError as error:
            raise IndexLoadingError(str(error)) from error
        itself = found == face_nos[:, None]
        others = np.where(itself | (cosines < least), -2.0, cosines)
        best = np.argmax(others, axis=1)
        at = np.arange(len(face_nos))
        nearest = np.where(others[at, best] > -2, found[at, best], -1)
        return np.where(itself.any(axis=1), nearest, -2)

    async def _load(self, work: Work, pack_no: int) -> Current:
        while True:
            try:
                return await self.catch_up(work.tenant_id, work.gallery_id, pack_no=pack_no)
            except IndexLoadingError as error:
                await asyncio.sleep(error.retry_after_s)

    async def _finish_in_time(self, work: Work) -> None:
        assert work.cut_over_at is not None
        if datetime.now(UTC) - work.cut_over_at < work.keep_old:
            return
        await self.reindexing.steps.end(await self._gallery(work), work, GalleryState.FINISHED)
        log.info("old pack let go", gallery=work.gallery_id)

    async def _gallery(self, work: Work) -> Gallery:
        gallery = await self.galleries.read(work.tenant_id, work.gallery_id)
        if gallery.gallery_no != work.gallery_no:
            raise ConflictError(f"gallery {work.gallery_id} was made anew")
        return gallery
