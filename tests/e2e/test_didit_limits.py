"""What the Didit dialect refuses: keys, forms, too many calls, no credit; and sandbox keys."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from oneton.domain.model import Permission
from tests.e2e.test_bad_input import gif, no_face, six_megabytes, truncated
from tests.fixtures.didit import LIVENESS, MATCH, SEARCH, Didit, MakeDiditOf
from tests.fixtures.servers import Place, Server, run_server

pytestmark = pytest.mark.model

PATHS = (MATCH, SEARCH, LIVENESS)
EVERY = "every path"
NOT_ALLOWED = {"detail": "You do not have permission to perform this action."}
CALLS = [
    ("POST", MATCH),
    ("POST", SEARCH),
    ("POST", LIVENESS),
    ("GET", "/v3/session/x/decision/"),
    ("DELETE", "/v3/session/x/delete/"),
    ("POST", "/v3/sessions/delete/"),
]


def photos(path: str, photo: bytes) -> dict[str, bytes]:
    return {"user_image": photo, **({"ref_image": photo} if path == MATCH else {})}


def as_format(photo: bytes, name: str) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(out, name)
    return out.getvalue()


@pytest.mark.conforms("didit", EVERY, "403 without a key, or with a wrong one", "exact")
@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"x-api-key": "wrong"}])
def test_a_call_without_a_key_is_403(shared_server: Server, headers: dict[str, str]) -> None:
    for method, path in CALLS:
        reply = httpx.request(method, shared_server.url + path, headers=headers, content=b"{")
        assert (reply.status_code, reply.json()) == (403, NOT_ALLOWED)


@pytest.mark.conforms("didit", EVERY, "a switch answers a wrong key with 401", "chosen")
def test_a_switch_answers_a_wrong_key_with_401(
    shared_place: Place, shared_server: Server, didit_of: MakeDiditOf
) -> None:
    with run_server(shared_place, ONETON_DIDIT_401="true") as server:
        for method, path in CALLS:
            reply = httpx.request(method, server.url + path, headers={"x-api-key": "wrong"})
            assert reply.status_code == 401
            assert list(reply.json()) == ["detail"]
            assert httpx.request(method, server.url + path).status_code == 403
        weak = didit_of(shared_place, server).beside(permissions=(Permission.ADMIN,))
        assert weak.http.get("/v3/session/x/decision/").status_code == 403


@pytest.mark.conforms("didit", EVERY, "403 when the key may not", "exact")
def test_a_key_needs_the_permission(didit: Didit, people: dict[str, bytes]) -> None:
    session_id = didit.live(people["ada"])["request_id"]
    weak = didit.beside(permissions=(Permission.ADMIN,))
    for method, path in CALLS:
        reply = weak.http.request(method, path.replace("/x/", f"/{session_id}/"))
        assert (reply.status_code, reply.json()) == (403, NOT_ALLOWED)
    searcher = didit.beside(permissions=(Permission.SEARCH,))
    assert searcher.post(LIVENESS, {"user_image": people["ada"]}).status_code == 403
    searcher.live(people["ada"], save_api_request="false")
    assert didit.stored()["face"] == 1


@pytest.mark.conforms("didit", EVERY, "415 for other content types", "chosen")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sent", ["application/json", "application/x-www-form-urlencoded", None])
def test_other_content_types_are_415(didit: Didit, path: str, sent: str | None) -> None:
    headers = {} if sent is None else {"Content-Type": sent}
    reply = didit.http.post(path, content=b"{}", headers=headers)
    assert reply.status_code == 415
    assert reply.json()["detail"].startswith("Unsupported media type ")


@pytest.mark.conforms("didit", EVERY, "a broken form is 400", "chosen")
@pytest.mark.parametrize(
    ("sent", "content"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"this is no form"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="a"'),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\xfe\r\n--b--\r\n',
        ),
    ],
)
def test_a_broken_form_is_400(didit: Didit, sent: str, content: bytes) -> None:
    reply = didit.http.post(SEARCH, content=content, headers={"Content-Type": sent})
    assert reply.status_code == 400
    assert list(reply.json()) == ["detail"]


BAD_PICTURES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"hello, this is no picture at all",
    "PDF": lambda _: b"%PDF-1.7 and so on",
    "GIF": lambda _: gif(),
    "truncated JPEG": truncated,
    "6 MB": lambda _: six_megabytes(),
    "13 MB": lambda _: b"\xff\xd8\xff" + b"\0" * 13_000_000,
}


@pytest.mark.conforms("didit", EVERY, "a wrong picture is 400 by field; 5 MB at most", "exact")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_400(didit: Didit, people: dict[str, bytes], path: str, name: str) -> None:
    bad = BAD_PICTURES[name](people["ada"])
    reply = didit.post(path, {**photos(path, people["ada"]), "user_image": bad})
    assert reply.status_code == 400
    (said,) = reply.json()["user_image"]
    assert said
    if path == MATCH and name != "13 MB":
        reply = didit.post(path, {"user_image": people["ada"], "ref_image": bad})
        assert (reply.status_code, list(reply.json())) == (400, ["ref_image"])
    assert set(didit.stored().values()) == {0}


@pytest.mark.conforms("didit", EVERY, "a missing file is 400 by field", "chosen")
def test_a_missing_picture_is_400(didit: Didit, people: dict[str, bytes]) -> None:
    missing = {"user_image": ["No file was submitted."]}
    for path in PATHS:
        assert didit.post(path, {}).json() == missing
    reply = didit.post(MATCH, {"user_image": people["ada"]})
    assert reply.json() == {"ref_image": ["No file was submitted."]}
    reply = didit.post(SEARCH, {}, {"user_image": "text"})
    assert (reply.status_code, list(reply.json())) == (400, ["user_image"])


@pytest.mark.conforms("didit", EVERY, "tiff, jpg, png, webp", "exact")
@pytest.mark.parametrize("name", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_every_named_type_is_read(didit: Didit, people: dict[str, bytes], name: str) -> None:
    found = didit.match(as_format(people["ada"], name), people["ada"])["face_match"]
    assert found["status"] == "Approved"


BAD_FIELDS = [
    ("rotate_image", "maybe"),
    ("save_api_request", "2"),
    ("metadata", "{"),
    ("metadata", "[1]"),
    ("metadata", '"text"'),
    ("metadata", r'{"a": "\u0000"}'),
    ("metadata", '{"a": 1e999999}'),
    ("metadata", '{"a":' * 2000 + "1" + "}" * 2000),
    ("metadata", '{"a": "' + "x" * 70_000 + '"}'),
    ("vendor_data", "a\0b"),
    ("vendor_data", "x" * 501),
]


@pytest.mark.conforms("didit", EVERY, "a wrong field is 400 by field", "chosen")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_a_wrong_field_is_400(
    didit: Didit, people: dict[str, bytes], path: str, field: str, value: str
) -> None:
    reply = didit.post(path, photos(path, people["ada"]), {field: value})
    assert (reply.status_code, list(reply.json())) == (400, [field])
    assert set(didit.stored().values()) == {0}


@pytest.mark.conforms("didit", EVERY, "thresholds outside 0 to 100 are 400", "exact")
@pytest.mark.parametrize("value", ["-0.01", "100.01", "nan", "inf", "many", "1,5"])
def test_a_threshold_is_from_0_to_100(didit: Didit, people: dict[str, bytes], value: str) -> None:
    for path, field in (
        (MATCH, "face_match_score_decline_threshold"),
        (LIVENESS, "face_liveness_score_decline_threshold"),
    ):
        reply = didit.post(path, photos(path, people["ada"]), {field: value})
        assert (reply.status_code, list(reply.json())) == (400, [field])
    reply = didit.post(SEARCH, photos(SEARCH, people["ada"]), {"search_type": "all"})
    assert (reply.status_code, list(reply.json())) == (400, ["search_type"])


def test_empty_and_unknown_fields_count_as_not_sent(didit: Didit, people: dict[str, bytes]) -> None:
    fields = dict.fromkeys(("metadata", "vendor_data", "rotate_image", "search_type"), "")
    reply = didit.search(people["ada"], **fields, unknown="1", metadata_too="x")
    assert (reply["metadata"], reply["vendor_data"]) == (None, None)


@pytest.mark.conforms("didit", EVERY, "300 writes a minute and key, on all replicas", "exact")
def test_a_key_may_write_300_times_a_minute_on_all_replicas(
    shared_place: Place, didit: Didit
) -> None:
    with run_server(shared_place) as second, ThreadPoolExecutor(8) as pool:
        both = (didit, didit.at(second))

        def call(turn: int) -> httpx.Response:
            return both[turn % 2].post(PATHS[turn % 3], {})

        replies = list(pool.map(call, range(400)))
    assert Counter(reply.status_code for reply in replies) == {400: 300, 429: 100}
    for reply in replies:
        if reply.status_code == 429:
            wait_s = int(reply.headers["Retry-After"])
            assert 1 <= wait_s <= 60
            said = f"Request was throttled. Expected available in {wait_s} seconds."
            assert reply.json() == {"detail": said}
    assert didit.http.get("/v3/session/x/decision/").status_code == 404
    assert didit.beside().post(SEARCH, {}).status_code == 400


@pytest.mark.conforms("didit", EVERY, "600 reads a minute and key", "exact")
def test_a_key_may_read_600_times_a_minute(didit: Didit) -> None:
    path = f"/v3/session/{uuid4()}/decision/"
    with ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda _: didit.http.get(path).status_code, range(650))
        assert Counter(replies) == {404: 600, 429: 50}
    assert didit.post(SEARCH, {}).status_code == 400


@pytest.mark.conforms("didit", EVERY, "a 200 costs a credit; none left: 403 first", "exact")
def test_a_credit_is_spent_by_a_200_only(didit: Didit, people: dict[str, bytes]) -> None:
    didit.set_credits(4)
    for path in PATHS:
        assert didit.post(path, photos(path, people["ada"])).status_code == 200
    assert didit.credits() == 1
    for wrong in (no_face(), truncated(people["ada"]), b"text"):
        assert didit.post(SEARCH, {"user_image": wrong}).status_code == 400
    assert didit.credits() == 1
    # A picture without a face is an answer, too.
    assert didit.post(LIVENESS, {"user_image": no_face()}).status_code == 200
    assert didit.credits() == 0
    before = didit.stored()
    for path in PATHS:
        # Before any work on the picture: a broken one is not even looked at.
        reply = didit.post(path, photos(path, truncated(people["ada"])))
        assert (reply.status_code, list(reply.json())) == (403, ["detail"])
    assert didit.stored() == before
    assert didit.credits() == 0


@pytest.mark.conforms("didit", EVERY, "a failed enrolment leaves nothing, costs nothing", "chosen")
def test_a_face_below_the_floor_leaves_nothing(didit: Didit, people: dict[str, bytes]) -> None:
    didit.set_credits(1)
    didit.set_floor(10_000)
    reply = didit.post(LIVENESS, {"user_image": people["ada"]})
    assert (reply.status_code, list(reply.json())) == (400, ["user_image"])
    assert set(didit.stored().values()) == {0}
    assert didit.credits() == 1


@pytest.mark.conforms("didit", EVERY, "sandbox keys: checked, fixed reply, nothing stored", "exact")
def test_a_sandbox_key_is_answered_and_nothing_is_stored(
    didit: Didit, people: dict[str, bytes]
) -> None:
    didit.block(people["ada"])
    didit.set_credits(0)
    session_id = didit.insert_session(people["ada"])
    before = didit.stored()
    sandbox = didit.beside(sandbox=True)
    sent = {"vendor_data": "v", "metadata": '{"a": 1}'}
    for path, feature in zip(PATHS, ("face_match", "face_search", "liveness"), strict=True):
        reply = sandbox.post(path, photos(path, people["ada"]), sent).json()
        assert reply[feature]["status"] == "Approved"
        assert reply[feature]["warnings"] == []
        assert (reply["vendor_data"], reply["metadata"]) == ("v", {"a": 1})
        decision = f"/v3/session/{reply['request_id']}/decision/"
        assert sandbox.http.get(decision).status_code == 404
        # Validation still runs.
        assert sandbox.post(path, {}).status_code == 400
        assert sandbox.post(path, photos(path, b"text")).status_code == 400
        assert sandbox.post(path, photos(path, people["ada"]), {"metadata": "["}).status_code == 400
    # What is real, it neither sees nor touches.
    for method, what in (("GET", "decision"), ("DELETE", "delete")):
        assert sandbox.http.request(method, f"/v3/session/{session_id}/{what}/").status_code == 404
    reply = sandbox.http.post("/v3/sessions/delete/", json={"delete_all": True})
    assert (reply.status_code, reply.json()) == (200, {"deleted": []})
    assert didit.stored() == before


@pytest.mark.conforms("didit", EVERY, "the sandbox's replies have the real ones' shape", "exact")
def test_a_sandbox_reply_has_the_shape_of_a_real_one(
    didit: Didit, people: dict[str, bytes]
) -> None:
    sandbox = didit.beside(sandbox=True)
    for path, feature in zip(PATHS, ("face_match", "face_search", "liveness"), strict=True):
        real = didit.post(path, photos(path, people["bea"])).json()
        fixed = sandbox.post(path, photos(path, people["bea"])).json()
        assert set(fixed) == set(real)
        assert set(fixed[feature]) == set(real[feature])
        (there,), (here,) = (reply[feature]["user_image"]["entities"] for reply in (real, fixed))
        assert set(here) == set(there)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
def test_unknown_methods_and_paths_have_the_same_form(didit: Didit, method: str) -> None:
    reply = didit.http.request(method, MATCH)
    assert (reply.status_code, list(reply.json())) == (405, ["detail"])
    reply = didit.http.request(method, "/v3/nowhere/")
    assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})


def test_pictures_of_noise_are_no_server_error(didit: Didit, rng: np.random.Generator) -> None:
    noise = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    assert didit.post(SEARCH, {"user_image": data}).status_code == 400
    assert didit.post(LIVENESS, {"user_image": data}).status_code == 200
