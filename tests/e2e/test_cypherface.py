"""CypherFace's dialect over HTTP: keys, tokens, users."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from oneton.records.database import Database
from oneton.records.tenants import Keys, Tenants
from oneton.verbs.authenticate import Authenticate, CreateKey
from oneton.verbs.merchant_tokens import MerchantTokens
from tests.fixtures.merchants import Merchant, NewMerchant, new_merchant, refused
from tests.fixtures.servers import Place, Server, run_server

pytestmark = pytest.mark.model

KEY = "/merchant-api-key/"
TOKEN = "/api/access-token/"
REFRESH = "/api/refresh-token/"
REGISTER = "/api/user/register/"
LINK = "/api/upload/generate-url/"
MATCH = "/api/face/match/"
OPERATOR = "an operator's secret 1"
UNKNOWN_USER = "6789fb11e94adea011383478"
BEHIND_THE_TOKEN = [
    ("POST", REGISTER),
    ("DELETE", f"/api/user/{UNKNOWN_USER}/"),
    ("POST", LINK),
    ("POST", MATCH),
    ("POST", "/api/face-match/"),
    ("POST", "/start-liveness-session/"),
    ("POST", "/api/face-liveness/start/"),
    ("POST", "/upload-frame/"),
    ("POST", "/match-liveness-face/"),
    ("POST", "/api/match-liveness-face/"),
    ("POST", "/check-liveness/"),
]


def conforms(call: str, what: str, how: str = "exact") -> pytest.MarkDecorator:
    return pytest.mark.conforms("cypherface", call, what, how)


@pytest.fixture
def new(shared_place: Place, shared_server: Server) -> NewMerchant:
    return new_merchant(shared_place)


@pytest.fixture
def merchant(shared_server: Server, new: NewMerchant) -> Iterator[Merchant]:
    made = Merchant(shared_server.url, new)
    with made:
        yield made


# Keys and tokens


@conforms(f"POST {TOKEN}", "merchantId and x-api-key, no body: a token under both names", "chosen")
@conforms(f"POST {TOKEN}", "HS256, the four claims, life 172800 s")
def test_a_token_is_given_for_merchant_and_key(shared_server: Server, new: NewMerchant) -> None:
    assert UUID(new.api_key).version == 4
    for path in (TOKEN, TOKEN.rstrip("/")):
        reply = httpx.post(shared_server.url + path, headers=new.headers)
        assert reply.status_code == 200
        said = reply.json()
        assert set(said) == {"success", "accessToken", "token", "expiresIn"}
        assert (said["success"], said["expiresIn"]) == (True, 172_800)
        assert said["token"] == said["accessToken"]
        assert jwt.get_unverified_header(said["token"])["alg"] == "HS256"
        claims = jwt.decode(said["token"], options={"verify_signature": False})
        assert set(claims) == {"cypherFaceId", "merchantId", "xApiKey", "iat", "exp"}
        assert claims["cypherFaceId"] == claims["merchantId"] == new.merchant_id
        assert claims["exp"] - claims["iat"] == 172_800
        assert UUID(claims["xApiKey"]) == new.key_id
        assert new.api_key not in str(claims)


@conforms(f"POST {TOKEN}", "a wrong or missing header, or two of different merchants: 401")
def test_merchant_and_key_must_belong_together(
    shared_place: Place, shared_server: Server, new: NewMerchant
) -> None:
    other = new_merchant(shared_place)
    for headers in (
        {},
        {"merchantId": new.merchant_id},
        {"x-api-key": new.api_key},
        {"merchantId": new.merchant_id, "x-api-key": str(uuid4())},
        {"merchantId": UNKNOWN_USER, "x-api-key": new.api_key},
        {"merchantId": other.merchant_id, "x-api-key": new.api_key},
        {"merchantId": new.merchant_id, "x-api-key": "' or 1=1"},
    ):
        refused(httpx.post(shared_server.url + TOKEN, headers=headers), 401, "UNAUTHORIZED")


@conforms(f"POST {TOKEN}", "a key for calls that keep nothing: 403", "chosen")
def test_a_sandbox_key_gets_no_token(shared_place: Place, shared_server: Server) -> None:
    new = new_merchant(shared_place, sandbox=True)
    refused(httpx.post(shared_server.url + TOKEN, headers=new.headers), 403, "FORBIDDEN")


@conforms("every call", "authorization with a bare token, or after Bearer; a cookie is ignored")
def test_the_token_is_read_bare_and_after_bearer(merchant: Merchant) -> None:
    token = merchant.http.headers["authorization"]
    for header in (token, f"Bearer {token}", f"bearer {token}"):
        reply = merchant.http.post(
            REGISTER, json={}, headers={"authorization": header, "cookie": "connect.sid=s%3Ax"}
        )
        assert reply.status_code == 201


@conforms("every call", "no token, or one that is not ours: 401 UNAUTHORIZED, whatever the body")
@pytest.mark.parametrize(("method", "path"), BEHIND_THE_TOKEN)
def test_a_call_without_a_token_is_401(
    shared_server: Server, merchant: Merchant, method: str, path: str
) -> None:
    claims = jwt.decode(merchant.http.headers["authorization"], options={"verify_signature": False})
    forged = jwt.encode(claims, "x" * 32, algorithm="HS256")
    unsigned = jwt.encode(claims, "", algorithm="none")
    for header in (None, "", "Bearer", "Bearer a.b.c", "token", forged, unsigned, "\xe9\xff"):
        headers = {} if header is None else {b"authorization": header.encode("latin-1")}
        reply = httpx.request(method, shared_server.url + path, headers=headers, content=b"{")
        refused(reply, 401, "UNAUTHORIZED")


@conforms("every call", "a token ends with its key", "chosen")
def test_a_revoked_key_ends_its_tokens(
    shared_place: Place, merchant: Merchant, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    url = merchant.link(user, "upload")
    asyncio.run(_revoke(shared_place, merchant.new))
    time.sleep(1.1)  # what Postgres said of a key holds for a second
    refused(merchant.post(REGISTER), 401, "UNAUTHORIZED")
    refused(merchant.http.post(REFRESH), 401, "UNAUTHORIZED")
    refused(merchant.http.post(TOKEN, headers=merchant.new.headers), 401, "UNAUTHORIZED")
    reply = httpx.put(url, content=people["ada"], headers={"Content-Type": "image/jpeg"})
    refused(reply, 403, "LINK_INVALID")


async def _revoke(place: Place, new: NewMerchant) -> None:
    assert place.dsns is not None
    database = await Database.connect(place.dsns.app, size=2)
    try:
        await Keys(database).revoke(new.tenant_id, new.key_id)
    finally:
        await database.close()


@conforms(f"POST {REFRESH}", "a valid token is exchanged for a new one", "chosen")
def test_a_token_is_renewed(merchant: Merchant) -> None:
    reply = merchant.http.post(REFRESH)
    assert reply.status_code == 200
    assert set(reply.json()) == {"success", "accessToken", "token", "expiresIn"}
    merchant.http.headers["authorization"] = reply.json()["token"]
    merchant.register()


@conforms(f"POST {REFRESH}", "an expired token is exchanged too, up to 30 days later; then 401")
@conforms("every call", "an expired token: 401")
def test_an_expired_token_is_renewed_for_thirty_days(
    shared_place: Place, shared_server: Server, merchant: Merchant
) -> None:
    def token(age_s: float) -> str:
        return asyncio.run(_token_of_age(shared_place, merchant.new, age_s))

    life_s, days_30 = 172_800, 30 * 86_400
    fresh, expired = token(life_s - 60), token(life_s + 60)
    late, too_late = token(life_s + days_30 - 60), token(life_s + days_30 + 60)
    for text, status in ((fresh, 201), (expired, 401), (late, 401), (too_late, 401)):
        headers = {"authorization": text}
        assert merchant.http.post(REGISTER, json={}, headers=headers).status_code == status
    for text, status in ((fresh, 200), (expired, 200), (late, 200), (too_late, 401)):
        reply = merchant.http.post(REFRESH, headers={"authorization": f"Bearer {text}"})
        assert reply.status_code == status
    refused(reply, 401, "UNAUTHORIZED")
    bad = expired[:-3] + ("abc" if expired[-3:] != "abc" else "abd")
    refused(merchant.http.post(REFRESH, headers={"authorization": bad}), 401, "UNAUTHORIZED")


async def _token_of_age(place: Place, new: NewMerchant, age_s: float) -> str:
    """A token as the server would have issued it so long ago."""
    assert place.dsns is not None
    database = await Database.connect(place.dsns.app, size=2)
    try:
        keys = Keys(database)
        secret = await keys.signing_secret("cypherface", b"never used")
        tokens = MerchantTokens(
            Authenticate(keys, b""),
            Tenants(database),
            CreateKey(keys),
            secret,
            None,
            clock=lambda: time.time() - age_s,
        )
        return await tokens.issue(new.merchant_id, new.api_key)
    finally:
        await database.close()


@conforms(f"POST {KEY}", "without an operator's secret in the settings: 403", "chosen")
def test_keys_are_not_made_without_an_operator(shared_server: Server, new: NewMerchant) -> None:
    headers = {"merchantId": new.merchant_id, "authorization": OPERATOR}
    refused(httpx.post(shared_server.url + KEY, headers=headers), 403, "FORBIDDEN")


@pytest.fixture(scope="module")
def operated(shared_place: Place, shared_server: Server) -> Iterator[Server]:
    """A server with an operator's secret, and a limit."""
    with run_server(
        shared_place,
        ONETON_CYPHERFACE_OPERATOR_SECRET=OPERATOR,
        ONETON_CYPHERFACE_CALLS_A_MINUTE="5",
    ) as server:
        yield server


