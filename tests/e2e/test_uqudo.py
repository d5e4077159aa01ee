"""The uqudo dialect over HTTP, with real photos."""

from __future__ import annotations

import base64
import json
import re
from uuid import UUID, uuid4

import cv2
import httpx
import numpy as np
import pytest
import yaml
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
    run_server,
)
from tests.fixtures.servers import new_tenant as make_tenant

pytestmark = pytest.mark.model

DELETED = SEARCH + "/{oneToNVerificationId}"
NOBODY = {"oneToNVerificationId": None, "oneToNVerificationMatch": False}


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "nobody found: a null id and false", "chosen")
def test_search_of_an_empty_gallery_finds_nobody(client: Client, people: dict[str, bytes]) -> None:
    assert client.search(people["ada"]) == NOBODY


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "found: the stored id and true", "exact")
@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "insert: a new id and false, then found", "chosen")
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


@pytest.mark.conforms("uqudo", f"POST {INSERT}", "each call makes a new id", "chosen")
def test_insert_always_adds(client: Client, people: dict[str, bytes]) -> None:
    ids = {client.insert(people["cas"]) for _ in range(3)}
    assert len(ids) == 3
    assert client.search(people["cas"])["oneToNVerificationId"] in ids


@pytest.mark.conforms("uqudo", f"POST {INSERT}", "idPhoto, selfie or image", "chosen")
@pytest.mark.parametrize("name", ["idPhoto", "selfie", "image"])
def test_insert_accepts_the_field_under_each_name(
    client: Client, people: dict[str, bytes], name: str
) -> None:
    reply = client.http.post(INSERT, json={name: as_base64(people["dan"]), "unknown": 1})
    assert reply.status_code == 200
    assert reply.json()["oneToNVerificationMatch"] is False


@pytest.mark.conforms("uqudo", f"DELETE {DELETED}", "204; the features keep the id", "exact")
@pytest.mark.conforms("uqudo", f"DELETE {DELETED}", "204 again for the same id", "chosen")
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


@pytest.mark.conforms("uqudo", f"DELETE {DELETED}", "404 for an unknown id", "exact")
@pytest.mark.conforms("uqudo", f"DELETE {DELETED}", "404 for an id that is no UUID", "chosen")
@pytest.mark.parametrize("unknown", [str(UUID(int=404)), "not-a-uuid", "1"])
def test_delete_of_an_unknown_id_is_404(client: Client, unknown: str) -> None:
    reply = client.http.delete(f"{SEARCH}/{unknown}")
    assert reply.status_code == 404
    assert reply.json()["message"].startswith("NOT_FOUND")


@pytest.mark.conforms("uqudo", f"POST {MATCH}", "match and matchLevel", "exact")
@pytest.mark.conforms("uqudo", f"POST {MATCH}", "low similarity is 200 with match false", "chosen")
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


@pytest.mark.conforms("uqudo", f"POST {MATCH}", "minimumMatchLevel 1 to 5", "exact")
@pytest.mark.conforms("uqudo", f"POST {MATCH}", "400 for another level", "chosen")
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


@pytest.mark.conforms("uqudo", f"POST {MATCH}", "multipart with the same names", "chosen")
def test_match_reads_multipart_too(client: Client, people: dict[str, bytes]) -> None:
    files = {"sourceImage": people["hal"], "targetImage": people["hal"]}
    reply = client.http.post(MATCH, files=files, data={"minimumMatchLevel": "5"})
    assert (reply.status_code, reply.json()) == (200, {"match": True, "matchLevel": 5})
    reply = client.http.post(MATCH, files={"sourceImage": people["hal"]})
    assert (reply.status_code, reply.json()["message"][:13]) == (400, "MISSING_INPUT")


@pytest.mark.conforms("uqudo", f"POST {MATCH}", "neither picture is kept", "chosen")
def test_match_stores_nothing(client: Client, people: dict[str, bytes]) -> None:
    photo = as_base64(people["ian"])
    assert (
        client.http.post(MATCH, json={"sourceImage": photo, "targetImage": photo}).status_code
        == 200
    )
    assert client.search(people["ian"]) == NOBODY


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "the caller's tenant only", "exact")
@pytest.mark.conforms("uqudo", f"DELETE {DELETED}", "404 for another tenant's id", "chosen")
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


@pytest.mark.conforms("uqudo", f"POST {TOKEN}", "200 with the documented fields", "exact")
@pytest.mark.conforms("uqudo", f"POST {TOKEN}", "HTTP Basic; scope is ignored", "chosen")
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


@pytest.mark.conforms("uqudo", f"POST {TOKEN}", "401 for a wrong id or secret", "exact")
@pytest.mark.conforms("uqudo", f"POST {TOKEN}", "bodies of RFC 6749", "chosen")
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


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "401 without a valid token", "exact")
@pytest.mark.conforms("uqudo", f"POST {INSERT}", "401 without a valid token", "exact")
@pytest.mark.conforms("uqudo", f"POST {MATCH}", "401 without a valid token", "exact")
@pytest.mark.conforms("uqudo", f"DELETE {DELETED}", "401 without a valid token", "exact")
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


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "403 without the permission", "exact")
@pytest.mark.conforms("uqudo", f"POST {INSERT}", "403 without the permission", "exact")
@pytest.mark.conforms("uqudo", f"POST {MATCH}", "403 without the permission", "exact")
@pytest.mark.conforms("uqudo", f"DELETE {DELETED}", "403 without the permission", "exact")
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


