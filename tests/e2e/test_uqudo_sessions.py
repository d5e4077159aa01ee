"""Face sessions of the uqudo dialect over HTTP, with real photos."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from _photos import variations

from tests.e2e.test_bad_input import BODIES, PICTURES, check_error, six_megabytes
from tests.fixtures.servers import (
    SEARCH,
    Client,
    MakeClient,
    Place,
    Server,
    as_base64,
    new_tenant,
    run_server,
)

pytestmark = pytest.mark.model

FACE = "/api/v1/face"
INFO = "/api/v1/info"
IMAGE = "/api/v1/info/img"
JWKS = "/api/.well-known/jwks.json"
SELFIE = "/uqudo/face-sessions/{sessionId}/selfie"


def begin(client: Client, photo: bytes) -> str:
    reply = client.http.post(FACE, json={"idPhoto": as_base64(photo)})
    assert reply.status_code == 201, reply.text
    return str(reply.json()["sessionId"])


def send(client: Client, session: str, selfie: bytes, **options: Any) -> httpx.Response:
    body = {"selfie": as_base64(selfie), **options}
    return client.http.post(SELFIE.format(sessionId=session), json=body)


def compare(client: Client, session: str, selfie: bytes, **options: Any) -> dict[str, Any]:
    reply = send(client, session, selfie, **options)
    assert reply.status_code == 200, reply.text
    said: dict[str, Any] = reply.json()
    return said


def read(client: Client, result: str, audience: str | None = None) -> dict[str, Any]:
    """Check a result as a caller's backend does: by the published keys."""
    keys = jwt.PyJWKClient(client.url + JWKS)
    options = {"require": ["exp", "iat", "jti", "aud", "iss"], "verify_aud": audience is not None}
    claims: dict[str, Any] = jwt.decode(
        result,
        keys.get_signing_key_from_jwt(result).key,
        algorithms=["RS256"],
        audience=audience,
        options=options,  # type: ignore[arg-type]
    )
    return claims


@pytest.fixture
def selfie(people: dict[str, bytes]) -> bytes:
    return variations(people["ada"], 1, seed=11)[0]


@pytest.mark.conforms("uqudo", f"POST {FACE}", "201 with a UUID v4, JSON", "exact")
def test_a_session_begins_with_a_photo(client: Client, people: dict[str, bytes]) -> None:
    reply = client.http.post(FACE, json={"idPhoto": as_base64(people["ada"]), "other": 1})
    assert reply.status_code == 201
    assert set(reply.json()) == {"sessionId"}
    assert UUID(reply.json()["sessionId"]).version == 4


@pytest.mark.conforms("uqudo", f"POST {FACE}", "201, multipart with a binary part", "exact")
def test_a_session_begins_with_a_part(client: Client, people: dict[str, bytes]) -> None:
    files = {"idPhoto": ("id.jpg", people["ada"], "image/jpeg")}
    reply = client.http.post(FACE, files=files)
    assert reply.status_code == 201
    assert set(reply.json()) == {"sessionId"}
    reply = client.http.post(FACE, files={"other": people["ada"]})
    check_error(reply, FACE, 400, "MISSING_INPUT")


@pytest.fixture
def stored_nothing(client: Client, shared_place: Place) -> Any:
    before = asyncio.run(stored(shared_place))
    yield
    assert asyncio.run(stored(shared_place)) == before


async def stored(place: Place) -> tuple[int, int, int]:
    return (
        await place.count("face_session"),
        await place.count("picture"),
        len(await place.objects()),
    )


