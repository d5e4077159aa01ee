"""Webhooks from processes of our own to a receiver, through the command line and kill -9."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.model import TenantId
from oneton.domain.requests import NewEvent, NewRequest, RequestId, RequestState
from oneton.parts import make_image_store
from oneton.records.database import Database
from oneton.records.tenants import Tenants
from oneton.settings import read_settings
from oneton.verbs.saved_requests import SavedRequests
from tests.fixtures.receivers import Receiver, check_didit, check_native
from tests.fixtures.servers import ONETON, MakePlace, Place, Server, new_tenant, run_server

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(180)]

LATENCY_S = 8.0
"""Two seconds until somebody looks, and what a loaded machine takes."""
EVENTS: dict[str, tuple[str, dict[str, object]]] = {
    "didit": ("status.updated", {"session_id": "s-1", "webhook_type": "status.updated"}),
    "veriflow": ("request.updated", {"id": "req_12345abcde"}),
    "native": ("request.updated", {"data": {}}),
}


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    """Receivers are on this machine."""
    return make_place(ONETON_WEBHOOK_PRIVATE_ADDRESSES="true")


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    with run_server(place) as running:
        yield running


@pytest.fixture
def tenant(place: Place, server: Server) -> str:
    """The name of a new tenant."""
    name = f"tenant-{uuid7().hex[-8:]}"
    new_tenant(place, name)
    return name


@contextmanager
def run_worker(place: Place) -> Iterator[None]:
    """Run `oneton worker` until the block ends."""
    with (place.folder / "worker.log").open("ab") as output:
        process = subprocess.Popen(
            [*ONETON, "worker"],
            cwd=place.folder,
            env=dict(place.environ),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def add(place: Place, tenant: str, url: str, dialect: str = "didit") -> tuple[str, str]:
    made = place.json("webhook", "add", url, "--tenant", tenant, "--dialect", dialect)
    return made["endpoint_id"], made["secret"]


def save_call(place: Place, tenant: str, dialect: str = "didit") -> None:
    """Save a call and its event, as a dialect does."""
    asyncio.run(_save_call(place, tenant, dialect))


async def _save_call(place: Place, name: str, dialect: str) -> None:
    assert place.dsns is not None
    database = await Database.connect(place.dsns.app, size=2)
    images = make_image_store(read_settings(place.environ))
    try:
        tenant: TenantId = (await Tenants(database).named(name)).tenant_id
        new = NewRequest(RequestId(uuid7()), dialect, "face_match", RequestState.APPROVED)
        event_type, body = EVENTS[dialect]
        raw = msgspec.Raw(msgspec.json.encode(body | {"status": "Approved"}))
        await SavedRequests(database, images).save(
            tenant, new, events=[NewEvent(dialect, event_type, raw)]
        )
    finally:
        await images.close()
        await database.close()


def deliveries(place: Place, tenant: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.json("webhook", "list", "--deliveries", "--tenant", tenant)
    return found


def wait_until_noted(place: Place, tenant: str) -> dict[str, Any]:
    """The tenant's one delivery, once it is over."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        (made,) = deliveries(place, tenant)
        if made["next_at"] is None:
            return made
    pytest.fail(f"still {made}")


@pytest.mark.conforms("didit", "webhook", "POST of a saved call, three signatures", "exact")
@pytest.mark.conforms("veriflow", "webhook", "POST of a request's new status", "exact")
@pytest.mark.conforms("native", "webhook", "POST of an event, Standard Webhooks", "chosen")
def test_a_server_that_is_alone_delivers_soon(
    place: Place, tenant: str, receiver: Receiver
) -> None:
    secrets = {name: add(place, tenant, f"{receiver.url}/{name}", name)[1] for name in EVENTS}
    began = time.monotonic()
    for dialect in EVENTS:
        save_call(place, tenant, dialect)
    calls = {each.path.split("/")[-1]: each for each in receiver.wait_for(3)}
    assert time.monotonic() - began < LATENCY_S + 3
    check_didit(calls["didit"], secrets["didit"])
    check_native(calls["native"], secrets["native"])
    assert calls["veriflow"].body == b'{"id":"req_12345abcde","status":"Approved"}'
    assert not any("signature" in name for name in calls["veriflow"].headers)


