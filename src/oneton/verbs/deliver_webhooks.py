"""Deliver webhooks: take what is due from the outbox, sign it, send it, try again in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import structlog

from oneton.domain.errors import OnetonError
from oneton.domain.model import TenantId
from oneton.domain.watching import NO_WATCH, Watch
from oneton.domain.webhooks import Delivery
from oneton.records.outbox import Outbox
from oneton.sending.policies import POLICIES, is_success
from oneton.sending.signatures import make_message

if TYPE_CHECKING:
    from oneton.records.jobs import Jobs
    from oneton.sending.http import Answer, Sender

log = structlog.get_logger()

KIND = "webhook"
LEASE_SPARE_S = 5.0
"""For what an attempt takes beyond its timeout, which is Postgres."""
AHEAD = 64
"""In the queue at once; a delivery that has just come due waits behind so many at most."""
TICK_S = 0.5
LINGER_S = 10.0


class Due(msgspec.Struct, frozen=True):
    """A job in the queue."""

    tenant_id: TenantId
    delivery_id: UUID


@dataclass(frozen=True)
class DeliverWebhooks:
    """At least once: whoever dies between sending and noting it leaves a second delivery.

    Attributes:
        sign_veriflow: VeriFlow's deliveries get a signature.
        delay_scale: what is waited between attempts, in shares of the dialect's schedule.
        clock: Unix time.
    """

    outbox: Outbox
    sender: Sender
    sign_veriflow: bool = False
    delay_scale: float = 1.0
    clock: Callable[[], float] = time.time
    watch: Watch = field(default=NO_WATCH, kw_only=True)

    async def __call__(self, payload: bytes) -> None:
        """Do a job of the queue."""
        due = msgspec.json.decode(payload, type=Due)
        await self.attempt(due.tenant_id, due.delivery_id)

    async def attempt(self, tenant: TenantId, delivery_id: UUID) -> bool:
        """Make one attempt; False when it is not due, or another process is at it."""
        longest_s = max(each.timeout_s for each in POLICIES.values())
        lease = timedelta(seconds=longest_s + LEASE_SPARE_S)
        delivery = await self.outbox.claim(tenant, delivery_id, lease)
        if delivery is None:
            return False
        answer = await self._send(delivery)
        delivered = is_success(answer.status)
        delay_s = None
        if not delivered and not answer.refused:
            delay_s = POLICIES[delivery.dialect].delay_s(delivery.attempts, answer.status)
        again_in = None if delay_s is None else timedelta(seconds=delay_s * self.delay_scale)
        await self.outbox.note(
            delivery,
            status=answer.status,
            error=None if delivered else answer.error or f"answered {answer.status}",
            delivered=delivered,
            again_in=again_in,
        )
        outcome = "delivered" if delivered else "dropped" if again_in is None else "retried"
        self.watch.count("webhooks", delivery.dialect, outcome)
        log.info(
            "webhook delivered" if delivered else "webhook failed",
            delivery=str(delivery_id),
            dialect=delivery.dialect,
            attempt=delivery.attempts,
            status=answer.status,
            error=answer.error,
            again_in_s=None if again_in is None else again_in.total_seconds(),
        )
        return True

    async def _send(self, delivery: Delivery) -> Answer:
        from oneton.sending.http import Answer  # noqa: PLC0415 - imports an HTTP client

        if not delivery.enabled and not delivery.test:
            return Answer(error="the endpoint is switched off", refused=True)
        try:
            message = make_message(delivery, self.clock(), sign_veriflow=self.sign_veriflow)
        except (ValueError, KeyError) as error:
            return Answer(error=f"the body cannot be written: {error!r}"[:300], refused=True)
        return await self.sender.post(
            delivery.url,
            message.body,
            message.headers,
            timeout_s=POLICIES[delivery.dialect].timeout_s,
        )

    async def settle(self, tenant: TenantId, delivery_id: UUID) -> Delivery:
        """Make an attempt now, or wait for whoever is at it; returns what came of it."""
        while True:
            await self.attempt(tenant, delivery_id)
            now = await self.outbox.read(tenant, delivery_id)
            if now.delivered_at or now.dropped_at or now.last_error:
                return msgspec.structs.replace(now, secret="")
            await asyncio.sleep(TICK_S)


@dataclass(frozen=True)
class DriveWebhooks:
    """Hands due deliveries to the queue, and does them beside all others who work on it."""

    outbox: Outbox
    jobs: Jobs
    deliver: DeliverWebhooks
    at_once: int

    async def has_work(self) -> bool:
        """Whether any delivery's time has come."""
        return bool(await self.outbox.due(1))

    async def run(self) -> None:
        """Deliver until nothing has been due for a while."""
        draining = asyncio.create_task(self.jobs.work({KIND: self.deliver}, at_once=self.at_once))
        driving = asyncio.create_task(self._hand_out())
        try:
            done, _ = await asyncio.wait([draining, driving], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (draining, driving):
                task.cancel()
            await asyncio.gather(draining, driving, return_exceptions=True)

    async def _hand_out(self) -> None:
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < LINGER_S:
            try:
                due = await self.outbox.due(AHEAD)
                await self._put(due)
                if due or await self.jobs.waiting(KIND, ""):
                    idle_since = time.monotonic()
            except OnetonError as error:
                log.warning("looking for due webhooks failed", error=str(error))
            await asyncio.sleep(TICK_S)

    async def _put(self, due: list[tuple[TenantId, UUID]]) -> None:
        jobs = [Due(tenant_id, delivery_id) for tenant_id, delivery_id in due]
        await self.jobs.put(
            KIND,
            [msgspec.json.encode(each) for each in jobs],
            [f"{KIND}:{each.delivery_id}" for each in jobs],
        )