@pytest.mark.conforms("uqudo", f"POST {FACE}", "400, 413, 415 by picture, nothing kept", "exact")
@pytest.mark.conforms("uqudo", f"POST {FACE}", "no face is 400 FACE_NOT_FOUND", "chosen")
@pytest.mark.usefixtures("stored_nothing")
@pytest.mark.parametrize("form", [False, True], ids=["JSON", "multipart"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_bad_photo_begins_no_session(
    client: Client, people: dict[str, bytes], name: str, form: bool
) -> None:
    make, status, code = PICTURES[name]
    bad = make(people["ada"])
    sent: dict[str, Any] = (
        {"files": {"idPhoto": bad}} if form else {"json": {"idPhoto": as_base64(bad)}}
    )
    check_error(client.http.post(FACE, **sent), FACE, status, code)


@pytest.mark.conforms("uqudo", f"POST {FACE}", "400 for a bad body", "exact")
@pytest.mark.usefixtures("stored_nothing")
@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_begins_no_session(client: Client, name: str) -> None:
    body, status, code = BODIES[name]
    check_error(client.http.post(FACE, json=body), FACE, status, code)


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "a match: JWS with the documented data", "chosen")
@pytest.mark.conforms("uqudo", f"GET {JWKS}", "RS256 keys that check the JWS", "exact")
def test_a_selfie_that_matches_is_answered_with_a_signed_result(
    shared_place: Place,
    shared_server: Server,
    make_client: MakeClient,
    people: dict[str, bytes],
    selfie: bytes,
) -> None:
    key = new_tenant(shared_place)
    client = make_client(shared_server.url, key)
    session = begin(client, people["ada"])
    said = compare(client, session, selfie, nonce="n-1", minimumMatchLevel=4)
    result = said.pop("result")
    level = said["matchLevel"]
    assert said == {"sessionId": session, "match": True, "matchLevel": level, "attemptsLeft": 0}
    assert level >= 4
    header = jwt.get_unverified_header(result)
    assert header["alg"] == "RS256"
    assert set(header) == {"kid", "alg"}
    assert len(header["kid"]) == 32
    claims = read(client, result, key["client_id"])
    assert claims["exp"] - claims["iat"] == 1800
    assert UUID(claims["jti"]).version == 4
    assert set(claims) == {"iss", "aud", "iat", "exp", "jti", "data"}
    image = claims["data"]["face"]["auditTrailImageId"]
    assert claims["data"] == {
        "nonce": "n-1",
        "sessionId": session,
        "deviceAttestation": None,
        "face": {
            "auditTrailImageId": image,
            "auditTrailImageIdChecksum": f"sha256:{hashlib.sha256(selfie).hexdigest()}",
            "matchLevel": level,
            "match": True,
        },
    }


@pytest.mark.conforms("uqudo", f"GET {INFO}/{{sessionId}}", "200 application/jwt", "exact")
@pytest.mark.conforms("uqudo", f"GET {INFO}", "200 application/jwt by UQ-Session-ID", "exact")
@pytest.mark.conforms("uqudo", f"GET {IMAGE}/{{id}}", "200 with the selfie", "exact")
def test_the_result_and_its_selfie_can_be_read(
    client: Client, people: dict[str, bytes], selfie: bytes
) -> None:
    session = begin(client, people["ada"])
    reply = client.http.get(f"{INFO}/{session}")
    check_error(reply, f"{INFO}/{session}", 404, "NOT_FOUND")
    result = compare(client, session, selfie)["result"]
    claims = read(client, result)
    for name in (session, claims["jti"], session.upper()):
        for reply in (
            client.http.get(f"{INFO}/{name}"),
            client.http.get(INFO, headers={"UQ-Session-ID": name}),
        ):
            assert (reply.status_code, reply.text) == (200, result)
            assert reply.headers["content-type"] == "application/jwt"
    image = client.http.get(f"{IMAGE}/{claims['data']['face']['auditTrailImageId']}")
    assert (image.status_code, image.content) == (200, selfie)
    assert image.headers["content-type"] == "image/jpeg"


@pytest.mark.conforms("uqudo", f"GET {INFO}/{{sessionId}}", "400 for no UUID", "exact")
@pytest.mark.conforms("uqudo", f"GET {INFO}", "400 without the header or for no UUID", "exact")
@pytest.mark.conforms("uqudo", f"DELETE {INFO}/{{sessionId}}", "400 for no UUID", "exact")
@pytest.mark.parametrize("name", ["1", "x" * 36, "6f1f7a526d0b4a0e9a1e0c7c4f5f5b11"])
def test_an_id_of_another_form_is_400(client: Client, selfie: bytes, name: str) -> None:
    for method in ("GET", "DELETE"):
        path = f"{INFO}/{name}"
        check_error(client.http.request(method, path), path, 400, "INVALID_SESSION_ID")
    reply = client.http.get(INFO, headers={"UQ-Session-ID": name})
    check_error(reply, INFO, 400, "INVALID_SESSION_ID")
    check_error(client.http.get(INFO), INFO, 400, "MISSING_INPUT")
    check_error(send(client, name, selfie), SELFIE.format(sessionId=name), 400, "INVALID_SESS")


@pytest.mark.conforms("uqudo", f"GET {INFO}/{{sessionId}}", "404 for an unknown session", "chosen")
@pytest.mark.conforms("uqudo", f"DELETE {INFO}/{{sessionId}}", "404 for an unknown one", "chosen")
@pytest.mark.conforms("uqudo", f"GET {IMAGE}/{{id}}", "404 for an unknown image", "exact")
@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "404 for an unknown session", "chosen")
def test_what_is_unknown_is_404(client: Client, selfie: bytes) -> None:
    for one in calls_on(str(uuid4()), str(uuid4()), selfie):
        reply = one(client)
        check_error(reply, reply.request.url.path, 404, "NOT_FOUND")
    for image in ("5eabf184827ca836b8e28cf0", "x"):
        check_error(client.http.get(f"{IMAGE}/{image}"), f"{IMAGE}/{image}", 404, "NOT_FOUND")


