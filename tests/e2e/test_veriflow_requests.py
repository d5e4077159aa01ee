"""VeriFlow requests over HTTP: read, listed, made, reviewed; webhooks and retention."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from _photos import variations

from tests.e2e.test_bad_input import no_face
from tests.fixtures.receivers import Receiver
from tests.fixtures.servers import MakePlace, Place, Server, new_tenant, run_server
from tests.fixtures.veriflow import (
    REQUEST_KEYS,
    REQUESTS,
    TIME,
    Flow,
    MakeFlow,
    check_refusal,
    conforms,
    options_of,
    response,
    risks,
    shown,
    unlinked,
    wait_for_options,
)

pytestmark = pytest.mark.model

GET = "GET /v2/requests/{id}"
LIST = "GET /v2/requests"
POST = "POST /v2/requests"
PUT = "PUT /v2/requests/{id}"
SESSION_KEYS = REQUEST_KEYS | {"session", "workflow"}
UNKNOWN_IDS = [
    f"req_{'0' * 20}",
    "req_12345abcde",
    "req_",
    str(UUID(int=404)),
    "x" * 3000,
    "req_%00aaaaaaaaaaaaaaaaaaa",
    "..%2f..%2fetc",
]


def listed(flow: Flow, **query: Any) -> dict[str, Any]:
    reply = flow.http.get(REQUESTS, params=query)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert set(body) == {"success", "payload"}
    assert body["success"] is True
    payload: dict[str, Any] = body["payload"]
    assert set(payload) == {"total", "offset", "limit", "requests"}
    return payload


def review(flow: Flow, request_id: str, **body: Any) -> dict[str, Any]:
    reply = flow.http.put(f"{REQUESTS}/{request_id}", json=body)
    assert reply.status_code == 200, reply.text
    return shown(reply)


@conforms(GET, "200, the object as it was made, links made anew", "exact")
def test_a_request_is_read_as_it_was_made(flow: Flow, people: dict[str, bytes]) -> None:
    metadata = {"z": 1, "a": [1.5, None, "é"], "big": 2**70, "m": {"deep": True}}
    enrolled = flow.enroll(people["ada"], metadata=metadata)
    made = [
        flow.match(variations(people["ada"], 1, seed=3)[0], people["ada"], metadata=metadata),
        flow.match(people["ada"], people["gus"]),
        flow.match(people["ada"], no_face(), faceMatchScoreDeclineThreshold=12.5),
        flow.search(people["ada"], metadata=metadata),
        flow.search(people["bea"], searchType="blocklisted_or_approved"),
        enrolled,
    ]
    for request in made:
        again = flow.get(request["id"])
        assert unlinked(again) == unlinked(request)
        assert set(again) == REQUEST_KEYS
        assert again["info"]["metadata"] == again["info"]["init"]["metadata"]
    match = flow.get(made[3]["id"])
    assert flow.picture(response(match)["matches"][0]["matchImageUrl"]) == people["ada"]
    assert match["info"]["metadata"] == metadata


@conforms(GET, "404 when unknown", "exact")
@pytest.mark.parametrize("unknown", UNKNOWN_IDS)
def test_an_unknown_request_is_404(flow: Flow, unknown: str) -> None:
    check_refusal(flow.http.get(f"{REQUESTS}/{unknown}"), 404, "NOT_FOUND")
    reply = flow.http.put(f"{REQUESTS}/{unknown}", json={"status": "approved"})
    check_refusal(reply, 404, "NOT_FOUND")


@conforms(GET, "404 for another organization's", "chosen")
def test_a_request_of_another_organization_is_404(
    make_flow: MakeFlow, people: dict[str, bytes]
) -> None:
    mine, theirs = make_flow(), make_flow()
    request = mine.match(people["ada"], people["ada"])
    check_refusal(theirs.http.get(f"{REQUESTS}/{request['id']}"), 404, "NOT_FOUND")
    reply = theirs.http.put(f"{REQUESTS}/{request['id']}", json={"status": "declined"})
    check_refusal(reply, 404, "NOT_FOUND")
    assert listed(theirs)["total"] == 0
    assert mine.get(request["id"])["status"] == "approved"


@conforms(LIST, "200, an empty page", "exact")
def test_the_list_of_a_new_organization_is_empty(flow: Flow) -> None:
    assert listed(flow) == {"total": 0, "offset": 0, "limit": 20, "requests": []}


@conforms(LIST, "newest first, offset and limit", "chosen")
def test_requests_are_listed_newest_first_in_pages(flow: Flow) -> None:
    made = [flow.made(REQUESTS, metadata=at)["id"] for at in range(25)]
    page = listed(flow)
    assert (page["total"], page["offset"], page["limit"]) == (25, 0, 20)
    assert [each["id"] for each in page["requests"]] == made[:4:-1]
    rest = listed(flow, offset=20, limit=100)
    assert (rest["total"], rest["offset"], rest["limit"]) == (25, 20, 100)
    assert [each["id"] for each in rest["requests"]] == made[4::-1]
    assert listed(flow, offset=25)["requests"] == []
    assert [each["id"] for each in listed(flow, offset=3, limit=1)["requests"]] == [made[21]]


@conforms(LIST, "items have the shape of a single request", "exact")
def test_a_listed_request_is_as_a_single_one(flow: Flow, people: dict[str, bytes]) -> None:
    for request in (
        flow.match(people["ada"], people["ada"]),
        flow.enroll(people["ada"]),
        flow.made(REQUESTS),
    ):
        review(flow, request["id"], status="declined", comment="no")
    page = listed(flow)
    assert [each["type"] for each in page["requests"]] == [
        "SESSION",
        "PASSIVE_LIVENESS",
        "FACE_MATCH",
    ]
    for each in page["requests"]:
        assert unlinked(each) == unlinked(flow.get(each["id"]))
        assert len(response(each)["reviews"]) == 1


@conforms(LIST, "filter by status", "exact")
def test_requests_are_filtered_by_status(flow: Flow, people: dict[str, bytes]) -> None:
    approved = flow.match(people["ada"], people["ada"])["id"]
    declined = flow.match(people["ada"], people["gus"])["id"]
    open_one = flow.made(REQUESTS)["id"]
    for status, expected in (
        ("approved", [approved]),
        ("declined", [declined]),
        ("in_process", [open_one]),
        ("in_review", []),
        ("error", []),
    ):
        page = listed(flow, status=status)
        assert [each["id"] for each in page["requests"]] == expected
        assert page["total"] == len(expected)


@conforms(LIST, "400 for an unknown status, a bad offset or limit", "chosen")
@pytest.mark.parametrize(
    "query",
    [
        {"status": "done"},
        {"status": "Approved"},
        {"status": ""},
        {"status": "\x00"},
        {"limit": 0},
        {"limit": 101},
        {"limit": -1},
        {"limit": "many"},
        {"offset": -1},
        {"offset": "1.5"},
        {"offset": 10**30},
    ],
)
def test_a_bad_query_is_refused(flow: Flow, query: dict[str, Any]) -> None:
    reply = flow.http.get(REQUESTS, params=query)
    check_refusal(reply, 400, "VALIDATION_ERROR", next(iter(query)))


SESSION = {
    "workflowId": "wf-1",
    "callback": "https://example.com/back?x=1",
    "metadata": {"user": 7},
    "expectedDetails": {"firstName": "Jane", "lastName": "Doe"},
    "contactDetails": {
        "email": "jane@example.com",
        "emailLang": "en",
        "sendNotificationEmails": False,
    },
}


@conforms(POST, "201, in_process, with the hosted URL", "chosen")
@conforms(GET, "200, fields of a session request", "exact")
def test_a_session_request_is_made_and_read(flow: Flow) -> None:
    request = flow.made(REQUESTS, **SESSION)
    assert set(request) == SESSION_KEYS
    assert (request["type"], request["status"]) == ("SESSION", "in_process")
    url = f"{flow.url}/v2/sessions/{request['id']}"
    assert (request["session"], request["workflow"]) == (url, "wf-1")
    info = request["info"]
    assert info["metadata"] == {"user": 7}
    assert info["init"] == {
        "url": url,
        "status": "in_process",
        "workflowId": "wf-1",
        "callback": SESSION["callback"],
    }
    assert info["response"] == {
        "sessionUrl": url,
        "status": "In Progress",
        "workflowId": "wf-1",
        "createdAt": request["createdAt"],
        "features": [],
        "expectedDetails": SESSION["expectedDetails"],
        "contactDetails": SESSION["contactDetails"],
        "reviews": [],
        "faceMatch": None,
        "liveness": None,
    }
    assert flow.get(request["id"]) == request


@conforms(POST, "every field may be left out", "chosen")
def test_a_session_request_may_say_nothing(flow: Flow) -> None:
    request = flow.made(REQUESTS)
    assert request["workflow"] is None
    assert request["info"]["metadata"] is None
    found = response(request)
    assert found["expectedDetails"] == {"firstName": None, "lastName": None}
    assert set(found["contactDetails"].values()) == {None}


@conforms(POST, "400 for wrong fields, none stored", "chosen")
@pytest.mark.parametrize(
    "wrong",
    [
        {"workflowId": 5},
        {"workflowId": "a\x00b"},
        {"workflowId": "x" * 2001},
        {"callback": "javascript:alert(1)"},
        {"callback": "not an address"},
        {"expectedDetails": []},
        {"expectedDetails": {"firstName": {}}},
        {"contactDetails": {"email": "a\x00"}},
        {"contactDetails": {"sendNotificationEmails": "yes"}},
        {"metadata": {"a": "\x00"}},
        {"metadata": "x" * 70_000},
    ],
)
def test_a_wrong_session_request_is_refused(flow: Flow, wrong: dict[str, Any]) -> None:
    reply = flow.http.post(REQUESTS, json=wrong)
    check_refusal(reply, 400, "VALIDATION_ERROR", next(iter(wrong)))
    assert flow.total() == 0


@conforms(POST, "the hosted URL answers 501, for there is no page", "chosen")
def test_the_hosted_page_says_that_there_is_none(flow: Flow) -> None:
    reply = httpx.get(flow.made(REQUESTS)["session"])
    check_refusal(reply, 501, "NOT_IMPLEMENTED", "no hosted page")


@conforms(PUT, "200, sets the status, appends to reviews[]", "chosen")
def test_a_review_changes_the_status_and_is_appended(flow: Flow) -> None:
    request = flow.made(REQUESTS)
    first = review(flow, request["id"], status="approved", comment="papers seen")
    assert (first["status"], response(first)["status"]) == ("approved", "Approved")
    assert first["updatedAt"] > first["createdAt"] == request["createdAt"]
    second = review(flow, request["id"], status="declined")
    reviews = response(second)["reviews"]
    assert TIME.fullmatch(reviews[0].pop("createdAt"))
    assert TIME.fullmatch(reviews[1].pop("createdAt"))
    assert reviews == [
        {"user": flow.key_id, "newStatus": "Approved", "comment": "papers seen"},
        {"user": flow.key_id, "newStatus": "Declined", "comment": ""},
    ]
    assert flow.get(request["id"])["status"] == "declined"
    assert listed(flow, status="declined")["total"] == 1


@conforms(PUT, "a standalone request keeps its verdict beside the review", "chosen")
def test_a_reviewed_match_keeps_what_was_measured(flow: Flow, people: dict[str, bytes]) -> None:
    request = flow.match(people["ada"], people["gus"])
    reviewed = review(flow, request["id"], status="approved", comment="twins")
    assert reviewed["status"] == "approved"
    found = response(reviewed)
    assert found.pop("reviews")[0]["comment"] == "twins"
    assert unlinked(found) == unlinked(response(request))


@conforms(PUT, "who was declined by a reviewer is no duplicate any more", "chosen")
def test_a_review_counts_in_the_next_search(flow: Flow, people: dict[str, bytes]) -> None:
    request = flow.enroll(people["ian"])
    assert risks(flow.search(people["ian"])) == ["DUPLICATED_FACE"]
    review(flow, request["id"], status="declined")
    found = flow.search(people["ian"])
    assert risks(found) == []
    assert response(found)["matches"][0]["status"] == "Declined"
    narrow = flow.search(people["ian"], searchType="blocklisted_or_approved")
    assert response(narrow)["totalMatches"] == 0


@conforms(PUT, "400 for a wrong status or comment, nothing changed", "chosen")
@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"status": "in_process"},
        {"status": "Approved"},
        {"status": None},
        {"status": "approved", "comment": 5},
        {"status": "approved", "comment": "a\x00"},
        {"status": "approved", "comment": "x" * 2001},
    ],
)
def test_a_wrong_review_is_refused(flow: Flow, wrong: dict[str, Any]) -> None:
    request = flow.made(REQUESTS)
    reply = flow.http.put(f"{REQUESTS}/{request['id']}", json=wrong)
    name = "comment" if "comment" in wrong else "status"
    check_refusal(reply, 400, "VALIDATION_ERROR", name)
    assert flow.get(request["id"]) == request


@conforms("any", "pictures go after 30 days, requests after 365", "chosen")
def test_what_is_kept_is_due_when_the_organization_wants(
    flow: Flow, shared_place: Place, people: dict[str, bytes]
) -> None:
    first = flow.match(people["ada"], people["ada"])
    assert days(shared_place, first["id"]) == (365, [30, 30])
    options_of(shared_place, flow, image_days=7, result_days=90)
    wait_for_options()
    assert days(shared_place, flow.match(people["ada"], people["ada"])["id"]) == (90, [7, 7])
    assert days(shared_place, flow.enroll(people["ada"])["id"]) == (90, [7])
    assert days(shared_place, flow.made(REQUESTS)["id"]) == (90, [])


@conforms(GET, "links are null once the pictures are erased", "chosen")
def test_links_are_null_once_the_pictures_are_erased(
    flow: Flow, shared_place: Place, people: dict[str, bytes]
) -> None:
    request = flow.match(people["ada"], people["ada"])
    asyncio.run(
        execute(
            shared_place,
            "delete from picture using request r where r.request_id = picture.request_id"
            " and r.public_id = $1",
            request["id"],
        )
    )
    again = flow.get(request["id"])
    found, init = response(again), again["info"]["init"]
    assert (found["sourceImage"], found["targetImage"]) == (None, None)
    assert (init["userImage"], init["refImage"]) == (None, None)
    assert found["score"] == response(request)["score"]


def days(place: Place, request_id: str) -> tuple[int, list[int]]:
    """Days after which a request is due, and its pictures."""
    rows = asyncio.run(
        execute(
            place,
            """select extract(day from r.due_at - r.created_at)::int as request,
                 array_remove(array_agg(extract(day from p.due_at - p.created_at)::int), null)
                   as pictures
               from request r left join picture p using (request_id)
               where public_id = $1 group by r.request_id""",
            request_id,
        )
    )
    return rows[0]["request"], rows[0]["pictures"]


async def execute(place: Place, sql: str, *arguments: object) -> list[asyncpg.Record]:
    assert place.dsns is not None
    connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def hooked_place(make_place: MakePlace) -> Place:
    """Receivers are on this machine."""
    return make_place(ONETON_WEBHOOK_PRIVATE_ADDRESSES="true")


@pytest.fixture(scope="module")
def hooked_server(hooked_place: Place) -> Iterator[Server]:
    with run_server(hooked_place) as server:
        yield server


def hooked(place: Place, url: str, receiver: Receiver) -> Flow:
    """A new organization's caller, whose events go to a receiver."""
    name = f"tenant-{uuid4().hex[:8]}"
    flow = Flow(url, new_tenant(place, name))
    hook = ("webhook", "add", receiver.url, "--tenant", name, "--dialect", "veriflow")
    place.json(*hook)
    return flow


