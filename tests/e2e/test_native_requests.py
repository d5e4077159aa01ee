"""The native API's saved calls and their reviews."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.fixtures.native import MakeNative, Native, check_problem
from tests.fixtures.servers import Place, as_base64

pytestmark = pytest.mark.model


def conforms(call: str, what: str) -> pytest.MarkDecorator:
    return pytest.mark.conforms("native", call, what, "exact")


def verified(native: Native, source: bytes, target: bytes, **fields: Any) -> str:
    body = {"source": as_base64(source), "target": as_base64(target), "save": True, **fields}
    return str(native.http.post("/v1/verify", json=body).json()["request_id"])


@conforms("POST /v1/identify", "save: kept as a request; state by the kind of what matches")
@conforms("GET /v1/requests/{request_id}", "parameters, answer, links to its images, reviews")
def test_a_saved_search_is_kept_with_its_image_and_answer(
    native: Native, people: dict[str, bytes]
) -> None:
    for name, kind in (("bad", "blocklist"), ("good", "allowlist")):
        native.create(name, kind=kind)
    native.enroll(people["ada"], "bad")
    native.enroll(people["bea"])
    native.enroll(people["cas"], "good")
    states = {}
    for name in ("ada", "bea", "cas", "dan"):
        found = native.identify(
            people[name],
            galleries=["default", "bad", "good"],
            save=True,
            external_id=name,
            metadata={"n": 1},
        )
        saved = native.json(f"/v1/requests/{found['request_id']}")
        states[name] = saved["state"]
        assert (saved["dialect"], saved["kind"]) == ("native", "identify")
        assert (saved["external_id"], saved["metadata"]) == (name, {"n": 1})
        assert saved["asked"]["galleries"] == ["default", "bad", "good"]
        assert saved["score"] == pytest.approx(found["candidates"][0]["score"])
        for each in found["candidates"]:
            each["image_url"] = None
        assert saved["result"] == found
        (image,) = saved["images"]
        assert (image["name"], image["content_type"]) == ("image", "image/jpeg")
        assert httpx.get(image["url"]).content == people[name]
        assert saved["reviews"] == []
    assert states == {
        "ada": "declined",
        "bea": "in_review",
        "cas": "approved",
        "dan": "approved",
    }


@conforms("POST /v1/verify", "save: kept with both images; approved when they match")
def test_a_saved_comparison_is_kept_with_both_images(
    native: Native, people: dict[str, bytes]
) -> None:
    saved = native.json(f"/v1/requests/{verified(native, people['ada'], people['bea'])}")
    assert (saved["kind"], saved["state"]) == ("verify", "declined")
    assert [each["name"] for each in saved["images"]] == ["source", "target"]
    pictures = [httpx.get(each["url"]).content for each in saved["images"]]
    assert pictures == [people["ada"], people["bea"]]
    saved = native.json(f"/v1/requests/{verified(native, people['ada'], people['ada'])}")
    assert saved["state"] == "approved"


def test_calls_that_are_not_saved_or_fail_leave_nothing(
    native: Native, shared_place: Place, people: dict[str, bytes]
) -> None:
    before = asyncio.run(stored(shared_place))
    native.identify(people["ada"])
    bad = {"source": as_base64(people["ada"]), "target": as_base64(b"GIF89a"), "save": True}
    assert native.http.post("/v1/verify", json=bad).status_code == 415
    assert native.json("/v1/requests")["items"] == []
    assert asyncio.run(stored(shared_place)) == before


async def stored(place: Place) -> tuple[int, int, int]:
    rows = await place.count("request"), await place.count("picture")
    return *rows, len(await place.objects())


@conforms("GET /v1/requests", "pages, the newest first; filters dialect, kind, state, external_id")
def test_list_pages_and_filters(native: Native, people: dict[str, bytes]) -> None:
    ids = [
        verified(native, people["ada"], people["ada"], external_id=f"e{n % 2}") for n in range(4)
    ]
    other = str(native.identify(people["ada"], save=True)["request_id"])

    def listed(**query: Any) -> list[list[str]]:
        pages = native.pages("/v1/requests", **query)
        return [[each["request_id"] for each in page] for page in pages]

    assert listed(limit=2) == [[other, ids[3]], [ids[2], ids[1]], [ids[0]]]
    assert listed(kind="identify") == [[other]]
    assert listed(external_id="e1", limit=1) == [[ids[3]], [ids[1]]]
    assert listed(state="declined") == [[]]
    assert len(listed(state="approved", dialect="native")[0]) == 5
    assert listed(dialect="didit") == [[]]
    items = native.json("/v1/requests")["items"]
    assert [each["number"] for each in items] == [5, 4, 3, 2, 1]
    assert "result" not in items[0]
    for name, value in (("state", "maybe"), ("kind", "a b"), ("external_id", "a\0")):
        reply = native.http.get("/v1/requests", params={name: value})
        check_problem(reply, 400, "invalid_input", name)


@conforms("POST /v1/requests/{request_id}/review", "a reviewer changes the state, with history")
def test_reviews_change_the_state_and_are_kept(native: Native, people: dict[str, bytes]) -> None:
    path = f"/v1/requests/{verified(native, people['ada'], people['bea'])}"
    reply = native.http.post(f"{path}/review", json={"state": "in_review", "comment": "Twins?"})
    assert (reply.status_code, reply.json()["state"]) == (200, "in_review")
    reply = native.http.post(f"{path}/review", json={"state": "approved"})
    shown = native.json(path)
    assert shown["state"] == "approved"
    history = [(each["state_before"], each["state"], each["comment"]) for each in shown["reviews"]]
    assert history == [("declined", "in_review", "Twins?"), ("in_review", "approved", "")]
    assert all(each["actor"].startswith("key ") and each["at"] for each in shown["reviews"])
    assert shown["updated_at"] > shown["created_at"]
    assert [each["state"] for each in reply.json()["reviews"]] == ["in_review", "approved"]


@conforms("POST /v1/requests/{request_id}/review", "400 and 404 as documented")
def test_a_bad_review_changes_nothing(
    native: Native, make_native: MakeNative, people: dict[str, bytes]
) -> None:
    request_id = verified(native, people["ada"], people["bea"])
    path = f"/v1/requests/{request_id}/review"
    for body, field in (
        ({}, "state"),
        ({"state": "error"}, "state"),
        ({"state": "approved", "comment": "x" * 2001}, "comment"),
        ({"state": "approved", "comment": "\0"}, "comment"),
    ):
        check_problem(native.http.post(path, json=body), 400, "invalid_input", field)
    theirs = make_native()
    for unknown in (request_id, uuid4()):
        reply = theirs.http.post(f"/v1/requests/{unknown}/review", json={"state": "approved"})
        check_problem(reply, 404, "not_found")
        check_problem(theirs.http.get(f"/v1/requests/{unknown}"), 404, "not_found")
    assert theirs.json("/v1/requests")["items"] == []
    shown = native.json(f"/v1/requests/{request_id}")
    assert (shown["state"], shown["reviews"]) == ("declined", [])