def calls_on(session: str, image: str, selfie: bytes) -> list[Callable[[Client], httpx.Response]]:
    return [
        lambda client: send(client, session, selfie),
        lambda client: client.http.get(f"{INFO}/{session}"),
        lambda client: client.http.get(INFO, headers={"UQ-Session-ID": session}),
        lambda client: client.http.get(f"{IMAGE}/{image}"),
        lambda client: client.http.delete(f"{INFO}/{session}"),
    ]


@pytest.mark.conforms(
    "uqudo", f"GET {INFO}/{{sessionId}}", "another tenant's or key's is unknown", "chosen"
)
def test_a_session_is_of_its_key_alone(
    shared_place: Place,
    shared_server: Server,
    make_client: MakeClient,
    people: dict[str, bytes],
    selfie: bytes,
) -> None:
    name = f"tenant-{uuid4().hex[:8]}"
    mine = make_client(shared_server.url, new_tenant(shared_place, name))
    beside = shared_place.json("key", "create", "--tenant", name)
    same_tenant = make_client(
        shared_server.url,
        {"client_id": beside["client_id"], "client_secret": beside["client_secret"]},
    )
    other_tenant = make_client(shared_server.url, new_tenant(shared_place))
    open_session, done = begin(mine, people["ada"]), begin(mine, people["ada"])
    claims = read(mine, compare(mine, done, selfie)["result"])
    image = claims["data"]["face"]["auditTrailImageId"]
    for stranger in (same_tenant, other_tenant):
        for session in (open_session, done, claims["jti"]):
            for one in calls_on(session, image, selfie):
                assert one(stranger).status_code == 404
    assert mine.http.get(f"{INFO}/{done}").status_code == 200
    assert mine.http.get(f"{IMAGE}/{image}").status_code == 200
    assert compare(mine, open_session, selfie)["match"] is True


