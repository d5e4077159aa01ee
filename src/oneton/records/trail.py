"""The part of the audit trail that is written in batches: searches, matches, pictures read.

A transaction for each would cost more than some of them do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg
import structlog

from oneton.domain.audit import SEARCHES, Act
from oneton.domain.errors import BadTextError, StoreDownError, UnavailableError
from oneton.domain.model import TenantId
from oneton.records.audit import INSERT_MANY, EventRow, event_row
from oneton.records.database import Database

log = structlog.get_logger()

_OF_DATA = ("22", "23")
"""Classes of SQLSTATE: data that cannot be kept, and rows that a constraint forbids."""

FLUSH_S = 0.2
"""A crash loses the events of so long at most, while Postgres answers."""
BATCH = 1000
MOST = 20_000
"""Events kept while Postgres does not answer; past it, what needs one fails."""
LAST_S = 5.0
"""How long the end of the process waits for Postgres to take the rest."""


class Trail:
    """Events of all tenants in this process, until Postgres has them.

    They are written in the order of their notes, at least once: a batch whose acknowledgement was
    lost with the connection may be there twice.

    Args:
        searches: whether searches and matches are noted at all.
    """

    def __init__(self, database: Database, *, searches: bool = True, most: int = MOST) -> None:
        self._database = database
        self._searches = searches
        self._most = most
        self._waiting: deque[EventRow] = deque()
        self._asked = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Events that Postgres does not have yet."""
        return len(self._waiting)

    def note(self, tenant: TenantId, act: Act) -> None:
        """Note what whoever acts did; it is written soon.

        Called before the answer goes out, so that nothing is answered that is not noted.

        Raises:
            UnavailableError: too many events wait for Postgres.
        """
        if act.action in SEARCHES and not self._searches:
            return
        if len(self._waiting) >= self._most:
            raise UnavailableError("the audit trail cannot be written", retry_after_s=5)
        self._waiting.append(event_row(tenant, datetime.now(UTC), act))
        if len(self._waiting) >= BATCH:
            self._asked.set()

    def start(self) -> None:
        """Write again and again, until closed."""
        self._task = asyncio.create_task(self._run(), name="audit trail")

    async def close(self) -> None:
        """Stop, and write what is left; what Postgres does not take in time is lost, and said."""
        try:
            async with asyncio.timeout(LAST_S):
                # What is being written is not interrupted, or it would be written again.
                async with self._writing:
                    await self._stop()
                await self.flush()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process ends
            log.error("audit events are lost", events=len(self._waiting), why=str(error))
        finally:
            await self._stop()

    async def flush(self) -> None:
        """Write all that was noted before the call.

        Raises:
            StoreDownError: Postgres does not answer; nothing is forgotten, nor by any other error.
        """
        async with self._writing:
            left = len(self._waiting)
            while left > 0:
                batch = [self._waiting[at] for at in range(min(left, BATCH))]
                await self._write(batch)
                for _ in batch:
                    self._waiting.popleft()
                left -= len(batch)

    async def _write(self, batch: Sequence[EventRow]) -> None:
        try:
            await self._database.fetch(INSERT_MANY, *map(list, zip(*batch, strict=True)))
        except Exception as error:
            if not _is_of_an_event(error):
                raise
            # One that Postgres does not take must not keep the others out.
            if len(batch) == 1:
                log.exception("an audit event was refused", action=batch[0][5])
                return
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._asked.wait()
            self._asked.clear()
            try:
                await self.flush()
            except StoreDownError as error:
                log.warning("audit events wait", events=len(self._waiting), why=str(error))
                await asyncio.sleep(FLUSH_S)
            except Exception:
                log.exception("audit events wait", events=len(self._waiting))
                await asyncio.sleep(FLUSH_S)


def _is_of_an_event(error: Exception) -> bool:
    """Whether what was written is at fault, and would be every time."""
    state = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    return isinstance(error, BadTextError) or (state or "").startswith(_OF_DATA)
