"""CypherFace's liveness calls over HTTP: without a model, with one, with frames taken for live."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from _photos import variations

from oneton.records.database import Database
from tests.fixtures.merchants import Merchant, new_merchant, refused
from tests.fixtures.pictures import as_format, darkened, landscape
from tests.fixtures.servers import Place, Server, run_server

pytestmark = pytest.mark.model

START = "/start-liveness-session/"
START_TOO = "/api/face-liveness/start/"
FRAME = "/upload-frame/"
MATCH = "/match-liveness-face/"
MATCH_TOO = "/api/match-liveness-face/"
CHECK = "/check-liveness/"
UNKNOWN_USER = "6789fb11e94adea011383478"
METADATA = {"httpStatusCode": 200, "attempts": 1, "totalRetryDelay": 0}


def conforms(call: str, what: str, how: str = "exact") -> pytest.MarkDecorator:
    return pytest.mark.conforms("cypherface", call, what, how)


@pytest.fixture(scope="module")
def with_model(shared_place: Place, shared_server: Server) -> Iterator[Server]:
    """A server that takes bright faces for living ones."""
    with run_server(
        shared_place,
        PYTHONPATH=str(Path(__file__).parents[2]),
        ONETON_LIVENESS="tests.fixtures.brightness:make",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def trusting(shared_place: Place, shared_server: Server) -> Iterator[Server]:
    """A server without a model, whose operator takes frames for live."""
    with run_server(shared_place, ONETON_CYPHERFACE_FRAMES_ARE_LIVE="true") as server:
        yield server


@pytest.fixture
def merchant(shared_place: Place, with_model: Server) -> Iterator[Merchant]:
    with Merchant(with_model.url, new_merchant(shared_place)) as made:
        yield made


def start(merchant: Merchant, user: str, path: str = START) -> str:
    reply = merchant.post(path, userId=user)
    assert reply.status_code == 200, reply.text
    assert set(reply.json()) == {"sessionId"}
    return str(reply.json()["sessionId"])


def frame(merchant: Merchant, session: str, photo: bytes) -> httpx.Response:
    files = {"frame": ("frame.jpg", photo, "image/jpeg")}
    return merchant.http.post(FRAME, data={"sessionId": session}, files=files)


def objects_of(place: Place, merchant: Merchant) -> int:
    mine = str(merchant.new.tenant_id)
    return sum(key.startswith(mine) for key in asyncio.run(place.objects()))


@pytest.mark.conforms("cypherface", f"POST {START}", "without a liveness model: 501", "501")
@pytest.mark.conforms("cypherface", f"POST {FRAME}", "without a liveness model: 501", "501")
@pytest.mark.conforms("cypherface", f"POST {MATCH}", "without a liveness model: 501", "501")
@pytest.mark.conforms("cypherface", f"POST {CHECK}", "without a liveness model: 501", "501")
def test_the_section_is_501_without_a_model(shared_place: Place, shared_server: Server) -> None:
    with Merchant(shared_server.url, new_merchant(shared_place)) as merchant:
        user, session = merchant.register(), str(uuid4())
        for path in (START, START_TOO):
            refused(merchant.post(path, userId=user), 501, "NOT_IMPLEMENTED")
        refused(frame(merchant, session, b""), 501, "NOT_IMPLEMENTED")
        for path in (MATCH, MATCH_TOO):
            reply = merchant.post(path, userId=user, sessionId=session)
            refused(reply, 501, "NOT_IMPLEMENTED")
        refused(merchant.post(CHECK, sessionId=session), 501, "NOT_IMPLEMENTED")


@conforms(f"POST {START}", "200 with a sessionId, a UUID; an unknown user is 404")
@conforms(f"POST {START_TOO}", "the newer table's spelling answers alike")
@pytest.mark.parametrize("path", [START, START_TOO])
def test_a_session_is_started(merchant: Merchant, path: str) -> None:
    assert UUID(start(merchant, merchant.register(), path)).version == 4
    refused(merchant.post(path, userId=UNKNOWN_USER), 404, "USER_NOT_FOUND")
    reply = merchant.post(path)
    refused(reply, 400, "BAD_REQUEST")
    assert reply.json()["message"] == "userId is required"


@conforms(f"POST {FRAME}", "multipart with frame and sessionId: 200 with an imageKey")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_frame_is_taken(merchant: Merchant, people: dict[str, bytes], kind: str) -> None:
    session = start(merchant, merchant.register())
    reply = frame(merchant, session, as_format(people["ada"], kind))
    assert reply.status_code == 200, reply.text
    assert set(reply.json()) == {"success", "imageKey"}
    assert reply.json()["success"] is True
    folder, of_session, name = reply.json()["imageKey"].split("/")
    assert (folder, of_session) == ("liveness-sessions", session)
    stem, _, suffix = name.partition(".")
    assert suffix == "jpg"
    assert abs(int(stem) / 1000 - time.time()) < 60


@conforms(f"POST {FRAME}", "an unknown or ended session: 404", "chosen")
@conforms(f"POST {FRAME}", "no face: 422; no picture, or a missing field: 400", "chosen")
def test_a_bad_frame_is_refused(
    merchant: Merchant, shared_place: Place, people: dict[str, bytes]
) -> None:
    session = start(merchant, merchant.register())
    for unknown in (str(uuid4()), "1234567890abcdef", "x\0"):
        refused(frame(merchant, unknown, people["ada"]), 404, "SESSION_NOT_FOUND")
    refused(frame(merchant, session, landscape()), 422, "FACE_NOT_FOUND")
    refused(frame(merchant, session, b"text"), 400, "UNSUPPORTED_IMAGE_TYPE")
    webp = as_format(people["ada"], "WEBP")
    refused(frame(merchant, session, webp), 400, "UNSUPPORTED_IMAGE_TYPE")
    large = people["ada"] + bytes(10 * 1024 * 1024)
    refused(frame(merchant, session, large), 413, "IMAGE_TOO_LARGE")
    files = {"frame": ("frame.jpg", people["ada"], "image/jpeg")}
    refused(merchant.http.post(FRAME, files=files), 400, "BAD_REQUEST")
    refused(merchant.http.post(FRAME, data={"sessionId": session}), 400, "BAD_REQUEST")
    refused(merchant.http.post(FRAME, json={"sessionId": session}), 400, "BAD_REQUEST")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(merchant.http.post(FRAME, content=b"--y", headers=broken), 400, "BAD_REQUEST")
    assert objects_of(shared_place, merchant) == 0


@conforms(f"POST {FRAME}", "a failed spoof check: 422 LIVENESS_FAILED, the frame is not kept",
          "chosen")  # fmt: skip
@conforms(f"POST {CHECK}", "liveness failed: 200 with livenessSuccess false", "chosen")
def test_a_frame_that_fails_counts_against_the_session(
    merchant: Merchant, shared_place: Place, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["bea"])
    session = start(merchant, user)
    assert frame(merchant, session, people["bea"]).status_code == 200
    refused(frame(merchant, session, darkened(people["bea"], 0.4)), 422, "LIVENESS_FAILED")
    assert objects_of(shared_place, merchant) == 1
    refused(merchant.post(MATCH, userId=user, sessionId=session), 422, "FRAME_MISSING")
    reply = merchant.post(CHECK, sessionId=session)
    assert reply.status_code == 200
    said = reply.json()
    assert set(said) == {"success", "livenessSuccess", "faceMatch", "message", "response"}
    assert (said["success"], said["livenessSuccess"], said["faceMatch"]) == (False,) * 3
    assert 0 < said["response"]["Confidence"] < 80
    assert f"{said['response']['Confidence']:.2f}%" in said["message"]
    refused(merchant.post(CHECK, sessionId=session), 404, "SESSION_NOT_FOUND")


@conforms(f"POST {MATCH}", "200 with match and similarity; so is a mismatch")
@conforms(f"POST {MATCH_TOO}", "the other spelling answers alike")
@conforms(f"POST {MATCH}", "no frame yet: 422; another user's session: 404", "chosen")
def test_a_live_face_is_compared(merchant: Merchant, people: dict[str, bytes]) -> None:
    user, other = merchant.register(), merchant.register()
    session = start(merchant, user)
    asked = {"userId": user, "sessionId": session}
    refused(merchant.post(MATCH, **asked), 422, "FRAME_MISSING")
    frame(merchant, session, variations(people["cas"], 1, seed=8)[0])
    refused(merchant.post(MATCH, **asked), 422, "SOURCE_IMAGE_MISSING")
    merchant.send(user, "upload", people["cas"])
    for path in (MATCH, MATCH_TOO):
        reply = merchant.post(path, **asked)
        assert reply.status_code == 200, reply.text
        assert set(reply.json()) == {"match", "similarity"}
        assert reply.json()["match"] is True
        assert 80 <= reply.json()["similarity"] <= 100
    frame(merchant, session, people["dan"])
    reply = merchant.post(MATCH, **asked)
    assert (reply.status_code, reply.json()["match"]) == (200, False)
    assert 0 <= reply.json()["similarity"] < 80
    refused(merchant.post(MATCH, userId=other, sessionId=session), 404, "SESSION_NOT_FOUND")
    asked["userId"] = UNKNOWN_USER
    refused(merchant.post(MATCH, **asked), 404, "USER_NOT_FOUND")


@conforms(f"POST {CHECK}", "match: both flags, Confidence, SessionId, Status MATCHED, $metadata")
@conforms(f"POST {CHECK}", "a verdict ends the session and erases its frame", "chosen")
def test_liveness_and_comparison_together_match(
    merchant: Merchant, shared_place: Place, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["eve"])
    session = start(merchant, user)
    refused(merchant.post(CHECK, sessionId=session), 422, "FRAME_MISSING")
    assert frame(merchant, session, variations(people["eve"], 1, seed=9)[0]).status_code == 200
    assert objects_of(shared_place, merchant) == 2
    reply = merchant.http.post(
        CHECK, json={"sessionId": session}, headers={"X-Request-ID": "check-1"}
    )
    assert reply.status_code == 200, reply.text
    said = reply.json()
    response = said.pop("response")
    assert response.pop("$metadata") == {**METADATA, "requestId": "check-1"}
    assert 80 <= response.pop("Confidence") <= 100
    assert response == {"SessionId": session, "Status": "MATCHED"}
    assert "%" in said.pop("message")
    assert said == {"success": True, "livenessSuccess": True, "faceMatch": True}
    assert objects_of(shared_place, merchant) == 1
    refused(merchant.post(CHECK, sessionId=session), 404, "SESSION_NOT_FOUND")
    refused(frame(merchant, session, people["eve"]), 404, "SESSION_NOT_FOUND")
    for unknown in (str(uuid4()), "1234567890abcdef"):
        refused(merchant.post(CHECK, sessionId=unknown), 404, "SESSION_NOT_FOUND")


@conforms(f"POST {CHECK}", "mismatch: 200, faceMatch false, AuditImages, ReferenceImage")
def test_liveness_and_comparison_together_mismatch(
    merchant: Merchant, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["eve"])
    session = start(merchant, user)
    assert frame(merchant, session, people["fay"]).status_code == 200
    reply = merchant.post(CHECK, sessionId=session)
    assert reply.status_code == 200
    said = reply.json()
    response = said.pop("response")
    assert response.pop("$metadata").items() >= METADATA.items()
    assert 80 <= response.pop("Confidence") <= 100
    assert response == {"AuditImages": [], "ReferenceImage": {}}
    assert "%" in said.pop("message")
    assert said == {"success": True, "livenessSuccess": True, "faceMatch": False}


@conforms("every liveness call", "three minutes to the first frame, ten in all", "chosen")
def test_a_session_ends_by_itself(
    merchant: Merchant, shared_place: Place, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["gus"])
    idle, busy = start(merchant, user), start(merchant, user)
    assert frame(merchant, busy, people["gus"]).status_code == 200
    asyncio.run(_minutes_later(shared_place, merchant, 4))
    refused(frame(merchant, idle, people["gus"]), 404, "SESSION_NOT_FOUND")
    assert frame(merchant, busy, people["gus"]).status_code == 200
    asyncio.run(_minutes_later(shared_place, merchant, 7))
    refused(frame(merchant, busy, people["gus"]), 404, "SESSION_NOT_FOUND")
    refused(merchant.post(MATCH, userId=user, sessionId=busy), 404, "SESSION_NOT_FOUND")
    refused(merchant.post(CHECK, sessionId=busy), 404, "SESSION_NOT_FOUND")


async def _minutes_later(place: Place, merchant: Merchant, minutes: int) -> None:
    """Move everything of the merchant's sessions into the past."""
    assert place.dsns is not None
    database = await Database.connect(place.dsns.app, size=2)
    try:
        async with database.transaction(merchant.new.tenant_id) as connection:
            await connection.execute(
                """update liveness_session set
                     created_at = created_at - make_interval(mins => $1),
                     expires_at = expires_at - make_interval(mins => $1)""",
                minutes,
            )
            await connection.execute(
                "update picture set due_at = due_at - make_interval(mins => $1)", minutes
            )
            overdue = "select count(*) from picture where due_at <= now()"
            assert await connection.fetchval(overdue) == (1 if minutes == 7 else 0)
    finally:
        await database.close()


@conforms("every liveness call", "an operator may take frames for live", "chosen")
def test_frames_are_taken_for_live_where_the_operator_says_so(
    shared_place: Place, trusting: Server, people: dict[str, bytes]
) -> None:
    with Merchant(trusting.url, new_merchant(shared_place)) as merchant:
        user = merchant.register()
        merchant.send(user, "upload", people["hal"])
        session = start(merchant, user)
        assert frame(merchant, session, darkened(people["hal"], 0.5)).status_code == 200
        reply = merchant.post(MATCH, userId=user, sessionId=session)
        assert reply.json()["match"] is True
        said = json.loads(merchant.post(CHECK, sessionId=session).content)
    assert (said["livenessSuccess"], said["faceMatch"]) == (True, True)
    assert said["response"]["Confidence"] is None