@conforms(f"POST {KEY}", "operator's secret and merchantId: 201 with a new key", "chosen")
def test_an_operator_makes_a_key(operated: Server, new: NewMerchant) -> None:
    url = operated.url + KEY
    for headers, status, code in (
        ({"merchantId": new.merchant_id}, 401, "UNAUTHORIZED"),
        ({"merchantId": new.merchant_id, "authorization": OPERATOR + "x"}, 401, "UNAUTHORIZED"),
        ({"merchantId": UNKNOWN_USER, "authorization": OPERATOR}, 404, "NOT_FOUND"),
    ):
        refused(httpx.post(url, headers=headers), status, code)
    headers = {"merchantId": new.merchant_id, "authorization": OPERATOR}
    reply = httpx.post(url, headers=headers)
    assert reply.status_code == 201
    said = reply.json()
    assert set(said) == {"success", "merchantId", "apiKey"}
    assert (said["success"], said["merchantId"]) == (True, new.merchant_id)
    assert UUID(said["apiKey"])
    for key in (said["apiKey"], new.api_key):
        headers = {"merchantId": new.merchant_id, "x-api-key": key}
        assert httpx.post(operated.url + TOKEN, headers=headers).status_code == 200


@conforms("every call", "an operator's limit: 429 with the error body", "chosen")
def test_an_operators_limit_is_kept(operated: Server, new: NewMerchant) -> None:
    merchant = Merchant(operated.url, new)
    with merchant:
        for _ in range(5):
            merchant.register()
        reply = merchant.post(REGISTER)
    refused(reply, 429, "RATE_LIMITED")
    assert 1 <= int(reply.headers["retry-after"]) <= 60


