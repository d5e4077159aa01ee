"""Watch the clock: may the age of a thing be believed?"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

MOST_OFF_S = 60.0
"""Clocks of a well kept system are within a second of each other."""


class WatchClock:
    """Tells a clock that was set from one that ran.

    Args:
        postgres: what Postgres takes the time for, in seconds since 1970; None asks nobody.
        now, monotonic: the clocks of this process.
    """

    def __init__(
        self,
        postgres: Callable[[], Awaitable[float]] | None = None,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._postgres = postgres
        self._now, self._monotonic = now, monotonic
        self._offset_s = now() - monotonic()
        self._set_at_s: float | None = None

    async def doubt(self, within_s: float) -> str | None:
        """Why ages are not to be believed; None when they are.

        A machine that slept looks as if its clock had been set: what was under way then is not
        as old as it seems, either.

        Args:
            within_s: a clock that was set is doubted for so long.
        """
        offset_s = self._now() - self._monotonic()
        if abs(offset_s - self._offset_s) > MOST_OFF_S:
            self._set_at_s = self._monotonic()
        self._offset_s = offset_s
        if self._set_at_s is not None and self._monotonic() - self._set_at_s < within_s:
            return "the clock of this machine was set"
        if self._postgres is not None:
            off_s = self._now() - await self._postgres()
            if abs(off_s) > MOST_OFF_S:
                return f"the clock of this machine and that of Postgres are {off_s:.0f} s apart"
        return None
