"""Work that is no question, in `oneton worker` or in a server that is alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from oneton.domain.acting import Actor, act_as
from oneton.domain.errors import OnetonError
from oneton.indexing import Indexes
from oneton.models import make_analyser
from oneton.parts import Parts, make_do_jobs, make_seal_anew, open_deliver_webhooks
from oneton.records.jobs import Jobs
from oneton.records.locks import Locks
from oneton.records.reindexing import Reindexing
from oneton.settings import Settings
from oneton.verbs.cpu import Cpu
from oneton.verbs.deliver_webhooks import DriveWebhooks
from oneton.verbs.drive_reindex import DriveReindex
from oneton.verbs.load_model import LoadModel
from oneton.verbs.reembed import KIND, Reembed

log = structlog.get_logger()

WORK_NICE = 10
LOOK_S = 2.0
RETRY_S = 1.0
WEBHOOKS_AT_ONCE = 32


class Chore(Protocol):
    """A kind of work; processes that do the same one share it."""

    async def has_work(self) -> bool:
        """Whether anything is to be done; one cheap question to Postgres."""
        ...

    async def run(self) -> None:
        """Work until there is nothing left to do."""
        ...


@dataclass(frozen=True)
class ReindexChore:
    """Re-embed what is in the queue, and drive it."""

    jobs: Jobs
    drive: DriveReindex
    reembed: Reembed
    at_once: int

    async def has_work(self) -> bool:
        """Whether a gallery is being re-embedded."""
        return await self.drive.has_work()

    async def run(self) -> None:
        """Until nothing is."""
        draining = asyncio.create_task(self.jobs.work({KIND: self.reembed}, at_once=self.at_once))
        driving = asyncio.create_task(self.drive.run())
        try:
            done, _ = await asyncio.wait([draining, driving], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (draining, driving):
                task.cancel()
            await asyncio.gather(draining, driving, return_exceptions=True)


@dataclass(frozen=True)
class Worker:
    """Does its chores side by side, so that none waits for another."""

    locks: Locks
    chores: tuple[Chore, ...]
    cpu: Cpu | None = None

    async def run(self) -> None:
        """Work until cancelled; other processes see that there is a worker."""
        while True:
            try:
                async with self.locks.held("worker", shared=True):
                    await self._work()
            except OnetonError as error:
                log.warning("the worker begins anew", error=str(error))
            except Exception:
                # The queue's library lets its driver's errors through, as when Postgres restarts.
                log.exception("the worker begins anew")
            await asyncio.sleep(RETRY_S)

    async def stand_in(self) -> None:
        """Work for as long as no worker does, until cancelled."""
        while True:
            try:
                await self._until_a_worker_comes()
            except OnetonError as error:
                log.warning("standing in for a worker failed", error=str(error))
            except Exception:
                log.exception("standing in for a worker failed")
            await asyncio.sleep(LOOK_S)

    async def _until_a_worker_comes(self) -> None:
        if await self.locks.is_taken("worker"):
            return
        working = asyncio.create_task(self._work())
        try:
            while not working.done():
                await asyncio.wait([working], timeout=LOOK_S)
                if await self.locks.is_taken("worker"):
                    return
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _work(self) -> None:
        """Until an error; the other chores are ended with the one that fails."""
        doing = [asyncio.create_task(_do_forever(chore)) for chore in self.chores]
        try:
            done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in doing:
                task.cancel()
            await asyncio.gather(*doing, return_exceptions=True)


async def _do_forever(chore: Chore) -> None:
    act_as(Actor("worker"))
    while True:
        if await chore.has_work():
            await chore.run()
        await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def open_worker(
    settings: Settings, parts: Parts, indexes: Indexes, *, alone: bool = True
) -> AsyncIterator[Worker]:
    """Wire the work; its threads give way to those that answer.

    Args:
        alone: in a process that does nothing else.
    """
    cpu = Cpu(settings.cpu_threads, 0, name="work", nice=WORK_NICE, idle=alone)
    reindexing = Reindexing(parts.database)
    jobs, locks = Jobs(parts.database, parts.watch), Locks(parts.database)
    load_model = LoadModel(indexes.packs, partial(make_analyser, settings), cpu)
    drive_reindex = DriveReindex(
        reindexing,
        parts.galleries,
        jobs,
        locks,
        indexes.catch_up,
        indexes.keep_up,
        indexes.packs,
        cpu,
    )
    reembed = Reembed(reindexing, parts.images, load_model, cpu)
    try:
        async with open_deliver_webhooks(settings, parts) as deliver:
            seal_anew = make_seal_anew(settings, parts, locks)
            chores = (
                ReindexChore(jobs, drive_reindex, reembed, at_once=2 * settings.cpu_threads),
                DriveWebhooks(deliver.outbox, jobs, deliver, at_once=WEBHOOKS_AT_ONCE),
                make_do_jobs(parts, locks),
                *(() if seal_anew is None else (seal_anew,)),
            )
            yield Worker(locks, chores, cpu)
    finally:
        cpu.close()