@pytest.mark.conforms("uqudo", f"DELETE {INFO}/{{sessionId}}", "204, all of it erased", "exact")
@pytest.mark.parametrize("by", ["sessionId", "jti"])
def test_a_session_can_be_purged(
    client: Client, shared_place: Place, people: dict[str, bytes], selfie: bytes, by: str
) -> None:
    before = asyncio.run(stored(shared_place))
    session = begin(client, people["ada"])
    claims = read(client, compare(client, session, selfie)["result"])
    image = claims["data"]["face"]["auditTrailImageId"]
    assert asyncio.run(stored(shared_place)) == tuple(
        count + more for count, more in zip(before, (1, 2, 2), strict=True)
    )
    path = f"{INFO}/{session if by == 'sessionId' else claims['jti']}"
    reply = client.http.delete(path)
    assert (reply.status_code, reply.content) == (204, b"")
    for gone in (f"{INFO}/{session}", f"{INFO}/{claims['jti']}", f"{IMAGE}/{image}"):
        assert client.http.get(gone).status_code == 404
    assert client.http.delete(path).status_code == 404
    assert asyncio.run(stored(shared_place)) == before


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "a mismatch leaves attempts, then 409", "chosen")
def test_a_session_takes_so_many_attempts(
    client: Client, people: dict[str, bytes], selfie: bytes
) -> None:
    session = begin(client, people["ada"])
    for left in (2, 1, 0):
        said = compare(client, session, people["bea"])
        assert (said["match"], said["attemptsLeft"], said["result"]) == (False, left, None)
        assert said["matchLevel"] <= 1
    path = SELFIE.format(sessionId=session)
    check_error(send(client, session, selfie), path, 409, "SESSION_OVER")
    assert client.http.get(f"{INFO}/{session}").status_code == 404
    session = begin(client, people["ada"])
    assert compare(client, session, people["bea"], maxAttempts=2)["attemptsLeft"] == 1
    assert compare(client, session, people["bea"], maxAttempts=3)["attemptsLeft"] == 0
    assert send(client, session, selfie, maxAttempts=3).status_code == 409


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "409 once there is a result", "chosen")
def test_a_match_ends_the_session(client: Client, people: dict[str, bytes], selfie: bytes) -> None:
    session = begin(client, people["ada"])
    assert compare(client, session, people["bea"])["match"] is False
    assert compare(client, session, selfie)["match"] is True
    assert send(client, session, selfie).status_code == 409


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "data for an incomplete session", "exact")
def test_the_last_attempt_is_signed_when_asked(client: Client, people: dict[str, bytes]) -> None:
    session = begin(client, people["ada"])
    terms = {"returnDataForIncompleteSession": True, "maxAttempts": 2}
    assert compare(client, session, people["bea"], **terms)["result"] is None
    said = compare(client, session, people["bea"], **terms, enableOneToNVerification=True)
    claims = read(client, said["result"])
    assert claims["data"]["face"]["match"] is False
    assert claims["data"]["face"]["matchLevel"] == said["matchLevel"]
    assert "oneToNVerificationId" not in claims["data"]["face"]
    assert client.http.get(f"{INFO}/{session}").text == said["result"]


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "two at once are two attempts", "chosen")
def test_two_selfies_at_once_are_two_attempts(client: Client, people: dict[str, bytes]) -> None:
    session = begin(client, people["ada"])
    replies: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: replies.append(send(client, session, people["bea"])))
        for _ in range(6)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(each.status_code for each in replies) == [200] * 3 + [409] * 3
    left = [each.json()["attemptsLeft"] for each in replies if each.status_code == 200]
    assert sorted(left) == [0, 1, 2]


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "a bad selfie is refused and no attempt", "chosen")
@pytest.mark.parametrize("form", [False, True], ids=["JSON", "multipart"])
def test_a_bad_selfie_is_no_attempt(
    client: Client, people: dict[str, bytes], selfie: bytes, form: bool
) -> None:
    session = begin(client, people["ada"])
    path = SELFIE.format(sessionId=session)
    for make, status, code in PICTURES.values():
        bad = make(people["ada"])
        if form:
            reply = client.http.post(path, files={"selfie": bad}, data={"maxAttempts": "1"})
        else:
            reply = send(client, session, bad, maxAttempts=1)
        check_error(reply, path, status, code)
    assert compare(client, session, selfie, maxAttempts=1)["match"] is True


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "400 for a bad field", "chosen")
@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("minimumMatchLevel", 0, "INVALID_MATCH_LEVEL"),
        ("minimumMatchLevel", 6, "INVALID_MATCH_LEVEL"),
        ("minimumMatchLevel", "x", "INVALID_MATCH_LEVEL"),
        ("maxAttempts", 0, "INVALID_INPUT"),
        ("maxAttempts", 4, "INVALID_INPUT"),
        ("nonce", "n" * 1025, "INVALID_INPUT"),
        ("returnDataForIncompleteSession", "maybe", "INVALID_INPUT"),
        ("insert", True, "INVALID_INPUT: insert needs"),
        ("selfie", "%%", "INVALID_BASE64"),
        ("selfie", "", ""),
    ],
)
def test_a_bad_field_is_refused(
    client: Client,
    people: dict[str, bytes],
    selfie: bytes,
    field: str,
    value: object,
    code: str,
) -> None:
    session = begin(client, people["ada"])
    path = SELFIE.format(sessionId=session)
    body = {"selfie": as_base64(selfie), field: value}
    check_error(client.http.post(path, json=body), path, 400, code)
    parts = {name: str(each).lower() if each is True else str(each) for name, each in body.items()}
    files = {name: (None, text) for name, text in parts.items()}
    check_error(client.http.post(path, files=files), path, 400, code)
    check_error(client.http.post(path, json={field: 1}), path, 400, "")


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "multipart with text fields", "chosen")
def test_a_selfie_may_be_a_part(client: Client, people: dict[str, bytes], selfie: bytes) -> None:
    session = begin(client, people["ada"])
    reply = client.http.post(
        SELFIE.format(sessionId=session),
        files={"selfie": ("me.jpg", selfie, "image/jpeg")},
        data={
            "nonce": "null",
            "minimumMatchLevel": "3",
            "maxAttempts": "1",
            "enableOneToNVerification": "true",
            "insert": "false",
        },
    )
    assert reply.status_code == 200
    data = read(client, reply.json()["result"])["data"]
    assert data["nonce"] == "null"
    assert data["face"]["oneToNVerificationId"] is None
    assert data["face"]["oneToNVerificationMatch"] is False


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "1:N fields when they are asked for", "exact")
def test_a_selfie_that_matches_is_looked_up_when_asked(
    client: Client, people: dict[str, bytes], selfie: bytes
) -> None:
    def face(**options: Any) -> dict[str, Any]:
        result = compare(client, begin(client, people["ada"]), selfie, **options)["result"]
        found: dict[str, Any] = read(client, result)["data"]["face"]
        return found

    assert "oneToNVerificationId" not in face()
    assert face(enableOneToNVerification=True)["oneToNVerificationId"] is None
    assert client.search(selfie)["oneToNVerificationId"] is None
    added = face(enableOneToNVerification=True, insert=True)
    assert added["oneToNVerificationMatch"] is False
    face_id = added["oneToNVerificationId"]
    assert client.search(people["ada"])["oneToNVerificationId"] == face_id
    for insert in (False, True):
        again = face(enableOneToNVerification=True, insert=insert)
        assert again["oneToNVerificationId"] == face_id
        assert again["oneToNVerificationMatch"] is True
    missed = begin(client, people["bea"])
    assert compare(client, missed, selfie, enableOneToNVerification=True, insert=True)["match"] is (
        False
    )


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "1:N fields absent without permission", "exact")
@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "403 for insert without permission", "chosen")
def test_looking_up_needs_its_permission(
    shared_place: Place,
    shared_server: Server,
    make_client: MakeClient,
    people: dict[str, bytes],
    selfie: bytes,
) -> None:
    client = make_client(shared_server.url, new_tenant(shared_place, permissions=["match"]))
    session = begin(client, people["ada"])
    wanted = {"enableOneToNVerification": True}
    reply = send(client, session, selfie, **wanted, insert=True)
    assert (reply.status_code, reply.json()["error"]) == (403, "access_denied")
    face = read(client, compare(client, session, selfie, **wanted)["result"])["data"]["face"]
    assert set(face) == {
        "auditTrailImageId",
        "auditTrailImageIdChecksum",
        "matchLevel",
        "match",
    }
    searcher = make_client(shared_server.url, new_tenant(shared_place, permissions=["search"]))
    reply = searcher.http.post(FACE, json={"idPhoto": as_base64(selfie)})
    assert (reply.status_code, reply.json()["error"]) == (403, "access_denied")
    assert send(searcher, session, selfie).status_code == 403