# Users


@conforms(f"POST {REGISTER}", "201 with a userId of 24 hexadecimal digits", "chosen")
def test_a_user_is_registered(merchant: Merchant) -> None:
    fields = {"name": "A", "email": "a@example.com", "phone": "1", "externalId": "x-1", "more": 1}
    reply = merchant.http.post(REGISTER, json=fields)
    assert reply.status_code == 201
    said = reply.json()
    assert set(said) == {"success", "userId", "message"}
    assert (said["success"], said["message"]) == (True, "User registered")
    assert len(bytes.fromhex(said["userId"])) == 12


@conforms(f"POST {REGISTER}", "a repeated email or externalId within a merchant: 409", "chosen")
def test_a_repeated_user_is_409(
    shared_place: Place, shared_server: Server, merchant: Merchant
) -> None:
    merchant.register(email="b@example.com", externalId="x-2")
    for fields in ({"email": "b@example.com"}, {"externalId": "x-2"}):
        refused(merchant.post(REGISTER, **fields), 409, "CONFLICT")
    for fields in ({}, {"email": ""}, {"email": ""}, {"email": "c@example.com"}):
        merchant.register(**fields)
    other = Merchant(shared_server.url, new_merchant(shared_place))
    with other:
        other.register(email="b@example.com", externalId="x-2")


@conforms("every call", "a body that cannot be parsed, or a wrong field: 400 BAD_REQUEST")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000])
@pytest.mark.parametrize("path", [REGISTER, LINK, MATCH])
def test_a_broken_body_is_400(merchant: Merchant, path: str, content: bytes) -> None:
    refused(merchant.http.post(path, content=content), 400, "BAD_REQUEST")


@conforms(f"POST {REGISTER}", "fields of a wrong type: 400", "chosen")
@pytest.mark.parametrize("fields", [{"name": 5}, {"email": "x" * 300}, {"externalId": "a\0b"}])
def test_a_wrong_field_is_400(merchant: Merchant, fields: dict[str, Any]) -> None:
    refused(merchant.post(REGISTER, **fields), 400, "BAD_REQUEST")


