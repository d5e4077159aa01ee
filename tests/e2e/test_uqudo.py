"""The uqudo dialect over HTTP, with real photos."""

from __future__ import annotations

import base64
import json
from uuid import UUID, uuid4

import httpx
import pytest
from _photos import variations

from tests.fixtures.servers import (
    INSERT,
    MATCH,
    SEARCH,
    TOKEN,
    Client,
    MakeClient,
    Place,
    Server,
    as_base64,
)
from tests.fixtures.servers import new_tenant as make_tenant

pytestmark = pytest.mark.model

NOBODY = {"oneToNVerificationId": None, "oneToNVerificationMatch": False}


def test_search_of_an_empty_gallery_finds_nobody(client: Client, people: dict[str, bytes]) -> None:
    assert client.search(people["ada"]) == NOBODY


def test_search_with_insert_adds_once_and_then_finds(
    client: Client, people: dict[str, bytes]
) -> None:
    added = client.search(people["ada"], insert=True)
    assert added["oneToNVerificationMatch"] is False
    face_id = added["oneToNVerificationId"]
    assert UUID(face_id).version == 7
    for other in variations(people["ada"], 3, seed=1):
        found = {"oneToNVerificationId": face_id, "oneToNVerificationMatch": True}
        assert client.search(other) == found
        assert client.search(other, insert=True) == found
    assert client.search(people["bea"]) == NOBODY


def test_insert_always_adds(client: Client, people: dict[str, bytes]) -> None:
    ids = {client.insert(people["cas"]) for _ in range(3)}
    assert len(ids) == 3
    assert client.search(people["cas"])["oneToNVerificationId"] in ids


@pytest.mark.parametrize("name", ["idPhoto", "selfie", "image"])
def test_insert_accepts_the_field_under_each_name(
    client: Client, people: dict[str, bytes], name: str
) -> None:
    reply = client.http.post(INSERT, json={name: as_base64(people["dan"]), "unknown": 1})
    assert reply.status_code == 200
    assert reply.json()["oneToNVerificationMatch"] is False


def test_delete_erases_the_photo_and_the_id_keeps_matching(
    client: Client, people: dict[str, bytes]
) -> None:
    face_id = client.insert(people["eve"])
    assert client.erase(face_id) == 204
    assert client.erase(face_id) == 204
    other = variations(people["eve"], 1, seed=2)[0]
    assert client.search(other) == {
        "oneToNVerificationId": face_id,
        "oneToNVerificationMatch": True,
    }


@pytest.mark.parametrize("unknown", [str(uuid4()), "not-a-uuid", "1"])
def test_delete_of_an_unknown_id_is_404(client: Client, unknown: str) -> None:
    reply = client.http.delete(f"{SEARCH}/{unknown}")
    assert reply.status_code == 404
    assert reply.json()["message"].startswith("NOT_FOUND")


def test_match_says_level_5_for_one_person_and_0_or_1_for_two(
    client: Client, people: dict[str, bytes]
) -> None:
    other = variations(people["fay"], 1, seed=3)[0]
    body = {"sourceImage": as_base64(people["fay"]), "targetImage": as_base64(other)}
    assert client.http.post(MATCH, json=body).json() == {"match": True, "matchLevel": 5}
    body["targetImage"] = as_base64(people["gus"])
    reply = client.http.post(MATCH, json=body).json()
    assert reply["match"] is False
    assert reply["matchLevel"] <= 1


def test_match_compares_with_the_level_that_is_asked(
    client: Client, people: dict[str, bytes]
) -> None:
    body = {"sourceImage": as_base64(people["fay"]), "targetImage": as_base64(people["fay"])}
    for level in (1, 5):
        reply = client.http.post(MATCH, json={**body, "minimumMatchLevel": level})
        assert reply.json()["match"] is True
    for level in (0, 6, -1):
        reply = client.http.post(MATCH, json={**body, "minimumMatchLevel": level})
        assert reply.status_code == 400
        assert reply.json()["message"].startswith("INVALID_MATCH_LEVEL")


def test_match_reads_multipart_too(client: Client, people: dict[str, bytes]) -> None:
    files = {"sourceImage": people["hal"], "targetImage": people["hal"]}
    reply = client.http.post(MATCH, files=files, data={"minimumMatchLevel": "5"})
    assert (reply.status_code, reply.json()) == (200, {"match": True, "matchLevel": 5})
    reply = client.http.post(MATCH, files={"sourceImage": people["hal"]})
    assert (reply.status_code, reply.json()["message"][:13]) == (400, "MISSING_INPUT")


def test_match_stores_nothing(client: Client, people: dict[str, bytes]) -> None:
    photo = as_base64(people["ian"])
    assert (
        client.http.post(MATCH, json={"sourceImage": photo, "targetImage": photo}).status_code
        == 200
    )
    assert client.search(people["ian"]) == NOBODY


