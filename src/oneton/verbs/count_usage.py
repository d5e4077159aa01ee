"""Count usage: what each tenant calls, and no more calls a day than it may make."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import structlog

from oneton.domain.errors import DayQuotaError, OnetonError
from oneton.domain.model import Permission, TenantId
from oneton.records.usage import Tally, Usage
from oneton.verbs.authenticate import Principal

log = structlog.get_logger()

FLUSH_S = 2.0
"""Counts are so late in Postgres, and other replicas' calls in what is known of a day."""
OTHER = "other"
KINDS = {
    Permission.INSERT: "enroll",
    Permission.PURGE: "purge",
    Permission.ERASE: "erase",
    Permission.ADMIN: "admin",
    Permission.SEARCH: "search",
    Permission.MATCH: "match",
    Permission.READ: "read",
}
"""A call is of the first kind whose permission it demands."""


@dataclass
class _Today:
    """A tenant's calls on a day: what Postgres knew last, and what was counted since."""

    day: date
    calls: int
    asked: bool = True


@dataclass(frozen=True)
class CountUsage:
    """Counts in memory, and adds to Postgres every few seconds and at the end.

    A process that is killed loses what it counted since. Of a limit a day that leaves this much
    room: with several replicas, what the others answered in the last `FLUSH_S`.
    """

    usage: Usage
    clock: Callable[[], float] = time.time
    _counted: Counter[Tally] = field(default_factory=Counter)
    _today: dict[TenantId, _Today] = field(default_factory=dict)
    _adding: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(
        self, principal: Principal, dialect: str, permissions: Sequence[Permission]
    ) -> None:
        """Count a call that is let in, whatever comes of it.

        Raises:
            DayQuotaError: it is one too many; it is not counted.
        """
        now = datetime.fromtimestamp(self.clock(), UTC)
        tenant, limit = principal.tenant_id, principal.most_requests_a_day
        if limit is not None:
            today = await self._day_of(tenant, now.date())
            today.asked = True
            if today.calls >= limit:
                raise DayQuotaError(limit, _until_midnight_s(now))
            today.calls += 1
        self._counted[Tally(tenant, now.date(), dialect, kind_of(permissions))] += 1

    async def run(self) -> None:
        """Add what was counted again and again, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except OnetonError as error:
                log.warning("usage is added later", error=str(error))
            except Exception:
                # Whatever it is: limits a day rest on this for as long as the process lives.
                log.exception("usage is added later")

    async def flush(self) -> None:
        """Add what was counted so far, and read how many calls limited tenants made in all.

        Raises:
            StoreDownError: nothing is lost; it is added the next time.
        """
        async with self._adding:
            counts = Counter(self._counted)
            self._counted.clear()
            if counts:
                try:
                    await self.usage.add(counts)
                except BaseException:
                    self._counted.update(counts)
                    raise
            await self._read_today()

    async def _read_today(self) -> None:
        day = datetime.fromtimestamp(self.clock(), UTC).date()
        for tenant in [each for each, known in self._today.items() if known.day != day]:
            del self._today[tenant]
        asked = [tenant for tenant, known in self._today.items() if known.asked]
        if not asked:
            return
        found = await self.usage.calls_on(asked, day)
        for tenant, calls in found.items():
            self._today[tenant] = _Today(day, calls + self._waiting(tenant, day), asked=False)

    async def _day_of(self, tenant: TenantId, day: date) -> _Today:
        known = self._today.get(tenant)
        if known is not None and known.day == day:
            return known
        # Under the lock, or what is just being added would be counted twice, or not at all.
        async with self._adding:
            known = self._today.get(tenant)
            if known is None or known.day != day:
                calls = (await self.usage.calls_on([tenant], day))[tenant]
                known = _Today(day, calls + self._waiting(tenant, day))
                self._today[tenant] = known
        return known

    def _waiting(self, tenant: TenantId, day: date) -> int:
        """Calls that were counted and are not added yet."""
        return sum(
            calls
            for each, calls in self._counted.items()
            if each.tenant_id == tenant and each.day == day
        )


def kind_of(permissions: Sequence[Permission]) -> str:
    """The kind of a call that demands these permissions."""
    return next((kind for each, kind in KINDS.items() if each in permissions), OTHER)


def _until_midnight_s(now: datetime) -> int:
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(1, int((midnight - now).total_seconds()) + 1)
