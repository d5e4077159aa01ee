"""The outbox: written with the change, told to whom it concerns, kept apart by tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import asyncpg
import msgspec
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.errors import AddressError, ConflictError, NotFoundError
from oneton.domain.requests import NewEvent, NewRequest, RequestId, RequestState
from oneton.domain.webhooks import Delivery, WebhookEndpoint
from oneton.records.outbox import put_events
from oneton.records.requests import Requests
from oneton.sending.address import Addresses
from oneton.verbs.forget_deliveries import ForgetDeliveries
from oneton.verbs.manage_webhooks import ManageWebhooks
from tests.fixtures.desks import BODIES, Desk
from tests.fixtures.receivers import MakeReceiver, Receiver, check_didit

pytestmark = pytest.mark.anyio

CONFORMS = pytest.mark.conforms


async def test_an_event_is_there_when_its_change_is_and_only_then(
    desk: Desk, receiver: Receiver
) -> None:
    await desk.add(receiver.url)
    event = NewEvent("didit", "status.updated", msgspec.Raw(BODIES["didit"]))
    with suppress(ZeroDivisionError):
        async with desk.database.transaction(desk.tenant) as connection:
            await put_events(connection, desk.tenant, [event])
            raise ZeroDivisionError
    assert await desk.outbox.list(desk.tenant) == []
    requests = Requests(desk.database)
    new = NewRequest(RequestId(uuid7()), "didit", "face_match", RequestState.APPROVED)
    await requests.insert(desk.tenant, new, events=[event])
    with pytest.raises(ConflictError):
        await requests.insert(desk.tenant, new, events=[event])
    (waiting,) = await desk.outbox.list(desk.tenant)
    assert (waiting.attempts, waiting.delivered_at) == (0, None)
    await desk.deliver_all(1)
    check_didit(receiver.calls[0], waiting.secret)


async def test_each_endpoint_is_told_what_it_asked_for(
    desk: Desk, make_receiver: MakeReceiver
) -> None:
    receivers = [make_receiver() for _ in range(3)]
    urls = [each.url for each in receivers]
    await desk.manage.add(desk.tenant, "didit", urls[0])
    await desk.manage.add(desk.tenant, "didit", urls[1], events=["status.updated"])
    off, _ = await desk.manage.add(desk.tenant, "didit", urls[2])
    await desk.manage.change(desk.tenant, off.endpoint_id, enabled=False)
    await desk.manage.add(desk.tenant, "native", urls[2])
    await desk.manage.add(desk.other, "didit", urls[2])
    assert len(await desk.tell()) == 2
    assert len(await desk.tell(event_type="user.updated")) == 1
    await desk.deliver_all(2)
    assert [len(each.calls) for each in receivers] == [2, 1, 0]
    assert receivers[1].event_ids[0] in receivers[0].event_ids


async def test_one_of_many_who_come_for_a_delivery_gets_it(desk: Desk, receiver: Receiver) -> None:
    await desk.add(receiver.url)
    (delivery_id,) = await desk.tell()
    made = await asyncio.gather(
        *(desk.deliver.attempt(desk.tenant, delivery_id) for _ in range(12))
    )
    assert sorted(made) == [False] * 11 + [True]
    assert len(receiver.calls) == 1


async def test_a_claim_that_came_to_nothing_is_free_again_after_its_lease(
    desk: Desk, receiver: Receiver
) -> None:
    await desk.add(receiver.url)
    (delivery_id,) = await desk.tell()
    lost = await desk.outbox.claim(desk.tenant, delivery_id, timedelta(milliseconds=50))
    assert lost is not None
    await asyncio.sleep(0.1)
    assert await desk.deliver.attempt(desk.tenant, delivery_id)
    late = {"status": 500, "error": "late", "delivered": False, "again_in": None}
    await desk.outbox.note(lost, **late)  # type: ignore[arg-type]
    made = await desk.manage.delivery(desk.tenant, delivery_id)
    assert (made.attempts, made.last_status) == (2, 200)
    assert made.delivered_at is not None


async def test_endpoints_take_turns(desk: Desk) -> None:
    urls = [f"http://127.0.0.1:9/{name}" for name in "ab"]
    await desk.add(urls[0])
    for _ in range(20):
        await desk.tell()
    await desk.add(urls[1])
    await desk.tell()
    due = [delivery_id for _, delivery_id in await desk.outbox.due(3)]
    to = [(await desk.outbox.read(desk.tenant, each)).url for each in due]
    assert sorted(to[:2]) == urls
    assert to[2] == urls[0]


async def test_a_secret_is_given_away_once(desk: Desk, receiver: Receiver) -> None:
    endpoint, secret = await desk.manage.add(desk.tenant, "didit", receiver.url, "mine")
    assert secret.startswith("whsec_")
    assert len(secret) > 40
    await desk.tell()
    changed = await desk.manage.change(desk.tenant, endpoint.endpoint_id, label="yours")
    shown: list[WebhookEndpoint | Delivery] = [
        endpoint,
        changed,
        await desk.manage.read(desk.tenant, endpoint.endpoint_id),
        *await desk.manage.list(desk.tenant),
        *await desk.manage.deliveries(desk.tenant),
    ]
    assert [each.secret for each in shown] == [""] * 5
    assert changed.label == "yours"
    await desk.deliver_all(1)
    check_didit(receiver.calls[0], secret)
    _, another = await desk.manage.add(desk.tenant, "native", receiver.url)
    assert another != secret


async def test_an_address_is_checked_when_it_is_added_and_changed(desk: Desk) -> None:
    strict = ManageWebhooks(desk.manage.endpoints, desk.outbox, Addresses())
    for url in ("https://127.0.0.1/h", "http://8.8.8.8/h", "https://localhost/h", "no"):
        with pytest.raises(AddressError):
            await strict.add(desk.tenant, "didit", url)
    made, _ = await strict.add(desk.tenant, "didit", "https://8.8.8.8/h")
    with pytest.raises(AddressError):
        await strict.change(desk.tenant, made.endpoint_id, url="https://10.0.0.1/h")
    assert await strict.list(desk.tenant) == [made]


@CONFORMS("didit", "webhook", "a destination's URL is unique per application", "exact")
async def test_an_address_is_added_once_for_each_dialect(desk: Desk, receiver: Receiver) -> None:
    for dialect in ("didit", "native"):
        await desk.add(receiver.url, dialect)
        with pytest.raises(ConflictError, match="of this address"):
            await desk.add(receiver.url, dialect)
    second, _ = await desk.add(receiver.url + "2")
    with pytest.raises(ConflictError):
        await desk.manage.change(desk.tenant, second, url=receiver.url)
    await desk.manage.add(desk.other, "didit", receiver.url)


@CONFORMS("veriflow", "webhook", "one URL in the organization's settings", "exact")
async def test_veriflow_has_one_address_a_tenant(desk: Desk, receiver: Receiver) -> None:
    endpoint_id, _ = await desk.add(receiver.url, "veriflow")
    with pytest.raises(ConflictError, match="one only"):
        await desk.add(receiver.url + "2", "veriflow")
    await desk.manage.remove(desk.tenant, endpoint_id)
    await desk.add(receiver.url + "2", "veriflow")


async def test_removing_an_endpoint_removes_what_it_was_to_be_told(
    desk: Desk, receiver: Receiver
) -> None:
    endpoint_id, _ = await desk.add(receiver.url)
    (delivery_id,) = await desk.tell()
    await desk.manage.remove(desk.tenant, endpoint_id)
    assert await desk.outbox.due(10) == []
    assert not await desk.deliver.attempt(desk.tenant, delivery_id)
    with pytest.raises(NotFoundError):
        await desk.manage.remove(desk.tenant, endpoint_id)


async def test_what_is_told_of_a_request_goes_with_it(desk: Desk, receiver: Receiver) -> None:
    await desk.add(receiver.url)
    requests, request_id = Requests(desk.database), RequestId(uuid7())
    event = NewEvent("didit", "status.updated", msgspec.Raw(BODIES["didit"]))
    new = NewRequest(request_id, "didit", "face_match", RequestState.APPROVED)
    await requests.insert(desk.tenant, new, events=[event])
    state = RequestState.DECLINED
    await requests.review(desk.tenant, request_id, state, actor="a reviewer", events=[event])
    await desk.tell()
    assert len(await desk.outbox.list(desk.tenant)) == 3
    await requests.remove(desk.tenant, request_id)
    assert len(await desk.outbox.list(desk.tenant)) == 1


async def test_only_what_is_over_and_old_is_forgotten(desk: Desk, receiver: Receiver) -> None:
    await desk.add(receiver.url)
    (told,), (told_long_ago,) = await desk.tell(), await desk.tell()
    await desk.deliver_all(1)
    (waits_long,) = await desk.tell()
    async with desk.database.transaction(desk.tenant) as connection:
        await connection.execute(
            "update outbox set created_at = now() - interval '8 days' where delivery_id = any ($1)",
            [told_long_ago, waits_long],
        )
    assert await ForgetDeliveries(desk.outbox)() == 1
    left = {each.delivery_id for each in await desk.outbox.list(desk.tenant)}
    assert left == {told, waits_long}


async def test_another_tenants_endpoints_and_deliveries_are_not_there(
    desk: Desk, receiver: Receiver
) -> None:
    endpoint_id, _ = await desk.add(receiver.url)
    (delivery_id,) = await desk.tell()
    manage, other = desk.manage, desk.other
    assert (await manage.list(other), await manage.deliveries(other)) == ([], [])
    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: manage.read(other, endpoint_id),
        lambda: manage.change(other, endpoint_id, label="stolen"),
        lambda: manage.remove(other, endpoint_id),
        lambda: manage.test(other, endpoint_id),
        lambda: manage.delivery(other, delivery_id),
        lambda: manage.redeliver(other, delivery_id),
    ]
    for each in asked:
        with pytest.raises(NotFoundError):
            await each()
    assert not await desk.deliver.attempt(other, delivery_id)
    assert await desk.database.fetch("select * from outbox") == []
    assert await desk.database.fetch("select * from webhook_endpoint") == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with desk.database.transaction(other) as connection:
            await connection.execute(
                """insert into outbox (delivery_id, tenant_id, endpoint_id, event_id, event_type,
                     body) values ($1, $2, $3, $1, 'x', '{}')""",
                uuid7(),
                desk.tenant,
                endpoint_id,
            )
