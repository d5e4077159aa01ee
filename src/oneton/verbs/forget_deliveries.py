"""Forget deliveries: what webhooks were told is kept for a while, to be told again."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.records.outbox import Outbox

KEPT_DAYS = 7


@dataclass(frozen=True)
class ForgetDeliveries:
    """What waits to be told is kept as long as it waits."""

    outbox: Outbox

    async def __call__(self) -> int:
        """Delete what is over and a week old; returns how many deliveries."""
        return await self.outbox.forget(KEPT_DAYS)
