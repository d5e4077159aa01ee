"""The native API's face records."""

from __future__ import annotations

import asyncio
import io
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from _photos import variations
from PIL import Image

from tests.fixtures.native import DEFAULT, MakeNative, Native, check_problem
from tests.fixtures.servers import Place, as_base64

pytestmark = pytest.mark.model

ENROLL = "POST /v1/galleries/{gallery}/faces"


def conforms(call: str, what: str) -> pytest.MarkDecorator:
    return pytest.mark.conforms("native", call, what, "exact")


@conforms(ENROLL, "201 with the record, its faces in the picture, and its address")
def test_enroll_adds_with_reference_and_metadata(native: Native, people: dict[str, bytes]) -> None:
    body = {"image": as_base64(people["ada"]), "external_id": "A 1", "metadata": {"k": [1, None]}}
    reply = native.http.post(DEFAULT, json=body)
    assert reply.status_code == 201
    done = reply.json()
    assert UUID(done["face_id"]).version == 7
    assert (done["gallery"], done["added"], done["score"]) == ("default", True, None)
    assert (len(done["detected"]), done["warnings"]) == (1, [])
    assert done["detected"][0]["size_px"] > 100
    face = native.json(reply.headers["location"])
    assert face.pop("created_at").endswith("Z")
    assert face == {
        "face_id": done["face_id"],
        "gallery": "default",
        "gallery_kind": "enrollment",
        "external_id": "A 1",
        "metadata": {"k": [1, None]},
        "has_image": True,
        "source": None,
        "request_id": None,
    }


@conforms(ENROLL, "if_missing: 200 with the record that matches, else 201")
def test_enroll_if_missing_adds_once(native: Native, people: dict[str, bytes]) -> None:
    face_id = native.enroll(people["bea"], if_missing=True)
    body = {"image": as_base64(variations(people["bea"], 1, 4)[0]), "if_missing": True}
    reply = native.http.post(DEFAULT, json=body)
    assert reply.status_code == 200
    done = reply.json()
    assert (done["face_id"], done["added"]) == (face_id, False)
    assert done["score"] >= 50
    assert native.enroll(people["bea"]) != face_id


@conforms(ENROLL, "multipart/form-data with the picture as a file")
def test_enroll_reads_a_form(native: Native, people: dict[str, bytes]) -> None:
    fields = {"if_missing": "true", "external_id": "é", "metadata": '{"a": 1}'}
    reply = native.http.post(DEFAULT, files={"image": people["cas"]}, data=fields)
    assert reply.status_code == 201
    face = native.json(f"/v1/faces/{reply.json()['face_id']}")
    assert (face["external_id"], face["metadata"]) == ("é", {"a": 1})
    reply = native.http.post(DEFAULT, files={"image": people["cas"]}, data=fields)
    assert reply.status_code == 200


@conforms(ENROLL, "JPEG, PNG, WebP, BMP and TIFF; base64 with or without a data URL")
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_enroll_accepts_each_type(native: Native, people: dict[str, bytes], kind: str) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(people["dan"])).save(out, kind)
    body = {"image": f"data:image/any;base64,{as_base64(out.getvalue())}"}
    reply = native.http.post(DEFAULT, json=body)
    assert reply.status_code == 201, reply.text


@conforms(ENROLL, "several faces: the largest counts, with a warning")
def test_enroll_warns_of_several_faces(native: Native, people: dict[str, bytes]) -> None:
    both = Image.new("RGB", (500, 250))
    for at, name in enumerate(("gus", "hal")):
        both.paste(Image.open(io.BytesIO(people[name])), (250 * at, 0))
    out = io.BytesIO()
    both.save(out, "JPEG", quality=95)
    done = native.http.post(DEFAULT, json={"image": as_base64(out.getvalue())}).json()
    assert (len(done["detected"]), done["warnings"]) == (2, ["several_faces"])


@pytest.fixture
def stored_nothing(native: Native, shared_place: Place) -> Any:
    before = asyncio.run(stored(shared_place))
    yield
    assert asyncio.run(stored(shared_place)) == before


async def stored(place: Place) -> tuple[int, int]:
    return await place.count("face"), len(await place.objects())


def no_face() -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "PNG")
    return out.getvalue()


def gif() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20)).save(out, "GIF")
    return out.getvalue()


