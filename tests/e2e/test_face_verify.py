"""Trustmatic's dialect over HTTP, with real photos."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from _photos import variations
from PIL import Image

from tests.fixtures.pictures import as_format, encoded, landscape, shrunk, truncated
from tests.fixtures.servers import MATCH, MakeClient, Place, Server, as_base64, run_server
from tests.fixtures.servers import new_tenant as make_tenant

pytestmark = pytest.mark.model

VERIFY = "/api/v1/face/verify"
ALIAS = "/api/v1/id-verifications/face/verify"
LIVENESS = "/api/v1/face/liveness"
SESSION = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
INTERNAL = {"hasError": True, "error": "INTERNAL_ERROR"}


def conforms(call: str, what: str, how: str = "exact") -> pytest.MarkDecorator:
    return pytest.mark.conforms("face_verify", call, what, how)


CALL = f"POST {VERIFY}"
LIVENESS_CALL = f"POST {LIVENESS}"


@pytest.fixture
def key(shared_place: Place, shared_server: Server) -> dict[str, str]:
    return make_tenant(shared_place)


@pytest.fixture
def face(shared_server: Server, key: dict[str, str]) -> Iterator[httpx.Client]:
    """A caller with good credentials."""
    with httpx.Client(
        base_url=shared_server.url, auth=(key["client_id"], key["client_secret"]), timeout=30
    ) as client:
        yield client


def body(probe: bytes, reference: bytes, **more: Any) -> dict[str, Any]:
    return {
        "sessionId": SESSION,
        "probe": {"imageBase64": as_base64(probe)},
        "reference": {"imageBase64": as_base64(reference)},
        **more,
    }


def refused(reply: httpx.Response, code: str, status: int = 200) -> None:
    """The error in the body, with the session's id and without a score."""
    assert reply.status_code == status, reply.text
    assert reply.json() == {"sessionId": SESSION, "hasError": True, "error": code}


@conforms(CALL, "same person: score at least 27, no error")
@conforms(f"POST {ALIAS}", "the alias answers alike")
@pytest.mark.parametrize("path", [VERIFY, ALIAS, VERIFY + "/"])
def test_one_person_passes(face: httpx.Client, people: dict[str, bytes], path: str) -> None:
    other = variations(people["ada"], 1, seed=1)[0]
    reply = face.post(path, json=body(people["ada"], other))
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("application/json")
    said = reply.json()
    assert set(said) == {"sessionId", "score", "hasError"}
    assert (said["sessionId"], said["hasError"]) == (SESSION, False)
    assert isinstance(said["score"], int)
    assert 27 <= said["score"] <= 100


@conforms(CALL, "different people: score below 27, no error")
def test_two_people_do_not_pass(face: httpx.Client, people: dict[str, bytes]) -> None:
    reply = face.post(VERIFY, json=body(people["ada"], people["bea"]))
    said = reply.json()
    assert (reply.status_code, said["hasError"], set(said)) == (
        200,
        False,
        {"sessionId", "score", "hasError"},
    )
    assert 0 <= said["score"] < 27


@conforms(CALL, "the same picture twice scores near 100", "chosen")
def test_one_picture_twice_is_near_100(face: httpx.Client, people: dict[str, bytes]) -> None:
    reply = face.post(VERIFY, json=body(people["cas"], people["cas"]))
    assert reply.json()["score"] >= 99


BAD: dict[str, Callable[[bytes], Any]] = {
    "absent holder": lambda _: None,
    "empty holder": lambda _: {},
    "holder of a wrong type": lambda _: "text",
    "empty string": lambda _: {"imageBase64": ""},
    "number": lambda _: {"imageBase64": 5},
    "null": lambda _: {"imageBase64": None},
    "not base64": lambda _: {"imageBase64": "%%%% no base64 é"},
    "base64 of text": lambda _: {"imageBase64": as_base64(b"hello, this is no picture")},
    "truncated JPEG": lambda photo: {"imageBase64": as_base64(truncated(photo))},
    "an address": lambda _: {"imageBase64": "https://example.com/photo.jpg"},
    "TIFF": lambda photo: {"imageBase64": as_base64(as_format(photo, "TIFF"))},
}


@conforms(CALL, "a missing, damaged or undecodable probe: MISSING_PROBE_IMAGE, no score")
@conforms(CALL, "likewise the reference: MISSING_REFERENCE_IMAGE")
@pytest.mark.parametrize("field", ["probe", "reference"])
@pytest.mark.parametrize("name", BAD)
def test_a_picture_that_is_none_is_named(
    face: httpx.Client, people: dict[str, bytes], field: str, name: str
) -> None:
    asked = body(people["ada"], people["ada"]) | {field: BAD[name](people["ada"])}
    refused(face.post(VERIFY, json=asked), f"MISSING_{field.upper()}_IMAGE")
    if asked[field] is None:
        del asked[field]
        refused(face.post(VERIFY, json=asked), f"MISSING_{field.upper()}_IMAGE")


