"""Who may call the native API."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import product
from uuid import uuid4

import httpx
import pytest

from oneton.records.database import Database
from oneton.records.tenants import Keys
from oneton.verbs.authenticate import CreateKey
from tests.fixtures.native import DEFAULT, MakeNative, Native, check_problem
from tests.fixtures.servers import TOKEN, Place, Server, new_tenant

pytestmark = pytest.mark.model

HEADER = "Idempotency-Key"
FACE, REQUEST = f"/v1/faces/{uuid4()}", f"/v1/requests/{uuid4()}"
CALLS = [
    ("GET", "/v1/galleries", "read"),
    ("POST", "/v1/galleries", "admin"),
    ("GET", "/v1/galleries/default", "read"),
    ("PATCH", "/v1/galleries/default", "admin"),
    ("DELETE", "/v1/galleries/default", "admin"),
    ("GET", DEFAULT, "read"),
    ("POST", DEFAULT, "insert"),
    ("GET", FACE, "read"),
    ("PATCH", FACE, "insert"),
    ("GET", f"{FACE}/image-link", "read"),
    ("DELETE", f"{FACE}/image", "erase"),
    ("DELETE", FACE, "purge"),
    ("POST", "/v1/identify", "search"),
    ("POST", "/v1/verify", "match"),
    ("GET", "/v1/requests", "read"),
    ("GET", REQUEST, "read"),
    ("POST", f"{REQUEST}/review", "admin"),
    ("GET", "/v1/jobs", "read"),
    ("GET", f"/v1/jobs/{uuid4()}", "read"),
]
NEEDED = sorted({permission for _, _, permission in CALLS})
NO_CREDENTIALS: list[dict[str, str]] = [
    {},
    {"Authorization": "Bearer nonsense"},
    {"Authorization": "Basic YTpi"},
]
READERS = {"read", "search", "match"}


def conforms(call: str, what: str) -> pytest.MarkDecorator:
    return pytest.mark.conforms("native", call, what, "exact")


@conforms("every call", "401 unauthenticated without a key that is known")
def test_strangers_are_refused_before_their_body_is_read(shared_server: Server) -> None:
    with httpx.Client(base_url=shared_server.url) as stranger:
        for method, path, _ in CALLS:
            for credentials, key in product(NO_CREDENTIALS, ({}, {HEADER: "k"})):
                headers = {**credentials, **key}
                reply = stranger.request(method, path, content=b"{", headers=headers)
                check_problem(reply, 401, "unauthenticated")
                assert reply.headers["www-authenticate"] == "Bearer"


@conforms("every call", "403 forbidden without the permission")
@pytest.mark.parametrize("permission", NEEDED)
def test_each_call_needs_its_permission(make_native: MakeNative, permission: str) -> None:
    only = make_native([permission])
    for method, path, needed in CALLS:
        reply = only.http.request(method, path, headers={HEADER: f"{path} 1"})
        if permission == needed:
            assert reply.status_code != 403, (method, path, reply.text)
        else:
            check_problem(reply, 403, "forbidden")


@conforms("every call", "a token of /api/oauth/token, or the key's secret itself, as bearer")
def test_a_token_is_as_good_as_the_secret(shared_place: Place, shared_server: Server) -> None:
    key = new_tenant(shared_place)
    form = {"grant_type": "client_credentials", **key}
    token = httpx.post(shared_server.url + TOKEN, data=form).json()["access_token"]
    for text in (token, key["client_secret"]):
        headers = {"Authorization": f"Bearer {text}"}
        assert httpx.get(f"{shared_server.url}/v1/galleries", headers=headers).status_code == 200


def test_a_sandbox_key_changes_nothing(
    shared_place: Place, shared_server: Server, people: dict[str, bytes]
) -> None:
    secret = asyncio.run(sandbox_secret(shared_place))
    native = Native(shared_server.url, secret)
    with native.http:
        for method, path, needed in CALLS:
            reply = native.http.request(method, path, headers={HEADER: f"{path} 1"})
            if needed in READERS:
                assert reply.status_code != 403, (method, path)
            else:
                check_problem(reply, 403, "forbidden")
        assert native.identify(people["ada"], save=True)["request_id"] is None
        assert native.json("/v1/requests")["items"] == []


async def sandbox_secret(place: Place) -> str:
    assert place.dsns is not None
    credentials = await asyncio.to_thread(new_tenant, place)
    database = await Database.connect(place.dsns.app, size=2)
    try:
        keys = Keys(database)
        key = (await keys.find_secret(sha256(credentials["client_secret"]))).key
        _, secret = await CreateKey(keys)(
            key.tenant_id, label="", permissions=key.permissions, sandbox=True
        )
        return secret
    finally:
        await database.close()


def sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
