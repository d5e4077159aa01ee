"""Didit's lists over HTTP, with real photos."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.fixtures.didit_clients import WRONG, DiditClient, MakeDidit
from tests.fixtures.servers import Place, Server, as_base64, new_tenant

pytestmark = pytest.mark.model

LISTS = "/v3/lists/"
ENTRIES = "/v3/lists/{}/entries/"
UPLOAD = ENTRIES + "face-upload/"
ENTRY_TYPES = {
    "face",
    "document",
    "phone",
    "email",
    "ip_address",
    "device_fingerprint",
    "wallet_address",
    "bank_account",
    "country",
    "user",
    "business",
    "key",
}
LIST_FIELDS = {
    "uuid",
    "name",
    "description",
    "list_type",
    "entry_type",
    "is_system",
    "entry_count",
    "last_entry_added_at",
    "created_at",
    "updated_at",
}


@pytest.mark.conforms("didit", "GET /v3/lists/", "envelope, fields; a block list a type", "exact")
def test_lists_begin_with_a_block_list_of_each_entry_type(api: DiditClient) -> None:
    found = api.get(LISTS)
    assert set(found) == {"count", "next", "previous", "results"}
    assert (found["count"], found["next"], found["previous"]) == (12, None, None)
    assert {each["entry_type"] for each in found["results"]} == ENTRY_TYPES
    for each in found["results"]:
        assert set(each) == LIST_FIELDS
        assert (each["list_type"], each["is_system"], each["entry_count"]) == ("blocklist", True, 0)
        assert each["last_entry_added_at"] is None
    assert api.get(LISTS) == found
    assert api.get(LISTS.rstrip("/")) == found


@pytest.mark.conforms("didit", "GET /v3/lists/", "limit, offset, next, previous", "chosen")
def test_lists_come_in_pages(api: DiditClient) -> None:
    first = api.get(LISTS, limit=5)
    second = api.http.get(first["next"]).json()
    third = api.http.get(second["next"]).json()
    names = [each["name"] for page in (first, second, third) for each in page["results"]]
    assert len(set(names)) == 12
    assert third["next"] is None
    assert api.http.get(third["previous"]).json()["results"] == second["results"]
    for query in ({"limit": "x"}, {"limit": "0"}, {"offset": "-1"}, {"offset": "9" * 30}):
        reply = api.http.get(LISTS, params=query)
        assert (reply.status_code, list(reply.json())) == (400, list(query))


@pytest.mark.conforms("didit", "POST /v3/lists/", "fields of body and reply", "exact")
@pytest.mark.conforms("didit", "POST /v3/lists/", "201", "chosen")
@pytest.mark.parametrize("list_type", ["allowlist", "custom"])
def test_list_is_created(api: DiditClient, list_type: str) -> None:
    body = {
        "name": "Trusted office IPs",
        "description": "Office egress ranges",
        "list_type": list_type,
        "entry_type": "ip_address",
    }
    made = api.post(LISTS, body)
    assert set(made) == LIST_FIELDS
    assert {name: made[name] for name in body} == body
    assert UUID(made["uuid"])
    assert (made["is_system"], made["entry_count"]) == (False, 0)
    assert made["created_at"].endswith("+00:00")
    assert api.get(LISTS)["results"][-1] == made
    assert api.post(LISTS, {**body, "name": "2", "description": None})["description"] == ""


@pytest.mark.conforms("didit", "POST /v3/lists/", "unique name, types: 400 by field", "exact")
def test_list_of_a_name_that_is_taken_is_refused(api: DiditClient) -> None:
    body = {"name": "One", "list_type": "custom", "entry_type": "face"}
    api.post(LISTS, body)
    assert list(api.post(LISTS, body, 400)) == ["name"]
    taken = next(each["name"] for each in api.get(LISTS)["results"] if each["is_system"])
    assert list(api.post(LISTS, {**body, "name": taken}, 400)) == ["name"]


@pytest.mark.conforms("didit", "POST /v3/lists/", "400 by field", "chosen")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "a" * 256}, "name"),
        ({"name": 5}, "name"),
        ({"name": ...}, "name"),
        ({"list_type": "blocklist"}, "list_type"),
        ({"list_type": ...}, "list_type"),
        ({"entry_type": "iris"}, "entry_type"),
        ({"entry_type": ...}, "entry_type"),
        ({"description": []}, "description"),
    ],
)
def test_list_with_a_wrong_field_is_refused(
    api: DiditClient, change: dict[str, Any], field: str
) -> None:
    body = {"name": "One", "list_type": "custom", "entry_type": "face", **change}
    body = {name: value for name, value in body.items() if value is not ...}
    refused = api.post(LISTS, body, 400)
    assert list(refused) == [field]
    assert all(isinstance(said, str) for said in refused[field])
    assert api.get(LISTS)["count"] == 12


@pytest.mark.conforms("didit", "POST /v3/lists/", "broken JSON: 400 with detail", "chosen")
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"name": "\xff"}', b"name=One"])
def test_broken_json_is_refused(api: DiditClient, body: bytes) -> None:
    reply = api.http.post(LISTS, content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, list(reply.json())) == (400, ["detail"])


@pytest.mark.conforms("didit", "every call on lists", "404 with detail for unknown ids", "exact")
def test_unknown_lists_are_404(api: DiditClient) -> None:
    for path in (ENTRIES.format(uuid4()), ENTRIES.format("x")):
        for method, sub in (("GET", ""), ("POST", ""), ("POST", "face-upload/"), ("DELETE", "x/")):
            body = {"value": "a", "image": "YQ=="} if method == "POST" else None
            reply = api.http.request(method, f"{path}{sub}", json=body)
            assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})
    assert api.http.put(LISTS, json={}).status_code == 405
    assert api.http.options(LISTS).status_code == 204


@pytest.mark.conforms("didit", "every call on lists", "403 for no key and for a wrong one", "exact")
@pytest.mark.parametrize("headers", [{}, WRONG])
def test_lists_need_a_key(shared_server: Server, headers: dict[str, str]) -> None:
    for method, path in (
        ("GET", LISTS),
        ("POST", LISTS),
        ("POST", UPLOAD.format(uuid4())),
        ("DELETE", f"{ENTRIES.format(uuid4())}{uuid4()}/"),
        ("GET", "/v3/blocklist/"),
    ):
        reply = httpx.request(method, shared_server.url + path, headers=headers, content=b"{")
        assert reply.status_code == 403
        assert reply.json() == {"detail": "You do not have permission to perform this action."}


@pytest.mark.conforms("didit", "every call on lists", "read, admin and insert are needed", "chosen")
def test_each_call_needs_its_permission(
    make_didit: MakeDidit, shared_place: Place, people: dict[str, bytes]
) -> None:
    calls = {
        "read": ("GET", LISTS, None),
        "admin": ("POST", LISTS, {"name": "a", "list_type": "custom", "entry_type": "key"}),
        "insert": ("POST", UPLOAD.format(uuid4()), {"image": as_base64(people["ada"])}),
    }
    for held in calls:
        api = make_didit(new_tenant(shared_place, permissions=[held]))
        for needed, (method, path, body) in calls.items():
            reply = api.http.request(method, path, json=body)
            assert (reply.status_code == 403) is (needed != held), (held, needed)


@pytest.mark.conforms(
    "didit", "every call on lists", "sandbox keys read and write nothing: 403", "chosen"
)
def test_sandbox_keys_write_nothing(api: DiditClient) -> None:
    api.make_sandbox()
    body = {"name": "a", "list_type": "custom", "entry_type": "key"}
    assert list(api.post(LISTS, body, 403)) == ["detail"]
    assert api.get(LISTS)["count"] == 12


@pytest.mark.conforms("didit", "every call on lists", "scoped to the application", "exact")
def test_tenants_do_not_see_each_others_lists(
    make_didit: MakeDidit, people: dict[str, bytes]
) -> None:
    mine, theirs = make_didit(), make_didit()
    of = mine.face_blocklist()
    made = mine.upload(of, people["ada"])
    assert theirs.face_blocklist() != of
    for method, path in (
        ("GET", ENTRIES.format(of)),
        ("DELETE", f"{ENTRIES.format(of)}{made['uuid']}/"),
        ("DELETE", f"{ENTRIES.format(theirs.face_blocklist())}{made['uuid']}/"),
    ):
        assert theirs.http.request(method, path).status_code == 404
    body = {"value": made["value"]}
    path = ENTRIES.format(theirs.face_blocklist())
    assert list(theirs.post(path, body, 400)) == ["value"]
    assert mine.get(ENTRIES.format(of))["count"] == 1


def test_of_concurrent_lists_of_one_name_one_is_made(api: DiditClient) -> None:
    body = {"name": "One", "list_type": "custom", "entry_type": "key"}
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: api.http.post(LISTS, json=body).status_code, range(8)))
    assert sorted(replies) == [201] + [400] * 7
    assert api.get(LISTS)["count"] == 13
