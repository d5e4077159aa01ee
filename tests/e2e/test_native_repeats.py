"""Idempotency keys: a repeated call gets the first answer, from any replica."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.fixtures.native import DEFAULT, MakeNative, Native, check_problem
from tests.fixtures.servers import (
    MakePlace,
    Place,
    Server,
    as_base64,
    new_tenant,
    run_server,
)

pytestmark = pytest.mark.model

KEY = "Idempotency-Key"
REPLAYED = "idempotency-replayed"
CALLS = 50


def conforms(what: str) -> pytest.MarkDecorator:
    return pytest.mark.conforms("native", "every POST", f"{KEY}: {what}", "exact")


@conforms("a repeated call gets the first answer, marked, and changes nothing")
def test_a_repeated_enrolment_adds_once(native: Native, people: dict[str, bytes]) -> None:
    body = {"image": as_base64(people["ada"]), "metadata": {"a": 1}}
    first, second = (native.http.post(DEFAULT, json=body, headers={KEY: "k 1"}) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert first.content == second.content
    assert REPLAYED not in first.headers
    assert second.headers[REPLAYED] == "true"
    for name in ("content-type", "location"):
        assert first.headers[name] == second.headers[name]
    assert native.json("/v1/galleries/default")["faces"] == 1
    third = native.http.post(DEFAULT, json=body, headers={KEY: "k 2"})
    assert third.json()["face_id"] != first.json()["face_id"]


@conforms("a form is the same call whatever its boundary")
def test_a_form_may_be_repeated(native: Native, people: dict[str, bytes]) -> None:
    replies = [
        native.http.post(DEFAULT, files={"image": people["ada"]}, headers={KEY: "k"}) for _ in "12"
    ]
    assert replies[0].request.headers["content-type"] != replies[1].request.headers["content-type"]
    assert replies[0].json() == replies[1].json()
    assert replies[1].headers[REPLAYED] == "true"


@conforms("a refusal is repeated, too")
def test_a_refusal_is_repeated(native: Native) -> None:
    body = {"image": as_base64(b"GIF89a")}
    for replayed in (None, "true"):
        reply = native.http.post("/v1/identify", json=body, headers={KEY: "k"})
        check_problem(reply, 415, "unsupported_type", "image")
        assert reply.headers.get(REPLAYED) == replayed


@conforms("with another call 409 idempotency_conflict")
def test_a_key_is_good_for_one_call(native: Native, people: dict[str, bytes]) -> None:
    headers, body = {KEY: "k"}, {"image": as_base64(people["ada"])}
    assert native.http.post("/v1/identify", json=body, headers=headers).status_code == 200
    for path, other in (
        ("/v1/identify", {**body, "limit": 2}),
        ("/v1/identify?a=1", body),
        (DEFAULT, body),
    ):
        reply = native.http.post(path, json=other, headers=headers)
        check_problem(reply, 409, "idempotency_conflict")
    assert native.json("/v1/galleries/default")["faces"] == 0


@conforms("1 to 255 printable ASCII characters, else 400 invalid_input")
@pytest.mark.parametrize("key", [b"", b"x" * 256, "é".encode(), b"a\tb"])
def test_a_bad_key_is_refused(native: Native, key: bytes) -> None:
    reply = native.http.post("/v1/galleries", json={"name": "a"}, headers={KEY.encode(): key})
    check_problem(reply, 400, "invalid_input", KEY)
    assert len(native.json("/v1/galleries")["items"]) == 1


def test_a_long_key_is_good(native: Native) -> None:
    for _ in range(2):
        reply = native.http.post(
            "/v1/galleries", json={"name": "a"}, headers={KEY: "~ " * 127 + "~"}
        )
        assert reply.status_code == 201


def test_two_keys_twice_are_refused(native: Native) -> None:
    twice = [(KEY, "a"), (KEY, "b")]
    reply = native.http.post("/v1/galleries", json={"name": "a"}, headers=twice)
    check_problem(reply, 400, "invalid_input", KEY)


@conforms("a refusal for who asks is not kept, for it may be lifted")
def test_a_call_that_met_a_quota_may_be_repeated(
    shared_place: Place, shared_server: Server, people: dict[str, bytes]
) -> None:
    name = f"full-{uuid4().hex}"
    secret = new_tenant(shared_place, name)["client_secret"]
    shared_place.command("tenant", "quota", name, "--faces", "0")
    native = Native(shared_server.url, secret)
    with native.http as http:
        body, headers = {"image": as_base64(people["ada"])}, {KEY: "k"}
        reply = http.post(DEFAULT, json=body, headers=headers)
        check_problem(reply, 403, "quota_exceeded")
        shared_place.command("tenant", "quota", name, "--faces", "none")
        reply = http.post(DEFAULT, json=body, headers=headers)
        assert (reply.status_code, reply.headers.get(REPLAYED)) == (201, None)


def test_a_repeat_is_counted_and_noted(shared_place: Place, shared_server: Server) -> None:
    name = f"counted-{uuid4().hex}"
    secret = new_tenant(shared_place, name)["client_secret"]
    shared_place.command("tenant", "quota", name, "--requests-a-day", "2")
    with Native(shared_server.url, secret).http as http:
        first, second, third = (
            http.post("/v1/galleries", json={"name": "a"}, headers={KEY: "k"}) for _ in "123"
        )
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers[REPLAYED] == "true"
    check_problem(third, 429, "quota_exceeded")
    # It is in the trail a moment after the answer.
    for _ in range(100):
        events = shared_place.json("audit", "list", "--tenant", name)
        noted = [each for each in events if each["action"] == "repeat answer"]
        if noted:
            break
    assert len(noted) == 1
    assert noted[0]["details"] == {"call": "create_gallery", "status": 201}
    assert noted[0]["request_id"] == second.headers["x-request-id"]
    assert noted[0]["actor"].startswith("key ")


def test_tenants_have_their_own_keys(make_native: MakeNative) -> None:
    for native in (make_native(), make_native()):
        reply = native.http.post("/v1/galleries", json={"name": "a"}, headers={KEY: "same"})
        assert (reply.status_code, reply.headers.get(REPLAYED)) == (201, None)


def test_another_key_without_the_permission_reads_no_answer(
    shared_place: Place, shared_server: Server, people: dict[str, bytes]
) -> None:
    tenant = f"two-keys-{uuid4().hex}"
    whole = Native(shared_server.url, new_tenant(shared_place, tenant)["client_secret"])
    made = shared_place.json("key", "create", "--tenant", tenant, "--allow", "read")
    reader = Native(shared_server.url, made["client_secret"])
    body = {"image": as_base64(people["ada"])}
    with whole.http, reader.http:
        assert whole.http.post("/v1/identify", json=body, headers={KEY: "k"}).status_code == 200
        reply = reader.http.post("/v1/identify", json=body, headers={KEY: "k"})
        check_problem(reply, 403, "forbidden")


def test_an_enrolment_whose_answer_was_lost_adds_no_second(
    native: Native, shared_place: Place, people: dict[str, bytes]
) -> None:
    """As after a crash between the insert and the keeping of the answer."""
    body, headers = {"image": as_base64(people["ada"])}, {KEY: "lost"}
    first = native.http.post(DEFAULT, json=body, headers=headers)
    asyncio.run(forget_answers(shared_place))
    second = native.http.post(DEFAULT, json=body, headers=headers)
    assert REPLAYED not in second.headers
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert native.json("/v1/galleries/default")["faces"] == 1


async def forget_answers(place: Place) -> None:
    assert place.dsns is not None
    connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
    try:
        await connection.execute("delete from idempotency where key = 'native lost'")
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    return make_place()


@pytest.fixture(scope="module")
def replicas(place: Place) -> Iterator[list[Server]]:
    with run_server(place) as one, run_server(place) as other:
        yield [one, other]


@conforms("50 calls at once on two replicas are carried out once and answered alike")
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("if_missing", [False, True])
def test_fifty_calls_at_once_on_two_replicas_enroll_once(
    place: Place, replicas: list[Server], people: dict[str, bytes], if_missing: bool
) -> None:
    secret = new_tenant(place)["client_secret"]
    body = {"image": as_base64(people["ada"]), "if_missing": if_missing}
    faces = asyncio.run(place.count("face"))
    objects = len(asyncio.run(place.objects()))
    replies = asyncio.run(storm(replicas, secret, body))
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.content for reply in replies}) == 1
    assert [reply.headers.get(REPLAYED) for reply in replies].count("true") == CALLS - 1
    assert asyncio.run(place.count("face")) == faces + 1
    assert len(asyncio.run(place.objects())) == objects + 1


async def storm(replicas: list[Server], secret: str, body: dict[str, Any]) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=CALLS, keepalive_expiry=None)
    headers = {"Authorization": f"Bearer {secret}", KEY: "once"}
    async with httpx.AsyncClient(timeout=60, limits=limits, headers=headers) as http:
        return await asyncio.gather(
            *(http.post(replicas[number % 2].url + DEFAULT, json=body) for number in range(CALLS))
        )
