"""Erase what is due: saved calls and pictures that were kept for long enough."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import structlog

from oneton.images import ImageStore
from oneton.records.retention import Retention
from oneton.verbs.keep_picture import delete_objects

log = structlog.get_logger()

BATCH = 500
"""Of each kind in one round, over all tenants."""


class ErasedCounts(msgspec.Struct):
    """What one call erased.

    Attributes:
        pictures: with those of the requests.
        answers: to idempotency keys that nobody asks for again.
    """

    pictures: int = 0
    requests: int = 0
    answers: int = 0


@dataclass(frozen=True)
class EraseDue:
    """Rows go before objects: what a crash leaves behind no row names, and the sweep takes it."""

    retention: Retention
    images: ImageStore

    async def __call__(self) -> ErasedCounts:
        """Erase all that is due now, a batch at a time.

        Raises:
            StoreDownError: Postgres does not answer.
        """
        counts = ErasedCounts(answers=await self.retention.forget_answers())
        while due := await self.retention.due(BATCH):
            gone = 0
            for tenant, each in due.items():
                erased = await self.retention.erase(tenant, each)
                await delete_objects(self.images, erased.pictures)
                counts.pictures += len(erased.pictures)
                counts.requests += len(erased.requests)
                gone += len(erased.pictures) + len(erased.requests)
            if not gone:
                # What was due is kept for longer, or another process erased it.
                break
        if counts.pictures or counts.requests:
            log.info("erased what was due", pictures=counts.pictures, requests=counts.requests)
        return counts
