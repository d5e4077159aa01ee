"""The audit trail over HTTP and by command: each call leaves its event, with who and from where."""

from __future__ import annotations

import csv
import json
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from _photos import variations

from oneton.domain.model import Permission
from tests.fixtures.native import MakeNative, Native, check_problem
from tests.fixtures.servers import MATCH, Client, Place, Server, as_base64, new_tenant

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]


def events_of(native: Native, wanted: int, **query: Any) -> list[dict[str, Any]]:
    """The newest events first, once there are so many; they are written soon after the call."""
    deadline = time.monotonic() + 10
    while True:
        found: list[dict[str, Any]] = native.json("/v1/audit", limit=100, **query)["items"]
        if len(found) >= wanted or time.monotonic() > deadline:
            return found


def test_each_call_leaves_its_event(native: Native, people: dict[str, bytes]) -> None:
    ada, other = variations(people["ada"], 2, 7)
    face_id = native.enroll(ada, external_id="secret-name")
    assert native.identify(other)["match"]
    headers = {"X-Request-ID": "the-match"}
    both = {"source": as_base64(ada), "target": as_base64(other)}
    assert native.http.post("/v1/verify", json=both, headers=headers).status_code == 200
    body = {"image": as_base64(other), "if_missing": True}
    reply = native.http.post("/v1/galleries/default/faces", json=body)
    assert reply.json()["face_id"] == face_id
    link = native.json(f"/v1/faces/{face_id}/image-link")["url"]
    assert httpx.get(link).status_code == 200
    note = {"external_id": "other-secret"}
    assert native.http.patch(f"/v1/faces/{face_id}", json=note).status_code == 200
    assert native.http.delete(f"/v1/faces/{face_id}/image").status_code == 204
    assert native.http.delete(f"/v1/faces/{face_id}").status_code == 204
    about = events_of(native, 7, face_id=face_id)
    assert sorted(each["action"] for each in about) == [
        "change face",
        "enroll",
        "enroll found",
        "erase image",
        "purge",
        "read image",
        "search",
    ]
    for each in about:
        assert each["face_ids"] == [face_id]
        assert each["address"] == "127.0.0.1"
        assert each["request_id"]
        expected = "link" if each["action"] == "read image" else "key "
        assert each["actor"].startswith(expected)
    (match,) = events_of(native, 1, action="match")
    assert (match["request_id"], match["face_ids"]) == ("the-match", [])
    everything = json.dumps(native.json("/v1/audit", limit=100))
    assert "secret" not in everything
    assert "score" not in everything


def test_every_dialects_match_is_noted(
    shared_place: Place, shared_server: Server, people: dict[str, bytes]
) -> None:
    key = new_tenant(shared_place, permissions=tuple(Permission))
    client = Client(shared_server.url, key)
    body = {
        "sourceImage": as_base64(people["ada"]),
        "targetImage": as_base64(people["bea"]),
        "minimumMatchLevel": 3,
    }
    assert client.http.post(MATCH, json=body).status_code == 200
    native = Native(shared_server.url, key["client_secret"])
    (event,) = events_of(native, 1, action="match")
    assert event["actor"] == f"key {key['client_id']}"
    native.http.close()
    client.http.close()


def test_pages_of_the_trail_are_followed_to_its_end(native: Native) -> None:
    for number in range(5):
        native.create(f"g{number}")
    pages = native.pages("/v1/audit", limit=2, action="create gallery")
    names = [each["gallery"] for page in pages for each in page]
    assert names[:5] == ["g4", "g3", "g2", "g1", "g0"]
    assert all(len(page) == 2 for page in pages[:-1])


def test_the_trail_is_for_admins_and_its_own_tenant(
    make_native: MakeNative, people: dict[str, bytes]
) -> None:
    every = [each for each in Permission if each != Permission.ADMIN]
    check_problem(make_native(every).http.get("/v1/audit"), 403, "forbidden")
    one, other = make_native(), make_native()
    face_id = one.enroll(people["ada"])
    assert events_of(one, 1, face_id=face_id)
    assert other.json("/v1/audit", face_id=face_id)["items"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"cursor": "nonsense!"}, "cursor"),
        ({"since": "2026-01-01T00:00:00"}, "since"),
        ({"limit": 0}, "limit"),
    ],
)
def test_a_wrong_question_is_refused(native: Native, query: dict[str, Any], field: str) -> None:
    reply = native.http.get("/v1/audit", params=query)
    check_problem(reply, reply.status_code, reply.json()["code"], field)
    assert reply.status_code in (400, 422)


@pytest.fixture
def owned(shared_place: Place, shared_server: Server, people: dict[str, bytes]) -> str:
    """A tenant with one enrolled face; its name."""
    name = f"audited-{uuid4().hex[:8]}"
    key = new_tenant(shared_place, name, permissions=tuple(Permission))
    native = Native(shared_server.url, key["client_secret"])
    native.enroll(people["ada"])
    native.http.close()
    return name


def test_the_command_lists_and_exports_the_same_events(shared_place: Place, owned: str) -> None:
    place = shared_place
    listed = place.json("audit", "list", "--tenant", owned, "--action", "enroll")
    (face_id,) = listed[0]["face_ids"]
    assert face_id in place.command("audit", "list", "--tenant", owned, "--limit", "5").stdout
    of_face = place.json("audit", "list", "--tenant", owned, "--face", face_id)
    assert [each["action"] for each in of_face] == ["enroll"]
    lines, table = place.folder / f"{owned}.jsonl", place.folder / f"{owned}.csv"
    place.command("audit", "export", "--tenant", owned, "-o", str(lines))
    place.command("audit", "export", "--tenant", owned, "--format", "csv", "-o", str(table))
    written = [json.loads(each) for each in lines.read_text().splitlines()]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [each["event_no"] for each in written]
    assert numbers == sorted(numbers)
    assert [int(each["event_no"]) for each in rows[:-1]] == numbers
    # The first export is an event of its own in the second.
    assert rows[-1]["action"] == "export audit"
    assert rows[-1]["actor"].startswith("operator ")
    assert lines.stat().st_mode & 0o777 == 0o600
    assert not list(place.folder.glob(".*.part"))


def test_old_events_go_when_the_operator_says_so(shared_place: Place, owned: str) -> None:
    expire = ("audit", "expire", "--days", "36500")
    assert shared_place.json(*expire) == {"events": 0, "deleted": False}
    assert shared_place.json(*expire, "--yes") == {"events": 0, "deleted": True}
    (noted,) = shared_place.json("audit", "list", "--operators", "--limit", "1")
    assert noted["details"] == {"older_than_days": 36500, "events": 0}
    assert noted["actor"].startswith("operator ")
    assert shared_place.json("audit", "list", "--tenant", owned) != []
