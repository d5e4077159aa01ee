"""A Didit customer's webhook, over HTTP: the call is answered, the server dies, the event comes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import httpx
import pytest

from tests.fixtures.receivers import Received, Receiver, check_didit
from tests.fixtures.servers import MakePlace, Place, Server, new_tenant, run_server

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(240)]

# Section 10 of the contract.
ENVELOPE = {
    "event_id",
    "webhook_type",
    "timestamp",
    "created_at",
    "application_id",
    "session_id",
    "status",
    "workflow_id",
    "workflow_version",
    "vendor_data",
    "metadata",
    "decision",
}


_TIME_PASSES = """
update outbox set next_at = now()
where next_at > now() + interval '30 s' and last_status is not null"""


class Customer:
    """Calls one server after the other."""

    def __init__(self, secret: str) -> None:
        self.headers = {"x-api-key": secret}

    def add_destination(self, server: Server, url: str) -> str:
        body = {
            "label": "orders",
            "url": url,
            "webhook_version": "v3",
            "subscribed_events": ["status.updated"],
        }
        reply = httpx.post(
            f"{server.url}/v3/webhook/destinations/", json=body, headers=self.headers
        )
        assert reply.status_code == 201, reply.text
        return str(reply.json()["secret_shared_key"])

    def match(self, server: Server, user: bytes, ref: bytes) -> dict[str, Any]:
        files = {"user_image": ("u.jpg", user), "ref_image": ("r.jpg", ref)}
        reply = httpx.post(
            f"{server.url}/v3/face-match/",
            files=files,
            data={"vendor_data": "José", "metadata": '{"order":17.0}'},
            headers=self.headers,
            timeout=30,
        )
        assert reply.status_code == 200, reply.text
        answered: dict[str, Any] = reply.json()
        return answered

    def decision(self, server: Server, session_id: str) -> dict[str, Any]:
        reply = httpx.get(f"{server.url}/v3/session/{session_id}/decision/", headers=self.headers)
        assert reply.status_code == 200, reply.text
        shown: dict[str, Any] = reply.json()
        return shown


def move_clock(place: Place) -> None:
    """Let the time of the next attempt come."""
    asyncio.run(_move_clock(place))


async def _move_clock(place: Place) -> None:
    assert place.dsns is not None
    connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
    try:
        async with asyncio.timeout(20):
            # The attempt is noted by another process.
            while await connection.execute(_TIME_PASSES) == "UPDATE 0":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


def check_event(call: Received, secret: str, answered: dict[str, Any]) -> None:
    check_didit(call, secret)
    event = call.event
    assert set(event) == ENVELOPE
    assert event["webhook_type"] == "status.updated"
    assert event["session_id"] == answered["request_id"]
    assert event["status"] == answered["face_match"]["status"] == "Approved"
    assert event["vendor_data"] == "José"
    assert event["metadata"] == {"order": 17}
    assert b'"metadata":{"order":17}' in call.body
    assert (event["workflow_id"], event["workflow_version"]) == (None, None)


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    return make_place(ONETON_WEBHOOK_PRIVATE_ADDRESSES="true")


@pytest.mark.conforms("didit", "webhook", "a saved call's event outlives kill -9", "exact")
def test_an_event_whose_server_died_after_the_answer_is_delivered_by_the_next(
    place: Place, receiver: Receiver, people: dict[str, bytes]
) -> None:
    photo = next(iter(people.values()))
    with run_server(place) as server:
        customer = Customer(new_tenant(place)["client_secret"])
        secret = customer.add_destination(server, receiver.url)
        answered = customer.match(server, photo, photo)
        server.kill()
    with run_server(place) as server:
        receiver.wait_for(1, timeout_s=60)
        shown = customer.decision(server, answered["request_id"])
        time.sleep(5)
    # A server that is killed after it sent may send it again, and the id says so.
    assert len(set(receiver.event_ids)) == 1
    for call in receiver.calls:
        check_event(call, secret, answered)
        assert set(call.event["decision"]) == set(shown)
        assert call.event["decision"]["status"] == shown["status"]


@pytest.mark.conforms("didit", "webhook", "retried twice over HTTP, event_id kept", "exact")
def test_a_receiver_that_fails_twice_is_told_a_third_time_by_a_running_server(
    place: Place, receiver: Receiver, people: dict[str, bytes]
) -> None:
    photo = next(iter(people.values()))
    receiver.statuses = [500, 404]
    with run_server(place) as server:
        customer = Customer(new_tenant(place)["client_secret"])
        secret = customer.add_destination(server, receiver.url)
        answered = customer.match(server, photo, photo)
        for calls in (1, 2):
            receiver.wait_for(calls)
            move_clock(place)
        receiver.wait_for(3)
        time.sleep(3)
    assert len(receiver.calls) == 3
    assert len(set(receiver.event_ids)) == 1
    for call in receiver.calls:
        check_event(call, secret, answered)
