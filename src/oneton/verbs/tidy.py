"""Tidy: what has to be erased in time, every minute."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from oneton.domain.errors import OnetonError
from oneton.records.locks import Locks

log = structlog.get_logger()


@dataclass(frozen=True)
class Tidy:
    """One process at a time does it, of all that would."""

    locks: Locks
    chores: tuple[Callable[[], Awaitable[object]], ...]

    async def __call__(self) -> bool:
        """Do each chore once; False when another process is at it.

        One that fails is tried again the next time, and keeps no other from being done.

        Raises:
            StoreDownError: Postgres does not answer.
        """
        async with self.locks.held("tidy") as mine:
            if not mine:
                return False
            for chore in self.chores:
                try:
                    await chore()
                except OnetonError as error:
                    log.warning("tidying failed", what=type(chore).__name__, error=str(error))
                except Exception:
                    log.exception("tidying failed", what=type(chore).__name__)
        return True