@conforms("every call", "the message names a missing field")
@pytest.mark.parametrize(
    ("path", "field"),
    [(MATCH, "userId"), (LINK, "userId")],
)
def test_a_missing_field_is_named(merchant: Merchant, path: str, field: str) -> None:
    reply = merchant.post(path)
    refused(reply, 400, "BAD_REQUEST")
    assert reply.json()["message"] == f"{field} is required"


@conforms("DELETE /api/user/{userId}/", "204; pictures and links go with the user", "chosen")
@pytest.mark.parametrize("how", ["call", "command"])
def test_a_user_is_deleted_with_all_pictures(
    shared_place: Place, merchant: Merchant, people: dict[str, bytes], how: str
) -> None:
    def stored() -> list[str]:
        return [key for key in asyncio.run(shared_place.objects()) if key.startswith(mine)]

    mine = str(merchant.new.tenant_id)
    user = merchant.register()
    merchant.send(user, "upload", people["ada"])
    merchant.send(user, "match", people["bea"])
    open_link = merchant.link(user, "match")
    assert len(stored()) == 2
    if how == "call":
        assert merchant.http.delete(f"/api/user/{user}/").status_code == 204
    else:
        command = ("merchant-user", "delete", user, "--tenant", merchant.new.name)
        assert shared_place.command(*command).returncode == 0
        assert shared_place.command(*command, check=False).returncode == 3
    assert stored() == []
    assert asyncio.run(shared_place.count("upload", f"user_id = '{user}'")) == 0
    refused(merchant.http.delete(f"/api/user/{user}/"), 404, "USER_NOT_FOUND")
    refused(merchant.match(user), 404, "USER_NOT_FOUND")
    headers = {"Content-Type": "image/jpeg"}
    refused(httpx.put(open_link, content=people["ada"], headers=headers), 403, "LINK_INVALID")
    assert stored() == []


@conforms("every call", "another merchant's userId: 404", "chosen")
@pytest.mark.parametrize("name", ["another's", UNKNOWN_USER, "not an id", "a\0b", "x" * 5000])
def test_anothers_user_is_404(
    shared_place: Place, shared_server: Server, merchant: Merchant, name: str
) -> None:
    if name == "another's":
        other = Merchant(shared_server.url, new_merchant(shared_place))
        with other:
            name = other.register()
    refused(merchant.match(name), 404, "USER_NOT_FOUND")
    refused(merchant.ask(name, "upload"), 404, "USER_NOT_FOUND")
    if "\0" not in name and len(name) < 1000:
        refused(merchant.http.delete(f"/api/user/{name}/"), 404, "USER_NOT_FOUND")


@conforms("every call", "a key without the permission: 403", "chosen")
def test_each_call_needs_its_own_permission(shared_place: Place, shared_server: Server) -> None:
    calls: dict[str, Callable[[Merchant], httpx.Response]] = {
        "register": lambda it: it.post(REGISTER),
        "source": lambda it: it.ask(UNKNOWN_USER, "upload"),
        "target": lambda it: it.ask(UNKNOWN_USER, "match"),
        "match": lambda it: it.match(UNKNOWN_USER),
        "delete": lambda it: it.http.delete(f"/api/user/{UNKNOWN_USER}/"),
    }
    needs = {"register": "insert", "source": "insert", "target": "match", "match": "match"}
    for allowed in ("insert", "match", "erase"):
        merchant = Merchant(shared_server.url, new_merchant(shared_place, [allowed]))
        with merchant:
            for name, call in calls.items():
                reply = call(merchant)
                if needs.get(name, "erase") == allowed:
                    assert reply.status_code in (201, 404)
                else:
                    refused(reply, 403, "FORBIDDEN")


@conforms("every call", "unknown methods and paths: 405 and 404 in the error body")
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", MATCH, 405, "METHOD_NOT_ALLOWED"),
        ("GET", TOKEN, 405, "METHOD_NOT_ALLOWED"),
        ("PUT", KEY, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/upload/x", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/user/a/b", 404, "NOT_FOUND"),
        ("POST", "/api/upload/other", 404, "NOT_FOUND"),
    ],
)
def test_unknown_routes_have_the_same_form(
    merchant: Merchant, method: str, path: str, status: int, code: str
) -> None:
    refused(merchant.http.request(method, path), status, code)
