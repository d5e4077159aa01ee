"""What the VeriFlow dialect refuses, in its own shape, and that nothing is stored then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.test_bad_input import gif, png_bomb, six_megabytes, truncated
from tests.fixtures.servers import Server, as_base64
from tests.fixtures.veriflow import (
    CALLS,
    LIVENESS,
    MATCH,
    REQUESTS,
    SEARCH,
    Flow,
    MakeFlow,
    check_refusal,
    conforms,
    response,
)

pytestmark = pytest.mark.model


BAD_PICTURES: dict[str, tuple[Callable[[bytes], str], int, str]] = {
    "empty": (lambda _: "", 400, "is required"),
    "blank": (lambda _: "  ", 400, "is required"),
    "not base64": (lambda _: "%%%%", 400, "not base64"),
    "no picture": (lambda _: as_base64(b"hello, this is no picture"), 400, "image type"),
    "truncated": (lambda photo: as_base64(truncated(photo)), 400, "cannot be decoded"),
    "GIF": (lambda _: as_base64(gif()), 400, "image/gif"),
    "6 MB": (lambda _: as_base64(six_megabytes()), 413, "larger than 5242880 bytes"),
    "11 MB of text": (lambda _: "A" * 11_000_000, 413, "larger than"),
    "PNG bomb": (lambda _: as_base64(png_bomb()), 413, "pixels"),
    "address": (lambda _: "https://example.com/face.jpg", 400, "addresses are not fetched"),
    "local address": (lambda _: "http://127.0.0.1:8080/livez", 400, "addresses are not fetched"),
    "file": (lambda _: "file:///etc/passwd", 400, "addresses are not fetched"),
}


@conforms("POST /v2/face-match", "400 and 413 for bad pictures, none stored", "chosen")
@pytest.mark.parametrize("name", ["userImage", "refImage"])
@pytest.mark.parametrize("bad", BAD_PICTURES)
def test_a_bad_picture_is_refused_by_name(
    flow: Flow, people: dict[str, bytes], bad: str, name: str
) -> None:
    make, status, said = BAD_PICTURES[bad]
    body = {"userImage": as_base64(people["ada"]), "refImage": as_base64(people["ada"])}
    body[name] = make(people["ada"])
    code = "PAYLOAD_TOO_LARGE" if status == 413 else "VALIDATION_ERROR"
    check_refusal(flow.http.post(MATCH, json=body), status, code, name, said)
    assert flow.total() == 0


@conforms("POST /v2/face-search", "400 and 413 for bad pictures, none stored", "chosen")
@conforms("POST /v2/passive-liveness", "400 and 413 for bad pictures, none stored", "chosen")
@pytest.mark.parametrize("bad", BAD_PICTURES)
def test_a_bad_picture_is_refused_by_the_other_calls_too(
    flow: Flow, people: dict[str, bytes], bad: str
) -> None:
    make, status, said = BAD_PICTURES[bad]
    code = "PAYLOAD_TOO_LARGE" if status == 413 else "VALIDATION_ERROR"
    for path in (SEARCH, LIVENESS):
        reply = flow.http.post(path, json={"userImage": make(people["ada"])})
        check_refusal(reply, status, code, "userImage", said)
    assert flow.total() == 0
    assert response(flow.search(people["ada"]))["totalMatches"] == 0


def nested(levels: int) -> bytes:
    return b'{"userImage":"x","refImage":"x","metadata":' + b"[" * levels + b"]" * levels + b"}"


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ""),
    "no JSON": (b"{", ""),
    "an array": (b"[]", "object"),
    "null": (b"null", "object"),
    "not UTF-8": (b'{"userImage":"\xff"}', ""),
    "a form": (b"userImage=abc&refImage=abc", ""),
    "no picture": (b"{}", "userImage is required"),
    "a number for a picture": (b'{"userImage":5,"refImage":5}', "userImage"),
    "null for a picture": (b'{"userImage":null,"refImage":null}', "userImage"),
    "a text for a flag": (b'{"userImage":"x","refImage":"x","rotateImage":"yes"}', "rotateImage"),
    "endless nesting": (nested(20_000), "nested too deeply"),
    "metadata with U+0000": (
        rb'{"userImage":"x","refImage":"x","metadata":{"a":"\u0000"}}',
        "metadata",
    ),
    "half a surrogate": (rb'{"userImage":"x","refImage":"x","metadata":"\ud800"}', ""),
    "a number without end": (b'{"userImage":"x","refImage":"x","metadata":1e400000}', "metadata"),
}


@conforms("POST /v2/face-match", "400 for a bad body, none stored", "exact")
@pytest.mark.parametrize("bad", BAD_BODIES)
def test_a_bad_body_is_refused(flow: Flow, bad: str) -> None:
    body, said = BAD_BODIES[bad]
    headers = {"Content-Type": "application/json"}
    for path in CALLS:
        reply = flow.http.post(path, content=body, headers=headers)
        check_refusal(reply, 400, "VALIDATION_ERROR", said)
    assert flow.total() == 0


@conforms("POST /v2/face-match", "threshold from 0 to 100, else 400", "chosen")
@pytest.mark.parametrize("threshold", [-1, 101, -0.01, 100.01, "30", None, True])
def test_a_threshold_out_of_range_is_refused(
    flow: Flow, people: dict[str, bytes], threshold: Any
) -> None:
    body = {"userImage": as_base64(people["ada"]), "refImage": as_base64(people["ada"])}
    for path, name in (
        (MATCH, "faceMatchScoreDeclineThreshold"),
        (LIVENESS, "faceLivenessScoreDeclineThreshold"),
    ):
        reply = flow.http.post(path, json={**body, name: threshold})
        check_refusal(reply, 400, "VALIDATION_ERROR", name)
    assert flow.total() == 0


@conforms("POST /v2/face-match", "413 for a body over 15 MB", "chosen")
def test_a_body_over_15_megabytes_is_refused(flow: Flow) -> None:
    content = b'{"userImage":"' + b"A" * (16 << 20) + b'"}'
    reply = flow.http.post(MATCH, content=content, headers={"Content-Type": "application/json"})
    check_refusal(reply, 413, "PAYLOAD_TOO_LARGE")


@conforms("any", "401 without a token, whatever the body", "chosen")
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer a.b.c", "Bearer no", "Basic YTpi"])
def test_a_call_without_a_token_is_401(shared_server: Server, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (
        *(("POST", path) for path in CALLS),
        ("GET", REQUESTS),
        ("POST", REQUESTS),
        ("GET", f"{REQUESTS}/req_{'0' * 20}"),
        ("PUT", f"{REQUESTS}/req_{'0' * 20}"),
        ("POST", "/v2/id-verification"),
    ):
        reply = httpx.request(method, shared_server.url + path, headers=headers, content=b"{")
        check_refusal(reply, 401, "UNAUTHORIZED")
        assert reply.headers["www-authenticate"] == "Bearer"


@conforms("any", "403 without the permission", "chosen")
def test_a_key_without_the_permission_is_403(make_flow: MakeFlow, people: dict[str, bytes]) -> None:
    reader = make_flow(permissions=["read"])
    body = {"userImage": as_base64(people["ada"]), "refImage": as_base64(people["ada"])}
    for path in (*CALLS, REQUESTS):
        check_refusal(reader.http.post(path, json=body), 403, "FORBIDDEN")
    assert reader.total() == 0
    matcher = make_flow(permissions=["match", "search"])
    assert matcher.match(people["ada"], people["ada"])
    check_refusal(matcher.http.get(REQUESTS), 403, "FORBIDDEN")
    check_refusal(matcher.http.post(LIVENESS, json=body), 403, "FORBIDDEN", "insert")


@conforms("any", "a trailing slash is accepted", "chosen")
def test_a_trailing_slash_makes_no_difference(flow: Flow, people: dict[str, bytes]) -> None:
    photo = as_base64(people["ada"])
    request = flow.made(MATCH + "/", userImage=photo, refImage=photo)
    assert flow.made(SEARCH + "/", userImage=photo)
    assert flow.made(LIVENESS + "/", userImage=photo)
    assert flow.made(REQUESTS + "/")
    for path in (f"{REQUESTS}/{request['id']}/", REQUESTS + "/"):
        reply = flow.http.get(path, follow_redirects=False)
        assert reply.status_code == 200


@conforms("any", "404 and 405 in the same shape", "chosen")
def test_an_unknown_path_or_method_is_refused_in_shape(flow: Flow) -> None:
    check_refusal(flow.http.get("/v2/nothing"), 404, "NOT_FOUND")
    check_refusal(flow.http.post(f"{REQUESTS}/a/b/c"), 404, "NOT_FOUND")
    check_refusal(flow.http.get(MATCH), 405, "METHOD_NOT_ALLOWED")
    check_refusal(flow.http.delete(f"{REQUESTS}/req_{'0' * 20}"), 405, "METHOD_NOT_ALLOWED")


@conforms("POST /v2/id-verification", "501", "501")
@conforms("POST /v2/age-estimation and others", "501", "501")
@pytest.mark.parametrize(
    "name",
    [
        "id-verification",
        "age-estimation",
        "proof-of-address",
        "aml-screening",
        "database-validation",
        "phone-verification",
        "phone-verification/send",
        "phone-verification/check",
        "email-verification",
        "email-verification/send",
        "email-verification/check",
    ],
)
def test_products_that_are_not_here_are_501(flow: Flow, name: str) -> None:
    for path in (f"/v2/{name}", f"/v2/{name}/"):
        check_refusal(flow.http.post(path, json={"any": "thing"}), 501, "NOT_IMPLEMENTED")
    assert flow.total() == 0
