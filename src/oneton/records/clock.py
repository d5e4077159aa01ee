"""The time that Postgres has."""

from __future__ import annotations

from oneton.records.database import Database


class PostgresClock:
    """What rows are stamped with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self) -> float:
        """Seconds since 1970.

        Raises:
            StoreDownError: Postgres does not answer.
        """
        rows = await self._database.fetch("select extract(epoch from clock_timestamp()) as now")
        return float(rows[0]["now"])
