"""What each call demands of a key: the reviewed table, and that a key with less gets 403."""

from __future__ import annotations

import asyncio
import hashlib
import re
from uuid import uuid4

import httpx
import pytest
from litestar.routes import HTTPRoute

from oneton.app import make_app, open_verbs
from oneton.domain.model import Permission
from oneton.parts import open_parts
from oneton.records.database import Database
from oneton.records.tenants import Keys
from oneton.settings import read_settings
from oneton.verbs.authenticate import CreateKey
from tests.fixtures.merchants import new_merchant
from tests.fixtures.native import MakeNative, Native, check_problem
from tests.fixtures.servers import Place, Server, as_base64

pytestmark = pytest.mark.model

OPEN = "open"
"""Without a key: pages, documents, tokens, and links that are signed."""

DEMANDED = """
open GET /livez
open GET /readyz
open GET /media/{token:str}
open POST /api/oauth/token
open GET /api/.well-known/jwks.json
open GET /doc/v3/id-api/face
open GET /doc/v3/id-api.yaml/face
match POST /api/v1/face/match
search POST /api/v1/face/one-to-n/search
insert POST /api/v1/face/one-to-n/insert
erase DELETE /api/v1/face/one-to-n/search/{verification_id:str}
match POST /api/v1/face
match POST /uqudo/face-sessions/{session_id:str}/selfie
match GET /api/v1/info/{session_id:str}
erase DELETE /api/v1/info/{session_id:str}
match GET /api/v1/info
read GET /api/v1/info/img/{image_id:str}
admin POST /v1/galleries
read GET /v1/galleries
admin DELETE /v1/galleries/{gallery:str}
read GET /v1/galleries/{gallery:str}
admin PATCH /v1/galleries/{gallery:str}
insert POST /v1/galleries/{gallery:str}/faces
read GET /v1/galleries/{gallery:str}/faces
purge DELETE /v1/faces/{face_id:uuid}
insert PATCH /v1/faces/{face_id:uuid}
read GET /v1/faces/{face_id:uuid}
read GET /v1/faces/{face_id:uuid}/image-link
erase DELETE /v1/faces/{face_id:uuid}/image
search POST /v1/identify
match POST /v1/verify
read GET /v1/requests
read GET /v1/requests/{request_id:uuid}
admin POST /v1/requests/{request_id:uuid}/review
read GET /v1/jobs
read GET /v1/jobs/{job_id:uuid}
read GET /v1/reindex-runs
read GET /v1/reindex-runs/{run_id:uuid}
admin GET /v1/audit
read GET /v1/usage
match POST /v3/face-match
search POST /v3/face-search
search POST /v3/passive-liveness
read GET /v3/sessions
read GET /v3/session/{session_id:str}/decision
erase DELETE /v3/session/{session_id:str}/delete
erase POST /v3/sessions/delete
read GET /v3/lists
admin POST /v3/lists
read GET /v3/lists/{list_uuid:uuid}/entries
admin POST /v3/lists/{list_uuid:uuid}/entries
insert POST /v3/lists/{list_uuid:uuid}/entries/face-upload
admin DELETE /v3/lists/{list_uuid:uuid}/entries/{entry_uuid:uuid}
admin POST /v3/blocklist/add
admin POST /v3/blocklist/remove
read GET /v3/blocklist
insert POST /v3/users/create
read GET /v3/users/{vendor_data:path}
insert POST /v3/organization/{organization_id:str}/application/{application_id:str}\
/vendor-users/by-id/{didit_internal_id:str}/faces/upload
read GET /v3/biometric-templates
read GET /v3/biometric-templates/count
purge POST /v3/biometric-templates/delete
purge DELETE /v3/biometric-templates/{template_uuid:uuid}
read GET /v3/biometric-templates/{template_uuid:uuid}
read GET /v3/webhook/destinations
admin POST /v3/webhook/destinations
admin PATCH /v3/webhook/destinations/{destination_uuid:uuid}
admin DELETE /v3/webhook/destinations/{destination_uuid:uuid}
read GET /v3/webhook/destinations/{destination_uuid:uuid}
open GET /v2/sessions/{request_id:str}
match POST /v2/face-match
search POST /v2/face-search
search,insert POST /v2/passive-liveness
admin PUT /v2/requests/{request_id:str}
read GET /v2/requests/{request_id:str}
read GET /v2/requests
insert POST /v2/requests
any POST /v2/id-verification
any POST /v2/age-estimation
any POST /v2/proof-of-address
any POST /v2/aml-screening
any POST /v2/database-validation
any POST /v2/phone-verification
any POST /v2/phone-verification/send
any POST /v2/phone-verification/check
any POST /v2/email-verification
any POST /v2/email-verification/send
any POST /v2/email-verification/check
match POST /api/v1/face/verify
match POST /api/v1/id-verifications/face/verify
match POST /api/v1/face/liveness
open POST /merchant-api-key
open POST /api/access-token
open POST /api/refresh-token
open POST /upload/{link:path}
open PUT /upload/{link:path}
insert POST /api/user/register
erase DELETE /api/user/{user_id:str}
match POST /api/face-match
match POST /api/face/match
any POST /api/upload/generate-url
match POST /start-liveness-session
match POST /api/face-liveness/start
match POST /match-liveness-face
match POST /api/match-liveness-face
match POST /check-liveness
match POST /upload-frame
"""
"""`any`: every key, for the call does nothing, or demands what its body says."""