@conforms(CALL, "no face: PROBE_FACE_NOT_FOUND, REFERENCE_FACE_NOT_FOUND")
def test_a_landscape_has_no_face(face: httpx.Client, people: dict[str, bytes]) -> None:
    photo = people["ada"]
    refused(face.post(VERIFY, json=body(landscape(), photo)), "PROBE_FACE_NOT_FOUND")
    refused(face.post(VERIFY, json=body(photo, landscape())), "REFERENCE_FACE_NOT_FOUND")


@conforms(CALL, "a face below 40 pixels counts as not found", "chosen")
def test_a_small_face_counts_as_none(face: httpx.Client, people: dict[str, bytes]) -> None:
    # A face takes some five eighths of its photo's side.
    small, enough = shrunk(people["ada"], 50), shrunk(people["ada"], 110)
    refused(face.post(VERIFY, json=body(small, people["ada"])), "PROBE_FACE_NOT_FOUND")
    assert face.post(VERIFY, json=body(enough, people["ada"])).json()["score"] >= 27


@conforms(CALL, "order of checks: probe decode, reference decode, probe face, reference face")
@pytest.mark.parametrize(
    ("probe", "reference", "code"),
    [
        (b"text", b"text", "MISSING_PROBE_IMAGE"),
        (b"text", b"", "MISSING_PROBE_IMAGE"),
        ("landscape", b"text", "MISSING_REFERENCE_IMAGE"),
        ("landscape", b"", "MISSING_REFERENCE_IMAGE"),
        ("landscape", "landscape", "PROBE_FACE_NOT_FOUND"),
    ],
)
def test_one_code_is_given_in_the_order_of_checks(
    face: httpx.Client, probe: Any, reference: Any, code: str
) -> None:
    pictures = [landscape() if each == "landscape" else each for each in (probe, reference)]
    refused(face.post(VERIFY, json=body(*pictures)), code)


@conforms(CALL, "several faces: the largest counts, no error", "chosen")
def test_the_largest_of_several_faces_counts(face: httpx.Client, people: dict[str, bytes]) -> None:
    both = Image.new("RGB", (500, 250))
    both.paste(_image(people["dan"]), (0, 0))
    both.paste(_image(people["eve"]).resize((150, 150)), (300, 50))
    reply = face.post(VERIFY, json=body(encoded(both, "PNG"), people["dan"])).json()
    assert reply["hasError"] is False
    assert reply["score"] >= 27


def _image(photo: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photo))


@conforms(CALL, "JPEG, PNG, WebP and BMP; data URL, line breaks, no padding", "chosen")
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_formats_and_habits_are_read(
    face: httpx.Client, people: dict[str, bytes], kind: str
) -> None:
    text = as_base64(as_format(people["fay"], kind)).rstrip("=")
    lines = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    asked = body(people["fay"], people["fay"])
    asked["probe"]["imageBase64"] = f"data:image/{kind.lower()};base64,{lines}"
    assert face.post(VERIFY, json=asked).json()["score"] >= 90


@conforms(CALL, "sessionId is echoed, in success and in error, null when absent")
def test_the_session_id_is_echoed(face: httpx.Client, people: dict[str, bytes]) -> None:
    photo = people["ada"]
    for given in ('Ünï code "quoted" \\ / 你好 ', "x" * 128, "", None):
        for probe in (photo, b"text"):
            reply = face.post(VERIFY, json=body(probe, photo, sessionId=given))
            assert reply.json()["sessionId"] == given
            if given:
                assert json.dumps(given, ensure_ascii=False).encode() in reply.content
    asked = body(photo, photo)
    del asked["sessionId"]
    assert face.post(VERIFY, json=asked).json()["sessionId"] is None


@conforms(CALL, "a sessionId that is none, or over 128 characters: INTERNAL_ERROR", "chosen")
@pytest.mark.parametrize("given", ["x" * 129, 5, [], {}, True])
def test_a_wrong_session_id_is_an_error(
    face: httpx.Client, people: dict[str, bytes], given: Any
) -> None:
    reply = face.post(VERIFY, json=body(people["ada"], people["ada"], sessionId=given))
    assert (reply.status_code, reply.json()) == (200, INTERNAL)


