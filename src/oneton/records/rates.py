"""How often keys call, counted by all replicas together."""

from __future__ import annotations

from uuid import UUID

from oneton.domain.errors import RateLimitedError
from oneton.records.database import Database

WINDOW_S = 60


class Rates:
    """Calls of a key in a window of a minute that begins with its first.

    A window that begins in the future is of a clock that was set back, and is over.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, key_id: UUID, kind: str, limit: int) -> None:
        """Count a call.

        Args:
            kind: calls of each are counted apart.

        Raises:
            RateLimitedError: it is one too many.
        """
        rows = await self._database.fetch(_COUNT, key_id, kind, WINDOW_S)
        if rows[0]["calls"] > limit:
            raise RateLimitedError(limit, max(1, int(rows[0]["left_s"])))


_COUNT = """
insert into rate_window as w (key_id, kind, started_at, calls) values ($1, $2, now(), 1)
on conflict (key_id, kind) do update set
  started_at = case when w.started_at > now() - make_interval(secs => $3)
    and w.started_at <= now() then w.started_at else now() end,
  calls = case when w.started_at > now() - make_interval(secs => $3)
    and w.started_at <= now() then w.calls + 1 else 1 end
returning calls, ceil(extract(epoch from started_at + make_interval(secs => $3) - now())) as left_s
"""