def wait_for_silence(receiver: Receiver, calls: int) -> None:
    """No further call comes while two looks at the outbox are taken."""
    receiver.wait_for(calls)
    time.sleep(5)
    assert len(receiver.calls) == calls


@pytest.mark.slow
@pytest.mark.timeout(90)
@conforms("webhook", "POST of {id, status} when a status changes, without a signature", "exact")
@conforms("webhook", "standalone calls send none", "chosen")
def test_a_changed_status_is_told_once(
    hooked_place: Place, hooked_server: Server, receiver: Receiver, people: dict[str, bytes]
) -> None:
    flow = hooked(hooked_place, hooked_server.url, receiver)
    flow.match(people["ada"], people["ada"])
    request = flow.made(REQUESTS)
    review(flow, request["id"], status="approved")
    review(flow, request["id"], status="approved", comment="again")
    wait_for_silence(receiver, 1)
    call = receiver.calls[0]
    assert json.loads(call.body) == {"id": request["id"], "status": "approved"}
    assert call.headers["content-type"] == "application/json"
    assert not [name for name in call.headers if "signature" in name]
    # As the contract has it, the receiver asks for the rest.
    assert flow.get(json.loads(call.body)["id"])["status"] == "approved"
    flow.http.close()


@pytest.mark.slow
@pytest.mark.timeout(90)
@conforms("webhook", "a switch tells of standalone calls, too", "chosen")
def test_a_switch_tells_of_standalone_calls(
    make_place: MakePlace, receiver: Receiver, people: dict[str, bytes]
) -> None:
    place = make_place(
        ONETON_WEBHOOK_PRIVATE_ADDRESSES="true", ONETON_VERIFLOW_WEBHOOK_STANDALONE="true"
    )
    with run_server(place) as server:
        flow = hooked(place, server.url, receiver)
        match = flow.match(people["ada"], people["gus"])
        enrolled = flow.enroll(people["ada"])
        flow.made(REQUESTS)
        wait_for_silence(receiver, 2)
        told = {each.event["id"]: each.event["status"] for each in receiver.calls}
        assert told == {match["id"]: "declined", enrolled["id"]: "approved"}
        flow.http.close()