def test_the_command_line_adds_lists_tests_redelivers_and_removes(
    place: Place, tenant: str, receiver: Receiver
) -> None:
    of = ("--tenant", tenant)
    text = place.command("webhook", "add", receiver.url, "--dialect", "didit", *of).stdout
    secret = text.split("secret")[1].split()[0]
    assert secret.startswith("whsec_")
    (endpoint,) = place.json("webhook", "list", *of)
    shown = place.command("webhook", "list", *of)
    assert secret not in json.dumps(endpoint) + shown.stdout
    assert "secret" not in endpoint
    assert (
        place.command(
            "webhook", "add", receiver.url, "--dialect", "didit", *of, check=False
        ).returncode
        == 3
    )

    tested = place.json("webhook", "test", endpoint["endpoint_id"], *of)
    assert (tested["test"], tested["last_status"]) == (True, 200)
    check_didit(receiver.calls[0], secret)
    assert receiver.calls[0].headers["x-didit-test-webhook"] == "true"

    receiver.statuses = [410]
    failed = place.command("webhook", "test", endpoint["endpoint_id"], *of, check=False)
    assert failed.returncode == 1
    assert "answered 410; given up" in " ".join(failed.stdout.split())
    lost = deliveries(place, tenant)[0]
    assert (lost["attempts"], lost["dropped_at"] is None) == (1, False)
    again = place.json("webhook", "redeliver", lost["delivery_id"], *of)
    assert again["last_status"] == 200
    ids = receiver.event_ids
    assert (len(ids), ids[1], ids[2] == ids[0]) == (3, ids[2], False)

    table = place.command("webhook", "list", "--deliveries", *of).stdout
    assert "delivered" in table
    place.command("webhook", "remove", endpoint["endpoint_id"], *of)
    assert place.json("webhook", "list", *of) == []
    for arguments in (("test", endpoint["endpoint_id"]), ("redeliver", lost["delivery_id"])):
        assert place.command("webhook", *arguments, *of, check=False).returncode == 3


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/h",
        "https://127.0.0.1/h",
        "https://localhost/h",
        "https://[::ffff:10.0.0.1]/h",
        "https://169.254.169.254/latest",
        "https://nowhere.invalid/h",
        "nonsense",
    ],
)
def test_an_address_that_is_not_public_is_refused_in_one_line(
    place: Place, tenant: str, url: str
) -> None:
    strict = msgspec.structs.replace(
        place, environ={**place.environ, "ONETON_WEBHOOK_PRIVATE_ADDRESSES": "false"}
    )
    arguments = ("webhook", "add", url, "--dialect", "didit", "--tenant", tenant)
    refused = strict.command(*arguments, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("oneton: ")
    assert refused.stderr.count("\n") == 1
    assert place.json("webhook", "list", "--tenant", tenant) == []


def test_tenants_do_not_see_each_others_endpoints(
    place: Place, tenant: str, receiver: Receiver
) -> None:
    endpoint_id, _ = add(place, tenant, receiver.url)
    stranger = f"stranger-{tenant}"
    new_tenant(place, stranger)
    assert place.json("webhook", "list", "--tenant", stranger) == []
    arguments = ("webhook", "test", endpoint_id, "--tenant", stranger)
    assert place.command(*arguments, check=False).returncode == 3
    save_call(place, stranger)
    save_call(place, tenant)
    receiver.wait_for(1)
    time.sleep(3)
    assert len(receiver.calls) == 1


@pytest.mark.conforms("didit", "webhook", "event_id deduplicates after a crash", "exact")
def test_kill_9_while_a_webhook_is_on_its_way_loses_nothing(
    make_place: MakePlace, receiver: Receiver
) -> None:
    place = make_place(ONETON_WEBHOOK_PRIVATE_ADDRESSES="true")
    with run_server(place) as server:
        new_tenant(place, "acme")
        _, secret = add(place, "acme", receiver.url)
        receiver.silent.set()
        save_call(place, "acme")
        receiver.wait_for(1)
        server.kill()
    receiver.silent.clear()
    (waiting,) = deliveries(place, "acme")
    assert (waiting["attempts"], waiting["delivered_at"]) == (1, None)
    with run_worker(place):
        receiver.wait_for(2, timeout_s=60)
        made = wait_until_noted(place, "acme")
    assert (made["attempts"], made["last_status"]) == (2, 200)
    assert len(set(receiver.event_ids)) == 1
    check_didit(receiver.calls[-1], secret)
