"""Deliveries: at least once, by whoever comes first, as often as each dialect says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from oneton.domain.webhooks import WebhookDialect
from oneton.records.jobs import Jobs
from oneton.records.locks import Locks
from oneton.sending.address import Addresses
from oneton.sending.http import Sender
from oneton.verbs.deliver_webhooks import DeliverWebhooks, DriveWebhooks
from oneton.working import Worker
from tests.fixtures.desks import Desk
from tests.fixtures.receivers import Receiver, check_didit, check_native

pytestmark = pytest.mark.anyio

CONFORMS = pytest.mark.conforms


@CONFORMS("didit", "webhook", "a third time after two failures, event_id kept", "exact")
async def test_a_receiver_that_fails_twice_gets_the_event_a_third_time(
    desk: Desk, receiver: Receiver
) -> None:
    clock = iter([1_800_000_000.0, 1_800_000_060.0, 1_800_000_300.0])
    desk = msgspec.structs.replace(desk, deliver=_with_clock(desk, lambda: next(clock)))
    _, secret = await desk.add(receiver.url)
    receiver.statuses = [500, 503]
    (delivery_id,) = await desk.tell()
    await desk.deliver_all()
    assert len(receiver.calls) == 3
    assert len(set(receiver.event_ids)) == 1
    times = [call.event["timestamp"] for call in receiver.calls]
    assert times == [1_800_000_000, 1_800_000_060, 1_800_000_300]
    for call, now_s in zip(receiver.calls, times, strict=True):
        check_didit(call, secret, now_s)
    made = await desk.manage.delivery(desk.tenant, delivery_id)
    assert (made.attempts, made.last_status, made.last_error) == (3, 200, None)
    assert made.delivered_at is not None
    assert (made.next_at, made.dropped_at) == (None, None)


def _with_clock(desk: Desk, clock: Callable[[], float]) -> DeliverWebhooks:
    made = desk.deliver
    return DeliverWebhooks(made.outbox, made.sender, delay_scale=made.delay_scale, clock=clock)


@pytest.mark.parametrize(
    ("dialect", "statuses", "attempts"),
    [
        pytest.param(*row, marks=CONFORMS(row[0], "webhook", said, how))
        for row, said, how in (
            (("didit", [500], 3), "5xx: 2 retries, then dropped", "exact"),
            (("didit", [404], 3), "404: 2 retries, then dropped", "exact"),
            (("didit", [400], 1), "other 4xx: not retried", "exact"),
            (("didit", [302], 1), "3xx: not retried, not followed", "exact"),
            (("didit", [500, 410], 2), "a retry that ends in 4xx is the last", "exact"),
            (("didit", [204], 1), "any 2xx is success", "exact"),
            (("veriflow", [400], 4), "any failure: 3 retries", "chosen"),
            (("veriflow", [302], 4), "3xx is a failure: 3 retries", "chosen"),
            (("veriflow", [201], 1), "all 2xx are success", "chosen"),
            (("native", [400], 6), "any failure: 5 retries", "chosen"),
        )
    ],
)
async def test_each_dialect_gives_up_after_its_own_number_of_attempts(
    desk: Desk, receiver: Receiver, dialect: WebhookDialect, statuses: list[int], attempts: int
) -> None:
    await desk.add(receiver.url, dialect)
    receiver.statuses = [*statuses[:-1], *statuses[-1:] * 20]
    (delivery_id,) = await desk.tell(dialect)
    await desk.deliver_all(12)
    made = await desk.manage.delivery(desk.tenant, delivery_id)
    assert (len(receiver.calls), made.attempts, made.next_at) == (attempts, attempts, None)
    assert (made.delivered_at is None) is (statuses[-1] >= 300)
    assert (made.dropped_at is None) is (statuses[-1] < 300)
    assert made.last_status == statuses[-1]


@CONFORMS("didit", "webhook", "retries after about 1 and 4 minutes", "exact")
async def test_the_next_attempt_is_due_when_the_schedule_says(
    desk: Desk, receiver: Receiver
) -> None:
    deliver = DeliverWebhooks(desk.outbox, desk.deliver.sender)
    await desk.add(receiver.url)
    receiver.statuses = [500, 500, 500]
    (delivery_id,) = await desk.tell()
    for minutes in (1, 4):
        assert await deliver.attempt(desk.tenant, delivery_id)
        assert not await deliver.attempt(desk.tenant, delivery_id)
        made = await desk.manage.delivery(desk.tenant, delivery_id)
        assert made.next_at is not None
        wait_s = (made.next_at - datetime.now(UTC)).total_seconds()
        assert abs(wait_s - 60 * minutes) < 10
        await _make_due(desk, delivery_id)


async def _make_due(desk: Desk, delivery_id: UUID) -> None:
    async with desk.database.transaction(desk.tenant) as connection:
        await connection.execute(
            "update outbox set next_at = now() where delivery_id = $1", delivery_id
        )


@CONFORMS("didit", "webhook", "a timeout is retried", "exact")
async def test_a_silent_receiver_is_asked_again(desk: Desk, receiver: Receiver) -> None:
    await desk.add(receiver.url)
    receiver.silent.set()
    (delivery_id,) = await desk.tell()
    began = time.monotonic()
    await desk.deliver.attempt(desk.tenant, delivery_id)
    assert 4.5 < time.monotonic() - began < 8
    receiver.silent.clear()
    await desk.deliver_all(3)
    made = await desk.manage.delivery(desk.tenant, delivery_id)
    assert (made.attempts, made.last_status) == (2, 200)
    assert len(set(receiver.event_ids)) == 1


async def test_a_delivery_to_an_address_that_is_refused_by_now_is_dropped(
    desk: Desk, receiver: Receiver
) -> None:
    await desk.add(receiver.url)
    (delivery_id,) = await desk.tell()
    strict = Sender(Addresses())
    await DeliverWebhooks(desk.outbox, strict).attempt(desk.tenant, delivery_id)
    await strict.close()
    made = await desk.manage.delivery(desk.tenant, delivery_id)
    assert made.dropped_at is not None
    assert made.last_error == "the URL must begin with https://"
    assert receiver.calls == []


async def test_an_endpoint_that_is_switched_off_is_told_nothing_but_tests(
    desk: Desk, receiver: Receiver
) -> None:
    endpoint_id, _ = await desk.add(receiver.url)
    (delivery_id,) = await desk.tell()
    await desk.manage.change(desk.tenant, endpoint_id, enabled=False)
    await desk.deliver_all(1)
    made = await desk.manage.delivery(desk.tenant, delivery_id)
    assert (made.last_error, receiver.calls) == ("the endpoint is switched off", [])
    await desk.manage.test(desk.tenant, endpoint_id)
    await desk.deliver_all(1)
    assert receiver.calls[0].headers["x-didit-test-webhook"] == "true"


@pytest.mark.parametrize("dialect", ["didit", "veriflow", "native"])
async def test_a_test_event_passes_the_receivers_checks(
    desk: Desk, receiver: Receiver, dialect: WebhookDialect
) -> None:
    endpoint_id, secret = await desk.add(receiver.url, dialect)
    made = await desk.deliver.settle(desk.tenant, await desk.manage.test(desk.tenant, endpoint_id))
    assert (made.test, made.last_status, made.secret) == (True, 200, "")
    (call,) = receiver.calls
    if dialect == "didit":
        check_didit(call, secret)
    elif dialect == "native":
        check_native(call, secret)
    else:
        assert set(call.event) == {"id", "status"}


async def test_redelivering_has_the_same_event_id_and_all_attempts_anew(
    desk: Desk, receiver: Receiver
) -> None:
    await desk.add(receiver.url)
    receiver.statuses = [400, 500]
    (delivery_id,) = await desk.tell()
    await desk.deliver_all(3)
    assert (await desk.manage.delivery(desk.tenant, delivery_id)).dropped_at is not None
    await desk.manage.redeliver(desk.tenant, delivery_id)
    made = await desk.deliver.settle(desk.tenant, delivery_id)
    assert (made.attempts, made.last_status) == (1, 500)
    await desk.deliver_all(3)
    assert (await desk.manage.delivery(desk.tenant, delivery_id)).delivered_at is not None
    assert len(receiver.calls) == 3
    assert len(set(receiver.event_ids)) == 1


async def _until_delivered(desk: Desk, *work: Coroutine[Any, Any, None]) -> None:
    working = [asyncio.create_task(each) for each in work]
    async with asyncio.timeout(25):
        # Postgres is asked, for it is the receiver and the queue that are waited for.
        while any(each.delivered_at is None for each in await desk.outbox.list(desk.tenant)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)


class BusyChore:
    """Never done, as a long reindex."""

    async def has_work(self) -> bool:
        return True

    async def run(self) -> None:
        await asyncio.sleep(3600)


async def test_webhooks_wait_for_no_other_chore_of_a_worker_or_of_its_stand_in(
    desk: Desk, receiver: Receiver
) -> None:
    jobs, locks = Jobs(desk.database), Locks(desk.database)
    drive = DriveWebhooks(desk.outbox, jobs, desk.deliver, at_once=8)
    worker = Worker(locks, (BusyChore(), drive))
    await desk.add(receiver.url)
    for work in (worker.run, worker.stand_in):
        await desk.tell()
        await _until_delivered(desk, work())
    assert len(receiver.calls) == 2


async def test_a_server_does_not_stand_in_where_there_is_a_worker(
    desk: Desk, receiver: Receiver
) -> None:
    drive = DriveWebhooks(desk.outbox, Jobs(desk.database), desk.deliver, at_once=8)
    locks = Locks(desk.database)
    await desk.add(receiver.url)
    await desk.tell()
    async with locks.held("worker", shared=True):
        standing_in = asyncio.create_task(Worker(locks, (drive,)).stand_in())
        await asyncio.sleep(1)
        assert receiver.calls == []
    await _until_delivered(desk)
    standing_in.cancel()
    await asyncio.gather(standing_in, return_exceptions=True)


async def test_two_workers_deliver_every_event_once(desk: Desk, receiver: Receiver) -> None:
    await desk.add(receiver.url)
    for _ in range(60):
        await desk.tell()
    drives = [
        DriveWebhooks(desk.outbox, Jobs(desk.database), desk.deliver, at_once=8) for _ in range(2)
    ]
    assert await drives[0].has_work()
    await _until_delivered(desk, *(each.run() for each in drives))
    assert (len(receiver.calls), len(set(receiver.event_ids))) == (60, 60)
    assert not await drives[0].has_work()