@conforms(CALL, "no or wrong credentials: 401, WWW-Authenticate, hasError", "chosen")
@conforms(LIVENESS_CALL, "no or wrong credentials: 401", "chosen")
@pytest.mark.parametrize("path", [VERIFY, ALIAS, LIVENESS])
@pytest.mark.parametrize("given", ["none", "Basic", "Basic YTpi", "Basic %%", "Bearer x", "latin"])
def test_a_stranger_is_401_whatever_the_body(
    shared_server: Server, key: dict[str, str], path: str, given: str
) -> None:
    pair = f"{key['client_id']}:{key['client_secret']}x"
    headers = {} if given == "none" else {b"Authorization": given.encode()}
    if given == "latin":
        headers = {b"Authorization": b"Basic \xe9\xe9\xe9"}
    for sent in (headers, {b"Authorization": b"Basic " + base64.b64encode(pair.encode())}):
        reply = httpx.post(shared_server.url + path, headers=sent, content=b"{")
        assert reply.status_code == 401
        assert reply.json() == {"hasError": True, "error": "UNAUTHORIZED"}
        assert reply.headers["www-authenticate"] == 'Basic realm="face"'


@conforms(CALL, "several pairs of credentials are good", "chosen")
def test_another_key_of_the_tenant_is_good_and_one_without_the_permission_is_not(
    shared_place: Place, shared_server: Server, people: dict[str, bytes]
) -> None:
    asked = body(people["ada"], people["ada"])
    for permissions, status in ((["match"], 200), (["search"], 403)):
        key = make_tenant(shared_place, permissions=permissions)
        auth = (key["client_id"], key["client_secret"])
        reply = httpx.post(shared_server.url + VERIFY, json=asked, auth=auth)
        assert reply.status_code == status
    assert reply.json() == {"hasError": True, "error": "UNAUTHORIZED"}