NOT_OURS = ("/schema", "/metrics")
_PARAMETER = re.compile(r"\{\w+:(\w+)\}")


def demanded() -> dict[tuple[str, str], str]:
    lines = [line.split() for line in DEMANDED.strip().splitlines()]
    return {(method, path): permissions for permissions, method, path in lines}


async def _routes(place: Place) -> dict[tuple[str, str], str]:
    settings = read_settings(place.environ)
    found = {}
    async with open_parts(settings) as parts, open_verbs(settings, parts) as verbs:
        for route in make_app(verbs).routes:
            for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
                permissions = handler.opt.get("permissions")
                said = OPEN if permissions is None else ",".join(permissions) or "any"
                for method in handler.http_methods - {"OPTIONS", "HEAD"}:
                    if not route.path.startswith(NOT_OURS):
                        found[str(method), route.path] = said
    return found


def test_every_call_demands_what_the_reviewed_table_says(
    shared_place: Place, shared_server: Server
) -> None:
    assert asyncio.run(_routes(shared_place)) == demanded()


def credentials_for(path: str, key: dict[str, str], token: str) -> dict[str, str]:
    """The headers that the dialect of a path asks for."""
    secret = key["client_secret"]
    if path.startswith("/v3/"):
        return {"x-api-key": secret}
    if path.startswith(("/api/v1/face/verify", "/api/v1/face/liveness", "/api/v1/id-verif")):
        pair = httpx.BasicAuth(key["client_id"], secret)
        request = next(pair.auth_flow(httpx.Request("GET", "http://x")))
        return {"Authorization": request.headers["Authorization"]}
    if path.startswith(("/api/v1/", "/uqudo/")):
        return {"Authorization": f"Bearer {key['token']}"}
    if path.startswith(("/v1/", "/v2/")):
        return {"Authorization": f"Bearer {secret}"}
    return {"authorization": token}