@pytest.mark.conforms("uqudo", f"POST {FACE}", "401 without a token", "exact")
@pytest.mark.conforms("uqudo", f"GET {INFO}/{{sessionId}}", "401 without a token", "exact")
@pytest.mark.conforms("uqudo", f"GET {INFO}", "401 without a token", "exact")
@pytest.mark.conforms("uqudo", f"DELETE {INFO}/{{sessionId}}", "401 without a token", "exact")
@pytest.mark.conforms("uqudo", f"GET {IMAGE}/{{id}}", "401 without a token", "exact")
def test_every_call_but_the_keys_needs_a_token(shared_server: Server) -> None:
    session = str(uuid4())
    for method, path in (
        ("POST", FACE),
        ("POST", SELFIE.format(sessionId=session)),
        ("GET", f"{INFO}/{session}"),
        ("GET", INFO),
        ("DELETE", f"{INFO}/{session}"),
        ("GET", f"{IMAGE}/{session}"),
    ):
        reply = httpx.request(method, shared_server.url + path, content=b"{")
        assert (reply.status_code, reply.json()["error"]) == (401, "invalid_token")
        assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert httpx.get(shared_server.url + JWKS).status_code == 200


@pytest.mark.conforms("uqudo", f"GET {JWKS}", "200, public halves only", "exact")
@pytest.mark.conforms("uqudo", f"GET {JWKS}", "a rotated key stays published", "chosen")
def test_keys_can_be_rotated_while_a_server_runs(
    client: Client, shared_place: Place, people: dict[str, bytes], selfie: bytes
) -> None:
    before = compare(client, begin(client, people["ada"]), selfie)["result"]
    old = jwt.get_unverified_header(before)["kid"]
    rotated = shared_place.json("key", "rotate-signing")
    assert rotated[0]["published_until"] is None
    assert rotated[1]["kid"] == old
    assert rotated[1]["published_until"] is not None
    after = compare(client, begin(client, people["ada"]), selfie)["result"]
    assert jwt.get_unverified_header(after)["kid"] == rotated[0]["kid"] != old
    for result in (before, after):
        assert read(client, result)["data"]["face"]["match"] is True
    reply = httpx.get(client.url + JWKS)
    assert reply.headers["content-type"] == "application/json"
    assert [each["kid"] for each in reply.json()["keys"]] == [each["kid"] for each in rotated]
    for each in reply.json()["keys"]:
        assert set(each) == {"kid", "n", "e", "kty", "use", "alg"}
        assert (each["kty"], each["use"], each["alg"]) == ("RSA", "sig", "RS256")
    assert "rotated" not in shared_place.command("key", "rotate-signing").stderr


