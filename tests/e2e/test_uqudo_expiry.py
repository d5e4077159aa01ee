"""Face sessions as time goes by: the app in this process, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

import anyio.to_thread
import cv2
import httpx
import jwt
import numpy as np
import pytest
from _photos import variations

from oneton.app import make_app, open_verbs
from oneton.domain.face_sessions import utc_now
from oneton.parts import Parts, make_expire_face_sessions, make_rotate_signing, open_parts
from oneton.settings import read_settings
from oneton.verbs.expire_face_sessions import ExpireFaceSessions
from oneton.verbs.rotate_signing import RotateSigning
from tests.fixtures.servers import TOKEN, MakePlace, Place, as_base64, new_tenant

pytestmark = [pytest.mark.model, pytest.mark.anyio, pytest.mark.timeout(120)]

FACE = "/api/v1/face"
INFO = "/api/v1/info"
IMAGE = "/api/v1/info/img"
JWKS = "/api/.well-known/jwks.json"
SELFIE = "/uqudo/face-sessions/{sessionId}/selfie"


@dataclass
class Clock:
    """Tells what the test says."""

    now: datetime = field(default_factory=utc_now)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass(frozen=True)
class Running:
    """The app, its clock, and what sweeps."""

    http: httpx.AsyncClient
    clock: Clock
    parts: Parts
    expire: ExpireFaceSessions
    rotate: RotateSigning
    photo: bytes
    selfie: bytes

    async def begin(self) -> str:
        reply = await self.http.post(FACE, json={"idPhoto": as_base64(self.photo)})
        assert reply.status_code == 201, reply.text
        return str(reply.json()["sessionId"])

    async def send(self, session: str, selfie: bytes | None = None, **terms: Any) -> httpx.Response:
        body = {"selfie": as_base64(selfie or self.selfie), **terms}
        return await self.http.post(SELFIE.format(sessionId=session), json=body)

    async def result(self, session: str) -> tuple[str, dict[str, Any]]:
        reply = await self.send(session)
        assert reply.status_code == 200, reply.text
        result = str(reply.json()["result"])
        return result, jwt.decode(result, options={"verify_signature": False})

    async def objects(self) -> int:
        return len([each async for each in self.parts.images.list()])

    async def status(self, path: str) -> int:
        return (await self.http.get(path)).status_code


@asynccontextmanager
async def running(place: Place, people: dict[str, bytes]) -> AsyncIterator[Running]:
    settings = read_settings(place.environ)
    clock = Clock()
    async with open_parts(settings) as parts, open_verbs(settings, parts) as verbs:
        platform = verbs.platform
        sign = replace(platform.sign_results, clock=clock)
        sessions = replace(platform.run_face_sessions, clock=clock, sign_results=sign)
        told = replace(platform, sign_results=sign, run_face_sessions=sessions)
        transport = httpx.ASGITransport(cast("Any", make_app(replace(verbs, platform=told))))
        async with httpx.AsyncClient(transport=transport, base_url="http://oneton") as http:
            key = await _key(place)
            reply = await http.post(TOKEN, data={"grant_type": "client_credentials", **key})
            http.headers["Authorization"] = f"Bearer {reply.json()['access_token']}"
            yield Running(
                http,
                clock,
                parts,
                replace(make_expire_face_sessions(parts), clock=clock),
                replace(make_rotate_signing(parts), clock=clock),
                people["ada"],
                variations(people["ada"], 1, seed=11)[0],
            )


async def _key(place: Place) -> dict[str, str]:
    return await anyio.to_thread.run_sync(new_tenant, place)


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    return make_place(ONETON_LIVENESS="tests.fixtures.brightness:make")


@pytest.fixture
async def app(place: Place, people: dict[str, bytes]) -> AsyncIterator[Running]:
    async with running(place, people) as made:
        yield made


@pytest.mark.conforms("uqudo", f"POST {FACE}", "photo and session erased after 10 minutes", "exact")
async def test_a_session_and_its_photo_are_gone_after_ten_minutes(app: Running) -> None:
    before = await app.objects()
    open_session, done = await app.begin(), await app.begin()
    _, claims = await app.result(done)
    image = claims["data"]["face"]["auditTrailImageId"]
    app.clock.pass_by(minutes=9, seconds=59)
    assert await app.expire() == 0
    assert await app.status(f"{INFO}/{done}") == 200
    assert await app.objects() == before + 3
    app.clock.pass_by(seconds=1)
    # As unknown at once, before anything is swept.
    assert (await app.send(open_session)).status_code == 404
    for name in (open_session, done, claims["jti"]):
        assert await app.status(f"{INFO}/{name}") == 404
    assert (await app.http.delete(f"{INFO}/{open_session}")).status_code == 404
    assert await app.expire() == 2
    assert await app.expire() == 0
    assert not await app.parts.database.fetch("select * from oneton_face_sessions_due($1, 9)", _far)
    assert await app.objects() == before + 1
    assert await app.status(f"{IMAGE}/{image}") == 200


_far = datetime.fromisoformat("9999-01-01T00:00:00Z")


@pytest.mark.conforms("uqudo", f"GET {IMAGE}/{{id}}", "kept for 30 minutes, then 404", "exact")
async def test_a_results_selfie_is_kept_for_half_an_hour(app: Running) -> None:
    _, claims = await app.result(await app.begin())
    image = f"{IMAGE}/{claims['data']['face']['auditTrailImageId']}"
    app.clock.pass_by(minutes=29, seconds=59)
    assert await app.status(image) == 200
    app.clock.pass_by(seconds=1)
    assert await app.status(image) == 404


@pytest.mark.conforms("uqudo", f"DELETE {INFO}/{{sessionId}}", "the selfie of a past one", "chosen")
async def test_a_selfie_can_be_purged_after_its_session(app: Running) -> None:
    before = await app.objects()
    session = await app.begin()
    _, claims = await app.result(session)
    app.clock.pass_by(minutes=11)
    await app.expire()
    assert (await app.http.delete(f"{INFO}/{session}")).status_code == 204
    assert await app.status(f"{IMAGE}/{claims['data']['face']['auditTrailImageId']}") == 404
    assert await app.objects() == before
    assert (await app.http.delete(f"{INFO}/{session}")).status_code == 404


@pytest.mark.conforms("uqudo", f"GET {JWKS}", "old keys until their results expired", "chosen")
async def test_an_old_key_is_published_until_what_it_signed_has_expired(app: Running) -> None:
    result, claims = await app.result(await app.begin())
    old = jwt.get_unverified_header(result)["kid"]
    new = (await app.rotate())[0].kid
    assert await kids(app) == [new, old]
    app.clock.now = datetime.fromtimestamp(claims["exp"], app.clock.now.tzinfo)
    assert await kids(app) == [new, old]
    app.clock.pass_by(minutes=6)
    assert await kids(app) == [new]
    newest = (await app.rotate())[0].kid
    assert await kids(app) == [newest, new]
    rows = await app.parts.database.fetch("select kid from signing_key")
    assert {row["kid"] for row in rows} == {new, newest}


async def kids(app: Running) -> list[str]:
    return [each["kid"] for each in (await app.http.get(JWKS)).json()["keys"]]


@pytest.mark.conforms("uqudo", f"POST {SELFIE}", "liveness gates the flow, unreported", "chosen")
async def test_a_selfie_of_nobody_alive_is_no_match(app: Running) -> None:
    session = await app.begin()
    said = (await app.send(session, lit(app.photo, 0.2))).json()
    assert (said["match"], said["result"], said["attemptsLeft"]) == (False, None, 2)
    assert said["matchLevel"] >= 3
    said = (await app.send(session, app.photo)).json()
    assert said["match"] is True
    assert "live" not in str(jwt.decode(said["result"], options={"verify_signature": False}))


def lit(photo: bytes, share: float) -> bytes:
    """The photo with that share of its light."""
    pixels = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    dimmed = np.clip(pixels.astype(np.float32) * share, 0, 255).astype(np.uint8)
    return cv2.imencode(".png", dimmed)[1].tobytes()