@pytest.mark.parametrize("may", ["search", "match", "read"])
def test_a_key_with_one_permission_gets_403_from_every_other_call(
    shared_place: Place, shared_server: Server, may: str
) -> None:
    merchant = new_merchant(shared_place, [may])
    key = {"client_id": str(merchant.key_id), "client_secret": merchant.api_key}
    with httpx.Client(base_url=shared_server.url, timeout=30) as http:
        asked = {"grant_type": "client_credentials", **key}
        key["token"] = http.post("/api/oauth/token", data=asked).json()["access_token"]
        reply = http.post("/api/access-token", headers=merchant.headers)
        token = next(each for each in reply.json().values() if isinstance(each, str))
        for (method, path), permissions in demanded().items():
            if permissions in (OPEN, "any"):
                continue
            url = _PARAMETER.sub(lambda _: str(uuid4()), path)
            reply = http.request(method, url, headers=credentials_for(path, key, token))
            is_enough = set(permissions.split(",")) <= {may}
            assert (reply.status_code == 403) is not is_enough, (method, path, reply.text)


def test_a_search_key_searches_and_neither_enrolls_nor_sees_pictures(
    shared_place: Place, shared_server: Server, make_native: MakeNative, people: dict[str, bytes]
) -> None:
    native = make_native(("search", "insert", "read"))
    photo, image = people["ada"], as_base64(people["ada"])
    native.enroll(photo)
    body = {"image": image}
    seen = native.http.post("/v1/identify", json=body, headers={"Idempotency-Key": "k"}).json()
    assert seen["candidates"][0]["image_url"]
    key = _another_key(shared_place, native, ["search"])
    with httpx.Client(base_url=shared_server.url, timeout=30) as http:
        bearer = {"Authorization": f"Bearer {key['client_secret']}"}
        found = http.post("/v1/identify", json=body, headers=bearer).json()
        assert found["match"]
        assert found["candidates"][0]["image_url"] is None
        # Nor by the answer that another key was given.
        repeated = http.post("/v1/identify", json=body, headers={**bearer, "Idempotency-Key": "k"})
        check_problem(repeated, 409, "idempotency_conflict")
        enrolled = http.post("/v1/galleries/default/faces", json=body, headers=bearer)
        check_problem(enrolled, 403, "forbidden")
        asked = {"grant_type": "client_credentials", **key}
        token = http.post("/api/oauth/token", data=asked).json()["access_token"]
        uqudo = {"Authorization": f"Bearer {token}"}
        url = "/api/v1/face/one-to-n/search"
        inserted = http.post(url, json={"idPhoto": image, "insert": True}, headers=uqudo)
        assert (inserted.status_code, inserted.json()["error"]) == (403, "access_denied")
        searched = http.post(url, json={"idPhoto": image}, headers=uqudo)
        assert searched.json()["oneToNVerificationId"]
        didit, files = {"x-api-key": key["client_secret"]}, {"user_image": ("a.jpg", photo)}
        kept = http.post("/v3/passive-liveness", files=files, headers=didit)
        assert kept.status_code == 403
        looked = http.post(
            "/v3/passive-liveness", files=files, headers=didit, data={"save_api_request": "false"}
        )
        assert looked.status_code == 200, looked.text
        listed = http.post("/v3/face-search", files=files, headers=didit).json()["face_search"]
        assert listed["total_matches"] == 1
        assert listed["matches"][0]["match_image_url"] is None
        flow = http.post("/v2/face-search", json={"userImage": image}, headers=bearer)
        assert flow.status_code == 201, flow.text
        assert "/media/" not in flow.text
    assert len(native.json("/v1/galleries/default/faces")["items"]) == 1


def _another_key(place: Place, native: Native, permissions: list[str]) -> dict[str, str]:
    """A second key of the same tenant."""
    return asyncio.run(_make_key(place, native, permissions))


async def _make_key(place: Place, native: Native, permissions: list[str]) -> dict[str, str]:
    assert place.dsns is not None
    secret = native.http.headers["Authorization"].removeprefix("Bearer ")
    database = await Database.connect(place.dsns.app, size=2)
    try:
        keys = Keys(database)
        known = await keys.find_secret(hashlib.sha256(secret.encode()).digest())
        key, made = await CreateKey(keys)(
            known.key.tenant_id, label="", permissions=[Permission(each) for each in permissions]
        )
        return {"client_id": str(key.key_id), "client_secret": made}
    finally:
        await database.close()