def test_keys_of_every_kind_are_made(
    shared_place: Place, shared_server: Server, make_client: MakeClient
) -> None:
    name = f"tenant-{uuid4().hex[:8]}"
    new_tenant(shared_place, name)
    made = shared_place.json("key", "create", "--tenant", name, "--uuid", "--sandbox")
    assert UUID(made["client_secret"]).version == 4
    assert made["sandbox"] is True
    plain = shared_place.json("key", "create", "--tenant", name)
    assert len(plain["client_secret"]) == 64
    assert plain["sandbox"] is False
    for each in (made, plain):
        credentials = {name: each[name] for name in ("client_id", "client_secret")}
        assert make_client(shared_server.url, credentials).http.get(INFO).status_code == 400


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_replicas_share_sessions_and_keys(
    shared_place: Place,
    shared_server: Server,
    make_client: MakeClient,
    people: dict[str, bytes],
    selfie: bytes,
) -> None:
    key = new_tenant(shared_place)
    here = make_client(shared_server.url, key)
    with run_server(shared_place) as other:
        there = make_client(other.url, key)
        session = begin(here, people["ada"])
        result = compare(there, session, selfie)["result"]
        assert read(here, result)["data"]["sessionId"] == session
        assert here.http.get(f"{INFO}/{session}").text == result


@pytest.mark.conforms("uqudo", f"POST {FACE}", "a body over 15 MB is 413", "chosen")
def test_a_large_body_is_413(client: Client, people: dict[str, bytes]) -> None:
    check_error(client.http.post(FACE, content=b" " * 16_000_000), FACE, 413, "BODY_TOO_LARGE")
    files = {f"other{n}": six_megabytes() for n in range(3)}
    reply = client.http.post(FACE, files={**files, "idPhoto": people["ada"]})
    check_error(reply, FACE, 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", FACE, 405), ("PUT", f"{INFO}/{UUID(int=404)}", 405), ("GET", "/uqudo/x", 404)],
)
def test_unknown_routes_have_the_dialects_form(
    client: Client, method: str, path: str, status: int
) -> None:
    reply = client.http.request(method, path)
    check_error(reply, path, status, "")


def test_a_session_leaves_no_face_record(
    client: Client, people: dict[str, bytes], selfie: bytes
) -> None:
    compare(client, begin(client, people["ada"]), selfie)
    reply = client.http.post(SEARCH, json={"idPhoto": as_base64(people["ada"])})
    assert reply.json()["oneToNVerificationMatch"] is False
