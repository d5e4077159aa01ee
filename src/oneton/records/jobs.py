"""The job queue in Postgres: PgQueuer, under our own names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.models import Job
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import Channel

from oneton.domain.watching import NO_WATCH, Watch, watched_job
from oneton.records.database import Database, keep_as_is, store_errors

PREFIX = "oneton_"
HEARTBEAT_S = 10.0
"""A job of a process that died is given to another after so long."""
LOOK_S = 2.0
BUSY_LOOK_S = 0.5
BATCH = 2

Handler = Callable[[bytes], Awaitable[None]]


class Jobs:
    """Jobs that any number of processes share; one that fails or is lost is not kept.

    Whoever puts jobs in looks at what is left to do, not at what the queue says was done.
    """

    def __init__(self, database: Database, watch: Watch = NO_WATCH) -> None:
        self._database = database
        self._watch = watch
        self._settings = DBSettings(prefix=PREFIX)
        self._queries = self._over(database.pool)

    async def put(self, kind: str, payloads: Sequence[bytes], keys: Sequence[str]) -> None:
        """Add jobs; one whose key is queued or at work already is left out."""
        if payloads:
            with store_errors():
                await self._queries.enqueue(
                    [kind] * len(payloads),
                    list(payloads),
                    [0] * len(payloads),
                    dedupe_key=list(keys),
                    on_conflict="skip",
                )

    async def waiting(self, kind: str, key_prefix: str) -> int:
        """How many jobs of a kind are queued or at work."""
        rows = await self._database.fetch(
            f"""select count(*) as jobs from {self._settings.queue_table}
                where entrypoint = $1 and starts_with(dedupe_key, $2)
                  and status in ('queued', 'picked')""",  # noqa: S608 - a table of ours
            kind,
            key_prefix,
        )
        return int(rows[0]["jobs"])

    async def work(self, handlers: dict[str, Handler], *, at_once: int) -> None:
        """Do jobs until cancelled; those at work are finished first."""
        async with asyncpg.create_pool(
            self._database.dsn,
            min_size=1,
            max_size=3,
            server_settings=self._database.server_settings,
            reset=keep_as_is,
        ) as pool:
            manager = QueueManager(self._over(pool), channel=Channel(self._settings.channel))
            # While it has its hands full it looks at the queue so often.
            manager.min_dequeue_poll_interval = timedelta(seconds=BUSY_LOOK_S)
            for kind, handler in handlers.items():
                manager.entrypoint(kind)(_made(handler, kind, self._watch))
            running = asyncio.create_task(
                manager.run(
                    dequeue_timeout=timedelta(seconds=LOOK_S),
                    batch_size=BATCH,
                    max_concurrent_tasks=max(2 * BATCH, at_once),
                    heartbeat_timeout=timedelta(seconds=HEARTBEAT_S),
                )
            )
            try:
                await asyncio.shield(running)
            finally:
                manager.shutdown.set()
                await asyncio.gather(running, return_exceptions=True)

    def _over(self, pool: asyncpg.Pool) -> Queries:
        return Queries(
            AsyncpgPoolDriver(pool),
            qbe=QueryBuilderEnvironment(settings=self._settings),
            qbq=QueryQueueBuilder(settings=self._settings),
            qbs=QuerySchedulerBuilder(settings=self._settings),
        )


def _made(handler: Handler, kind: str, watch: Watch) -> Callable[[Job], Awaitable[None]]:
    async def run(job: Job) -> None:
        with watched_job(watch, kind):
            await handler(job.payload or b"")

    return run
