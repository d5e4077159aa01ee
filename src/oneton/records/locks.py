"""Locks that processes hold in Postgres; one whose holder dies is free at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from oneton.records.database import Database, store_errors

BACKUP = 7_316_010
"""Backups under way hold it together; whoever changes keys holds it alone."""
CHANGING_KEYS = 7_316_011
"""Before that one, by whoever changes keys, so that only backups are ever in the way."""
_KEYS = {
    "reindex": 7_316_001,
    "worker": 7_316_002,
    "jobs": 7_316_003,
    "tidy": 7_316_004,
    "encryption": 7_316_009,
}


class Locks:
    """Named locks, held for as long as a block runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def held(self, name: str, *, shared: bool = False) -> AsyncIterator[bool]:
        """Take a lock if it is free; yields whether it was.

        Args:
            shared: any number of processes hold it together.
        """
        how = "_shared" if shared else ""
        with store_errors():
            connection = await asyncpg.connect(
                self._database.dsn, timeout=10, server_settings=self._database.server_settings
            )
        try:
            with store_errors():
                mine = await connection.fetchval(
                    f"select pg_try_advisory_lock{how}($1)",
                    _KEYS[name],
                )
            yield bool(mine)
        finally:
            await connection.close(timeout=5)

    async def is_taken(self, name: str) -> bool:
        """Whether any living process holds a lock."""
        rows = await self._database.fetch(
            """select 1 from pg_locks where locktype = 'advisory' and objid = $1 and granted
               and database = (select oid from pg_database where datname = current_database())""",
            _KEYS[name],
        )
        return bool(rows)
