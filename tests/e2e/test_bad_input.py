"""Bad input: the documented status and body each, and nothing stored."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.fixtures.servers import INSERT, MATCH, SEARCH, Client, Place, Server, as_base64

pytestmark = pytest.mark.model

PATHS = (SEARCH, INSERT, MATCH)


def no_face() -> bytes:
    stripes = np.tile(np.arange(250, dtype=np.uint8), (250, 1))
    return encode(np.dstack([stripes, stripes.T, stripes]), ".jpg")


def encode(pixels: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def gif() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20)).save(out, "GIF")
    return out.getvalue()


def webp() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20)).save(out, "WEBP")
    return out.getvalue()


def png_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A small valid PNG that would be 7.5 GB of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def six_megabytes() -> bytes:
    noise = np.random.default_rng(2).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    data = encode(noise, ".png")
    assert len(data) > 6_000_000
    return data


def truncated(photo: bytes) -> bytes:
    return photo[: len(photo) // 2]


PICTURES: dict[str, tuple[Callable[[bytes], bytes], int, str]] = {
    "text": (lambda _: b"hello, this is no picture at all", 415, "UNSUPPORTED_IMAGE_TYPE"),
    "truncated JPEG": (truncated, 400, "INVALID_IMAGE"),
    "6 MB": (lambda _: six_megabytes(), 413, "IMAGE_TOO_LARGE"),
    "GIF": (lambda _: gif(), 415, "UNSUPPORTED_IMAGE_TYPE"),
    "WebP": (lambda _: webp(), 415, "UNSUPPORTED_IMAGE_TYPE"),
    "SVG": (
        lambda _: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        415,
        "UNSUPPORTED_IMAGE_TYPE",
    ),
    "PNG bomb": (lambda _: png_bomb(), 413, "IMAGE_TOO_LARGE"),
    "PNG with a broken body": (lambda _: png_bomb(300, 300)[:200], 400, "INVALID_IMAGE"),
    "no face": (lambda _: no_face(), 400, "FACE_NOT_FOUND"),
}

BODIES: dict[str, tuple[Any, int, str]] = {
    "empty picture": ({"idPhoto": "", "sourceImage": "", "targetImage": ""}, 400, ""),
    "bad base64": (
        {"idPhoto": "%%%%", "sourceImage": "%%%%", "targetImage": "%%%%"},
        400,
        "INVALID_BASE64",
    ),
    "wrong JSON type": ({"idPhoto": 5, "sourceImage": [], "targetImage": {}}, 400, "INVALID_INPUT"),
    "missing field": ({"photo": "x"}, 400, "MISSING_INPUT"),
    "an array": ([], 400, "INVALID_INPUT"),
    "null": (None, 400, "INVALID_INPUT"),
}


@pytest.fixture
def stored_nothing(client: Client, shared_place: Place) -> Any:
    """Fail when the test leaves a row of this tenant, or an object of anybody's."""
    before = asyncio.run(stored(shared_place))
    yield
    assert asyncio.run(stored(shared_place)) == before


async def stored(place: Place) -> tuple[int, int]:
    """The number of face rows, and of objects."""
    return await place.count("face"), len(await place.objects())


def check_error(reply: httpx.Response, path: str, status: int, code: str) -> None:
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert body["status"] == status
    assert body["path"] == path
    assert body["message"].startswith(code)
    assert set(body) == {"timestamp", "status", "error", "message", "path"}


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "400, 413, 415 by picture; nothing kept", "exact")
@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "no face is 400 FACE_NOT_FOUND", "chosen")
@pytest.mark.conforms("uqudo", f"POST {INSERT}", "400, 413, 415 by picture; nothing kept", "exact")
@pytest.mark.conforms("uqudo", f"POST {INSERT}", "no face is 400 FACE_NOT_FOUND", "chosen")
@pytest.mark.conforms("uqudo", f"POST {MATCH}", "400, 413, 415 by picture; nothing kept", "exact")
@pytest.mark.conforms("uqudo", f"POST {MATCH}", "no face is 400 FACE_NOT_FOUND", "chosen")
@pytest.mark.usefixtures("stored_nothing")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", PICTURES)
def test_a_bad_picture_is_refused(
    client: Client, people: dict[str, bytes], path: str, name: str
) -> None:
    make, status, code = PICTURES[name]
    bad, good = as_base64(make(people["ada"])), as_base64(people["ada"])
    body = {"sourceImage": good, "targetImage": bad} if path == MATCH else {"idPhoto": bad}
    check_error(client.http.post(path, json=body), path, status, code)


@pytest.mark.conforms("uqudo", f"POST {SEARCH}", "400 for a bad body", "exact")
@pytest.mark.conforms("uqudo", f"POST {INSERT}", "400 for a bad body", "exact")
@pytest.mark.conforms("uqudo", f"POST {MATCH}", "400 for a bad body", "exact")
@pytest.mark.usefixtures("stored_nothing")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused(client: Client, path: str, name: str) -> None:
    body, status, code = BODIES[name]
    check_error(client.http.post(path, json=body), path, status, code)


@pytest.mark.usefixtures("stored_nothing")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"idPhoto": "', b"[" * 100_000])
def test_broken_json_is_refused(client: Client, path: str, content: bytes) -> None:
    reply = client.http.post(path, content=content, headers={"Content-Type": "application/json"})
    check_error(reply, path, 400, "")


@pytest.mark.conforms("uqudo", f"POST {MATCH}", "a body over 15 MB is 413", "chosen")
@pytest.mark.usefixtures("stored_nothing")
@pytest.mark.parametrize("path", PATHS)
def test_a_body_over_15_mb_is_refused(client: Client, path: str) -> None:
    check_error(client.http.post(path, content=b" " * 16_000_000), path, 413, "BODY_TOO_LARGE")


def test_a_huge_header_is_refused_and_others_are_served(
    client: Client, shared_server: Server
) -> None:
    reply = httpx.get(shared_server.url + "/livez", headers={"X-Long": "a" * 200_000})
    assert reply.status_code == 431
    assert reply.json()["status"] == 431
    assert client.http.get("/livez").status_code == 200


def test_bytes_that_are_no_http_are_answered_in_json(shared_server: Server) -> None:
    where = urlsplit(shared_server.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        reply = raw.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b'"status": 400' in reply


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", SEARCH, 405), ("PUT", MATCH, 405), ("GET", "/nowhere", 404), ("POST", "/", 404)],
)
def test_unknown_routes_have_the_same_form(
    client: Client, method: str, path: str, status: int
) -> None:
    reply = client.http.request(method, path)
    assert (reply.status_code, reply.json()["status"]) == (status, status)


@pytest.mark.slow
def test_memory_is_back_after_a_storm_of_bad_pictures(
    client: Client, shared_server: Server, people: dict[str, bytes]
) -> None:
    process = psutil.Process(shared_server.process.pid)
    bodies = [{"idPhoto": as_base64(make(people["ada"]))} for make, _, _ in PICTURES.values()]

    def storm() -> int:
        for body in bodies:
            client.http.post(SEARCH, json=body)
        return int(process.memory_info().rss)

    storm()
    before = storm()
    for _ in range(8):
        after = storm()
    assert after < before + 30 * 2**20
    assert client.http.get("/readyz").json()["ready"] is True
