"""Limit rate: so many calls of a key a minute, on all replicas together."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.records.rates import Rates
from oneton.verbs.authenticate import Principal


@dataclass(frozen=True)
class LimitRate:
    """Counts in Postgres, for the limit is of all replicas."""

    rates: Rates

    async def __call__(self, principal: Principal, kind: str, limit: int) -> None:
        """Count a call of a kind.

        Raises:
            RateLimitedError: it is one too many.
        """
        await self.rates.count(principal.key_id, kind, limit)