@conforms(ENROLL, "413 too_large, 415 unsupported_type, 422 bad_image and no_face")
@pytest.mark.usefixtures("stored_nothing")
@pytest.mark.parametrize(
    ("picture", "status", "code"),
    [
        (no_face(), 422, "no_face"),
        (gif(), 415, "unsupported_type"),
        (b"hello, this is no picture at all", 415, "unsupported_type"),
        (no_face()[:300], 422, "bad_image"),
        (b"\xff\xd8\xff" + bytes(10 * 1024 * 1024), 413, "too_large"),
    ],
    ids=["no face", "GIF", "text", "truncated", "11 MB"],
)
def test_a_bad_picture_is_refused(native: Native, picture: bytes, status: int, code: str) -> None:
    for reply in (
        native.http.post(DEFAULT, json={"image": as_base64(picture)}),
        native.http.post(DEFAULT, files={"image": picture}),
    ):
        body = check_problem(reply, status, code, "image")
        assert body["errors"][0]["code"] == code


@conforms(ENROLL, "422 low_quality below the gallery's floor")
def test_a_face_below_the_floor_is_refused(native: Native, people: dict[str, bytes]) -> None:
    native.create("strict", quality_floor={"size_px": 2000})
    reply = native.http.post("/v1/galleries/strict/faces", json={"image": as_base64(people["ada"])})
    check_problem(reply, 422, "low_quality", "image")


@conforms(ENROLL, "400 invalid_input names the field")
@pytest.mark.usefixtures("stored_nothing")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image": None}, "image"),
        ({"image": ""}, "image"),
        ({"image": "%%%"}, "image"),
        ({"image": 5}, "image"),
        ({"if_missing": "yes"}, "if_missing"),
        ({"external_id": ""}, "external_id"),
        ({"external_id": "x" * 256}, "external_id"),
        ({"external_id": "a\0b"}, "external_id"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {"a": "\0"}}, "metadata"),
        ({"metadata": {"a": "x" * 16384}}, "metadata"),
        ({"galery": "a"}, "galery"),
    ],
)
def test_enroll_refuses_bad_fields(
    native: Native, people: dict[str, bytes], change: dict[str, object], field: str
) -> None:
    reply = native.http.post(DEFAULT, json={"image": as_base64(people["ada"]), **change})
    body = check_problem(reply, 400, "invalid_input")
    assert field in body["detail"] or body["errors"] == []


def test_metadata_may_spell_out_a_nul(native: Native, people: dict[str, bytes]) -> None:
    said = {"a": "\\u0000", "n": 1.5, "i": -(2**63)}
    face_id = native.enroll(people["ada"], metadata=said)
    assert native.json(f"/v1/faces/{face_id}")["metadata"] == said


@conforms(ENROLL, "400 for a body that is no JSON or no form, 415 for another kind, 413 over 32 MB")
@pytest.mark.usefixtures("stored_nothing")
def test_a_body_that_cannot_be_read_is_refused(native: Native, people: dict[str, bytes]) -> None:
    def post(content: bytes, kind: str) -> httpx.Response:
        return native.http.post(DEFAULT, content=content, headers={"Content-Type": kind})

    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"):
        check_problem(post(content, "application/json"), 400, "invalid_input")
    form = "multipart/form-data"
    check_problem(post(b"x", form), 400, "invalid_input")
    check_problem(post(b"x", f"{form}; boundary=a"), 400, "invalid_input")
    part = b'--a\r\nContent-Disposition: form-data; name="external_id"\r\n\r\n\xff\r\n--a--\r\n'
    check_problem(post(part, f"{form}; boundary=a"), 400, "invalid_input")
    check_problem(native.http.post(DEFAULT, files={"other": b"x"}), 400, "invalid_input")
    twice = [("image", people["ada"]), ("image", people["ada"])]
    check_problem(native.http.post(DEFAULT, files=twice), 400, "invalid_input", "image")
    bad = native.http.post(DEFAULT, files={"image": people["ada"]}, data={"metadata": "{"})
    check_problem(bad, 400, "invalid_input", "metadata")
    check_problem(post(b"<a/>", "application/xml"), 415, "unsupported_type")
    check_problem(post(b" " * 34_000_000, "application/json"), 413, "too_large")