@conforms(CALL, "a body that is not JSON: 400 with INTERNAL_ERROR", "chosen")
@pytest.mark.parametrize("path", [VERIFY, LIVENESS])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"probe": "', b"[" * 100_000])
def test_broken_json_is_400(face: httpx.Client, path: str, content: bytes) -> None:
    reply = face.post(path, content=content, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()) == (400, INTERNAL)


@conforms(CALL, "JSON that is no object has no probe", "chosen")
@pytest.mark.parametrize("content", [b"[]", b"null", b"5", b'"text"', b"{}"])
def test_other_json_has_no_probe(face: httpx.Client, content: bytes) -> None:
    reply = face.post(VERIFY, content=content)
    said = {"sessionId": None, "hasError": True, "error": "MISSING_PROBE_IMAGE"}
    assert (reply.status_code, reply.json()) == (200, said)


@conforms(CALL, "without a content type JSON is read; another type is 415", "chosen")
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("application/json; charset=UTF-8", 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
def test_the_content_type_is_json(
    face: httpx.Client, people: dict[str, bytes], kind: str | None, status: int
) -> None:
    content = json.dumps(body(people["ada"], people["ada"])).encode()
    headers = {} if kind is None else {"Content-Type": kind}
    reply = face.post(VERIFY, content=content, headers=headers)
    assert reply.status_code == status
    if status == 415:
        assert reply.json() == INTERNAL


@conforms(CALL, "a picture over 10 MB or 8000 pixels: 413 that names it", "chosen")
def test_a_picture_that_is_too_large_is_named(face: httpx.Client, people: dict[str, bytes]) -> None:
    long = encoded(Image.new("RGB", (8001, 20)), "PNG")
    for large in (people["ada"] + bytes(10 * 1024 * 1024), long):
        for asked, code in (
            (body(large, people["ada"]), "MISSING_PROBE_IMAGE"),
            (body(people["ada"], large), "MISSING_REFERENCE_IMAGE"),
        ):
            refused(face.post(VERIFY, json=asked), code, 413)


@conforms(CALL, "a body over 30 MB: 413 with INTERNAL_ERROR", "chosen")
def test_a_body_over_30_mb_is_413(face: httpx.Client) -> None:
    reply = face.post(VERIFY, content=b" " * (30 * 1024 * 1024 + 1))
    assert (reply.status_code, reply.json()) == (413, INTERNAL)


@conforms(CALL, "unknown methods and paths: 405 and 404 in the same form", "chosen")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", VERIFY, 405), ("PUT", ALIAS, 405), ("POST", VERIFY + "/more", 404)],
)
def test_unknown_routes_have_the_same_form(
    face: httpx.Client, method: str, path: str, status: int
) -> None:
    reply = face.request(method, path)
    assert (reply.status_code, reply.json()) == (status, INTERNAL)


@conforms(CALL, "nothing is kept", "chosen")
def test_nothing_is_kept(face: httpx.Client, shared_place: Place, people: dict[str, bytes]) -> None:
    async def stored() -> list[int]:
        rows = [await shared_place.count(each) for each in ("face", "request", "picture")]
        return [*rows, len(await shared_place.objects())]

    before = asyncio.run(stored())
    assert face.post(VERIFY, json=body(people["ada"], people["bea"])).status_code == 200
    refused(face.post(VERIFY, json=body(people["ada"], b"text")), "MISSING_REFERENCE_IMAGE")
    assert asyncio.run(stored()) == before


@conforms(CALL, "the log has session id, status and code, and no picture", "chosen")
def test_the_log_has_the_session_id_and_no_picture(
    face: httpx.Client, shared_server: Server, people: dict[str, bytes]
) -> None:
    asked = body(people["ada"], b"text", sessionId="logged-session-1")
    face.post(VERIFY, json=asked)
    deadline = time.monotonic() + 5
    while "logged-session-1" not in (text := shared_server.log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (line,) = [line for line in text.splitlines() if "logged-session-1" in line]
    logged = json.loads(line)
    assert (logged["status"], logged["error_code"]) == (200, "MISSING_REFERENCE_IMAGE")
    assert asked["probe"]["imageBase64"][40:100] not in text


@conforms(LIVENESS_CALL, "without a model: 501 with sessionId and INTERNAL_ERROR", "501")
def test_liveness_without_a_model_is_501(face: httpx.Client, people: dict[str, bytes]) -> None:
    asked = {"sessionId": SESSION, "faceImageBase": as_base64(people["ada"])}
    refused(face.post(LIVENESS, json=asked), "INTERNAL_ERROR", 501)


@pytest.fixture(scope="module")
def switched(shared_place: Place, shared_server: Server) -> Iterator[Server]:
    """A server with every switch of the dialect set, and a liveness model."""
    with run_server(
        shared_place,
        PYTHONPATH=str(Path(__file__).parents[2]),
        ONETON_LIVENESS="tests.fixtures.brightness:make",
        ONETON_FACE_VERIFY_DECIMALS="true",
        ONETON_FACE_VERIFY_500_AS_200="true",
        ONETON_FACE_VERIFY_CALLS_A_MINUTE="4",
    ) as server:
        yield server


@conforms(LIVENESS_CALL, "with a model: score 0 to 1, FACE_NOT_FOUND, links refused")
def test_liveness_with_a_model(
    switched: Server, key: dict[str, str], people: dict[str, bytes]
) -> None:
    with httpx.Client(
        base_url=switched.url, auth=(key["client_id"], key["client_secret"]), timeout=30
    ) as face:
        text = "data:image/jpeg;base64," + as_base64(people["ada"])
        reply = face.post(LIVENESS, json={"sessionId": SESSION, "faceImageBase": text})
        said = reply.json()
        assert (reply.status_code, said["sessionId"], said["hasError"]) == (200, SESSION, False)
        assert 0.1 < said["score"] <= 1
        for given, code in (
            (as_base64(landscape()), "FACE_NOT_FOUND"),
            ("https://example.com/a.jpg", "MISSING_PROBE_IMAGE"),
        ):
            reply = face.post(LIVENESS, json={"sessionId": SESSION, "faceImageBase": given})
            refused(reply, code)


@conforms(CALL, "a switch gives two decimals", "chosen")
@conforms(CALL, "an operator's limit: 429 with Retry-After", "chosen")
def test_decimals_and_the_limit(
    switched: Server, shared_server: Server, key: dict[str, str], people: dict[str, bytes]
) -> None:
    auth = (key["client_id"], key["client_secret"])
    other = variations(people["gus"], 1, seed=4)[0]
    asked = body(people["gus"], other)
    plain = httpx.post(shared_server.url + VERIFY, json=asked, auth=auth).json()["score"]
    for _ in range(4):
        score = httpx.post(switched.url + VERIFY, json=asked, auth=auth).json()["score"]
        assert score == round(score, 2)
        assert plain == int(score + 0.5)
    reply = httpx.post(switched.url + VERIFY, json=asked, auth=auth)
    assert (reply.status_code, reply.json()) == (429, INTERNAL)
    assert 1 <= int(reply.headers["retry-after"]) <= 60


@conforms(CALL, "the score is the one that uqudo's match level is made of", "chosen")
def test_the_score_agrees_with_uqudos_level(
    face: httpx.Client,
    shared_server: Server,
    key: dict[str, str],
    make_client: MakeClient,
    people: dict[str, bytes],
) -> None:
    client = make_client(shared_server.url, key)
    for other in (variations(people["hal"], 1, seed=5)[0], people["ian"]):
        score = face.post(VERIFY, json=body(people["hal"], other)).json()["score"]
        pair = {"sourceImage": as_base64(people["hal"]), "targetImage": as_base64(other)}
        level = client.http.post(MATCH, json=pair).json()["matchLevel"]
        assert level in {max(0, min(5, (score + d) // 10 - 1)) for d in (-1, 0)}