@pytest.mark.conforms("uqudo", f"POST {MATCH}", "level 3 is the default", "exact")
def test_match_asks_for_level_3_by_default(client: Client, people: dict[str, bytes]) -> None:
    for other in (*variations(people["fay"], 6, seed=5), people["gus"], people["hal"]):
        body = {"sourceImage": as_base64(people["fay"]), "targetImage": as_base64(other)}
        reply = client.http.post(MATCH, json=body).json()
        assert set(reply) == {"match", "matchLevel"}
        assert reply["match"] is (reply["matchLevel"] >= 3)
        assert client.http.post(MATCH, json={**body, "minimumMatchLevel": 3}).json() == reply


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "insert is false by default", "exact")
def test_search_inserts_only_when_asked(client: Client, people: dict[str, bytes]) -> None:
    for _ in range(2):
        reply = client.http.post(SEARCH, json={"idPhoto": as_base64(people["ada"])})
        assert (reply.status_code, reply.json()) == (200, NOBODY)


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "the best of several candidates", "chosen")
def test_search_answers_with_the_best_candidate(client: Client, people: dict[str, bytes]) -> None:
    for other in variations(people["ian"], 3, seed=8):
        client.insert(other)
    same = client.insert(people["ian"])
    assert client.search(people["ian"])["oneToNVerificationId"] == same


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "of several faces the largest", "chosen")
@pytest.mark.conforms("uqudo", f"POST {MATCH}", "of several faces the largest", "chosen")
def test_the_largest_face_of_a_picture_counts(client: Client, people: dict[str, bytes]) -> None:
    large, small = (pixels_of(people[name]) for name in ("ada", "bea"))
    small = cv2.resize(small, (150, 150), interpolation=cv2.INTER_AREA)
    both = np.full((250, 420, 3), 128, np.uint8)
    both[:, :250], both[50:200, 260:410] = large, small
    group = cv2.imencode(".png", both)[1].tobytes()
    ids = {name: client.insert(people[name]) for name in ("ada", "bea")}
    assert client.search(group)["oneToNVerificationId"] == ids["ada"]
    body = {"sourceImage": as_base64(group), "targetImage": as_base64(people["ada"])}
    assert client.http.post(MATCH, json=body).json()["match"] is True


@pytest.mark.conforms("uqudo", f"POST {MATCH}", "a printed portrait with a face of 40 px", "chosen")
def test_a_small_portrait_can_be_matched(client: Client, people: dict[str, bytes]) -> None:
    portrait = cv2.resize(pixels_of(people["ada"]), (84, 84), interpolation=cv2.INTER_AREA)
    card = np.full((400, 640, 3), 225, np.uint8)
    card[60:144, 40:124] = portrait
    body = {
        "sourceImage": as_base64(cv2.imencode(".png", card)[1].tobytes()),
        "targetImage": as_base64(people["ada"]),
    }
    reply = client.http.post(MATCH, json=body)
    assert (reply.status_code, reply.json()["match"]) == (200, True)


def pixels_of(photo: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "base64 in other habits", "chosen")
def test_base64_may_be_written_in_other_habits(client: Client, people: dict[str, bytes]) -> None:
    text = as_base64(people["cas"])
    face_id = client.insert(people["cas"])
    for other in (
        "data:image/jpeg;base64," + text,
        base64.urlsafe_b64encode(people["cas"]).decode(),
        text.rstrip("="),
        "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
    ):
        reply = client.http.post(SEARCH, json={"idPhoto": other})
        assert reply.json()["oneToNVerificationId"] == face_id


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "PNG as well as JPEG", "exact")
def test_png_is_as_good_as_jpeg(client: Client, people: dict[str, bytes]) -> None:
    png = cv2.imencode(".png", pixels_of(people["dan"]))[1].tobytes()
    face_id = client.insert(png)
    assert client.search(people["dan"])["oneToNVerificationId"] == face_id


@pytest.mark.conforms("uqudo", "GET /doc/v3/id-api/face", "our document as JSON", "chosen")
@pytest.mark.conforms("uqudo", "GET /doc/v3/id-api.yaml/face", "our document as YAML", "chosen")
def test_the_dialects_own_document_is_at_the_vendors_addresses(shared_server: Server) -> None:
    reply = httpx.get(shared_server.url + "/doc/v3/id-api/face")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    document = reply.json()
    assert set(document["paths"]) == {
        TOKEN,
        MATCH,
        SEARCH,
        INSERT,
        SEARCH + "/{verification_id}",
        "/api/v1/face",
        "/api/v1/info",
        "/api/v1/info/{session_id}",
        "/api/v1/info/img/{image_id}",
        "/api/.well-known/jwks.json",
        "/uqudo/face-sessions/{session_id}/selfie",
    }
    for methods in document["paths"].values():
        assert all(each["tags"] == ["uqudo"] for each in methods.values())
    named = set(re.findall(r"#/components/schemas/([^\"]+)", reply.text))
    assert set(document["components"]["schemas"]) == named
    whole = httpx.get(shared_server.url + "/schema/openapi.json").json()
    assert document["paths"].items() <= whole["paths"].items()
    reply = httpx.get(shared_server.url + "/doc/v3/id-api.yaml/face")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/yaml")
    assert yaml.safe_load(reply.text) == document


@pytest.mark.conforms("uqudo", "every call", "429 past an operator's limit", "chosen")
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_calls_past_an_operators_limit_are_429(
    shared_place: Place, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    with run_server(shared_place, ONETON_UQUDO_CALLS_A_MINUTE="3") as server:
        key, other = (make_client(server.url, make_tenant(shared_place)) for _ in range(2))
        for _ in range(3):
            assert key.search(people["ada"]) == NOBODY
        reply = key.http.post(MATCH, content=b"{")
        assert (reply.status_code, reply.json()["message"][:12]) == (429, "RATE_LIMITED")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert other.search(people["ada"]) == NOBODY