@conforms("GET /v1/galleries/{gallery}/faces", "pages with a cursor, the oldest first")
@conforms("GET /v1/galleries/{gallery}/faces", "filters external_id and has_image")
def test_list_pages_and_filters(native: Native, people: dict[str, bytes]) -> None:
    ids = [native.enroll(people["ada"], external_id=f"ref {n % 2}") for n in range(5)]
    pages = native.pages(DEFAULT, limit=2)
    assert [[each["face_id"] for each in page] for page in pages] == [ids[:2], ids[2:4], ids[4:]]
    pages = native.pages(DEFAULT, limit=2, external_id="ref 0")
    assert [[each["face_id"] for each in page] for page in pages] == [ids[:4:2], ids[4:]]
    assert native.http.delete(f"/v1/faces/{ids[1]}/image").status_code == 204
    erased = native.pages(DEFAULT, has_image="false")
    assert [each["face_id"] for page in erased for each in page] == [ids[1]]
    assert len(native.json(DEFAULT, has_image="true")["items"]) == 4
    check_problem(native.http.get(DEFAULT, params={"has_image": "x"}), 400, "invalid_input")
    reply = native.http.get(DEFAULT, params={"external_id": "a\0"})
    check_problem(reply, 400, "invalid_input", "external_id")


@conforms("PATCH /v1/faces/{face_id}", "changes external_id and metadata; null removes")
def test_change_replaces_what_is_given(native: Native, people: dict[str, bytes]) -> None:
    face_id = native.enroll(people["ada"], external_id="old", metadata={"a": 1})
    path = f"/v1/faces/{face_id}"
    changed = native.http.patch(path, json={"external_id": "new"}).json()
    assert (changed["external_id"], changed["metadata"]) == ("new", {"a": 1})
    changed = native.http.patch(path, json={"external_id": None, "metadata": {"b": 2}}).json()
    assert (changed["external_id"], changed["metadata"]) == (None, {"b": 2})
    assert native.http.patch(path, json={"metadata": None}).json()["metadata"] is None
    check_problem(native.http.patch(path, json={"face_id": 1}), 400, "invalid_input", "face_id")


@conforms("GET /v1/faces/{face_id}/image-link", "a short-lived link that needs no key")
@conforms("DELETE /v1/faces/{face_id}/image", "204; the face keeps matching, its link is 404")
def test_image_by_link_until_it_is_erased(native: Native, people: dict[str, bytes]) -> None:
    face_id = native.enroll(people["eve"])
    path = f"/v1/faces/{face_id}"
    link = native.json(f"{path}/image-link", life_s=60)
    reply = httpx.get(link["url"])
    assert (reply.status_code, reply.content) == (200, people["eve"])
    assert reply.headers["content-type"] == "image/jpeg"
    assert httpx.get(link["url"][:-3]).status_code == 404
    check_problem(
        native.http.get(f"{path}/image-link", params={"life_s": 5}), 400, "invalid_input", "life_s"
    )
    for _ in range(2):
        assert native.http.delete(f"{path}/image").status_code == 204
    check_problem(native.http.get(f"{path}/image-link"), 404, "not_found")
    assert httpx.get(link["url"]).status_code == 404
    assert native.json(path)["has_image"] is False
    found = native.identify(people["eve"])
    assert (found["match"], found["candidates"][0]["image_url"]) == (True, None)


@conforms("DELETE /v1/faces/{face_id}", "204; the id is gone from every answer")
def test_purge_removes_everything(
    native: Native, shared_place: Place, people: dict[str, bytes]
) -> None:
    face_id = native.enroll(people["fay"])
    assert native.http.delete(f"/v1/faces/{face_id}").status_code == 204
    check_problem(native.http.delete(f"/v1/faces/{face_id}"), 404, "not_found")
    check_problem(native.http.get(f"/v1/faces/{face_id}"), 404, "not_found")
    assert native.identify(people["fay"])["candidates"] == []
    assert not any(key.endswith(face_id) for key in asyncio.run(shared_place.objects()))


FACE_CALLS = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("GET", "/image-link"),
    ("DELETE", "/image"),
]


@conforms("GET /v1/faces/{face_id}", "404 not_found for an unknown id")
@pytest.mark.parametrize(("method", "path"), FACE_CALLS)
def test_an_unknown_face_is_not_found(
    native: Native, make_native: MakeNative, people: dict[str, bytes], method: str, path: str
) -> None:
    theirs = make_native().enroll(people["ada"])
    body: dict[str, str] | None = {} if method == "PATCH" else None
    for face_id in (theirs, uuid4(), "no-uuid"):
        reply = native.http.request(method, f"/v1/faces/{face_id}{path}", json=body)
        check_problem(reply, 404, "not_found")


def test_another_tenants_gallery_is_not_found(
    native: Native, make_native: MakeNative, people: dict[str, bytes]
) -> None:
    make_native().create("theirs")
    path = "/v1/galleries/theirs/faces"
    check_problem(native.http.get(path), 404, "not_found")
    reply = native.http.post(path, json={"image": as_base64(people["ada"])})
    check_problem(reply, 404, "not_found")