def test_two_tenants_never_see_each_others_faces(
    client: Client,
    shared_place: Place,
    shared_server: Server,
    make_client: MakeClient,
    people: dict[str, bytes],
) -> None:
    other = make_client(shared_server.url, make_tenant(shared_place))
    mine, theirs = client.insert(people["jon"]), other.insert(people["jon"])
    assert client.search(people["jon"])["oneToNVerificationId"] == mine
    assert other.search(people["jon"])["oneToNVerificationId"] == theirs
    assert client.erase(theirs) == 404
    assert other.erase(mine) == 404
    fresh = make_client(shared_server.url, make_tenant(shared_place))
    assert fresh.search(people["jon"]) == NOBODY
    assert fresh.search(people["jon"], insert=True)["oneToNVerificationId"] not in (mine, theirs)


def test_token_is_given_for_form_fields_and_for_basic(
    shared_place: Place, shared_server: Server
) -> None:
    key = make_tenant(shared_place)
    form = {"grant_type": "client_credentials"}
    url = shared_server.url + TOKEN
    for reply in (
        httpx.post(url, data={**form, **key, "scope": "anything"}),
        httpx.post(url, data=form, auth=(key["client_id"], key["client_secret"])),
    ):
        assert reply.status_code == 200
        body = reply.json()
        assert (body["token_type"], body["expires_in"]) == ("bearer", 1800)
        assert UUID(body["jti"])
        assert "search" in body["scope"].split()
        assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": "password", "client_id": "a", "client_secret": "b"}, 400, "unsupported"),
        ({"grant_type": "client_credentials", "client_id": "a"}, 400, "invalid_request"),
        (
            {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"},
            401,
            "invalid_client",
        ),
    ],
)
def test_token_refusals_have_the_form_of_oauth(
    shared_server: Server, fields: dict[str, str], status: int, error: str
) -> None:
    reply = httpx.post(shared_server.url + TOKEN, data=fields)
    assert reply.status_code == status
    assert reply.json()["error"].startswith(error)
    assert reply.json()["error_description"]


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer a.b.c", "Basic YTpi", "token"])
def test_a_call_without_a_valid_token_is_401_whatever_its_body(
    shared_server: Server, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (
        ("POST", SEARCH),
        ("POST", INSERT),
        ("POST", MATCH),
        ("DELETE", SEARCH + "/x"),
    ):
        reply = httpx.request(method, shared_server.url + path, headers=headers, content=b"{")
        assert reply.status_code == 401
        assert reply.json()["error"] == "invalid_token"
        assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("allowed", ["match", "search", "insert", "erase"])
def test_each_call_needs_its_own_permission(
    shared_place: Place,
    shared_server: Server,
    make_client: MakeClient,
    people: dict[str, bytes],
    allowed: str,
) -> None:
    client = make_client(shared_server.url, make_tenant(shared_place, permissions=[allowed]))
    photo = as_base64(people["ada"])
    calls = {
        "match": ("POST", MATCH, {"sourceImage": photo, "targetImage": photo}),
        "search": ("POST", SEARCH, {"idPhoto": photo}),
        "insert": ("POST", INSERT, {"idPhoto": photo}),
        "erase": ("DELETE", f"{SEARCH}/{uuid4()}", None),
    }
    for needed, (method, path, body) in calls.items():
        reply = client.http.request(method, path, json=body)
        if needed == allowed:
            assert reply.status_code in (200, 404)
        else:
            assert reply.status_code == 403
            assert reply.json()["error"] == "access_denied"
    reply = client.http.post(SEARCH, json={"idPhoto": photo, "insert": True})
    assert reply.status_code == 403


def test_every_reply_carries_a_request_id(client: Client) -> None:
    reply = client.http.get("/livez", headers={"X-Request-ID": "mine-1"})
    assert reply.headers["x-request-id"] == "mine-1"
    reply = client.http.get("/livez", headers={"X-Request-ID": "no\tgood" * 30})
    assert len(reply.headers["x-request-id"]) == 32


def test_logs_name_request_tenant_and_timings_but_no_picture_key_or_token(
    client: Client, shared_server: Server, people: dict[str, bytes]
) -> None:
    photo = as_base64(people["ada"])
    client.http.post(
        SEARCH, json={"idPhoto": photo, "insert": True}, headers={"X-Request-ID": "logged-1"}
    )
    text = shared_server.log.read_text()
    (line,) = [line for line in text.splitlines() if "logged-1" in line]
    logged = json.loads(line)
    assert UUID(logged["tenant"])
    assert logged["status"] == 200
    assert logged["took_ms"] > sum(logged["stages_ms"][name] for name in ("detect", "embed"))
    token = client.http.headers["Authorization"].split()[1]
    for secret in (photo[:60], token, base64.b64encode(people["ada"])[40:80].decode()):
        assert secret not in text
