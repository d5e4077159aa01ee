"""The native API's 1:N search and 1:1 comparison."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest
from _photos import variations

from tests.fixtures.native import MakeNative, Native, check_problem
from tests.fixtures.servers import as_base64

pytestmark = pytest.mark.model

IDENTIFY, VERIFY = "POST /v1/identify", "POST /v1/verify"
KINDS = {"default": "enrollment", "bad": "blocklist", "good": "allowlist"}


def conforms(call: str, what: str) -> pytest.MarkDecorator:
    return pytest.mark.conforms("native", call, what, "exact")


@pytest.fixture
def filled(native: Native, people: dict[str, bytes]) -> dict[str, str]:
    """Three galleries of the three kinds: ada is in each, others in one; ids by name."""
    for name in ("bad", "good"):
        native.create(name, kind=KINDS[name])
    ids = {}
    for number, gallery in enumerate(KINDS):
        photo = variations(people["ada"], 3, 7)[number]
        ids[f"ada {gallery}"] = native.enroll(photo, gallery, external_id=f"ref {gallery}")
    ids["bea"] = native.enroll(people["bea"], "bad", metadata={"case": 7})
    ids["cas"] = native.enroll(people["cas"], "good")
    return ids


@conforms(IDENTIFY, "one ranking over several galleries, each candidate with gallery and reference")
def test_candidates_of_three_galleries_are_ranked_together(
    native: Native, people: dict[str, bytes], filled: dict[str, str]
) -> None:
    found = native.identify(people["ada"], galleries=list(KINDS))
    candidates = found["candidates"]
    assert found["match"] is True
    assert [each["rank"] for each in candidates] == [1, 2, 3, 4, 5]
    scores = [each["score"] for each in candidates]
    assert scores == sorted(scores, reverse=True)
    matches = [each for each in candidates if each["match"]]
    assert {each["face_id"] for each in matches} == {filled[f"ada {name}"] for name in KINDS}
    for each in matches:
        assert each["gallery_kind"] == KINDS[each["gallery"]]
        assert each["external_id"] == f"ref {each['gallery']}"
        assert (each["cosine"], each["fmr"]) == (None, None)
        photo = httpx.get(each["image_url"])
        assert photo.headers["content-type"] == "image/jpeg"
    (bea,) = [each for each in candidates if each["face_id"] == filled["bea"]]
    assert bea["metadata"] == {"case": 7}
    assert found["explanation"] is None
    assert found["request_id"] is None


@conforms(IDENTIFY, "galleries default to the default one; limit and matches_only")
@pytest.mark.usefixtures("filled")
def test_limit_and_matches_only_leave_candidates_out(
    native: Native, people: dict[str, bytes], filled: dict[str, str]
) -> None:
    found = native.identify(people["ada"])
    assert [each["face_id"] for each in found["candidates"]] == [filled["ada default"]]
    found = native.identify(people["ada"], galleries=list(KINDS), limit=2)
    assert len(found["candidates"]) == 2
    found = native.identify(people["bea"], galleries=list(KINDS), matches_only=True)
    assert [each["face_id"] for each in found["candidates"]] == [filled["bea"]]
    found = native.identify(people["hal"], galleries=list(KINDS), matches_only=True)
    assert (found["match"], found["candidates"]) == (False, [])
    twice = native.identify(people["ada"], galleries=["default", "default"])
    assert len(twice["candidates"]) == 1


@conforms(IDENTIFY, "a threshold of the call takes the place of the galleries'")
@pytest.mark.usefixtures("filled")
def test_a_threshold_judges_every_gallery(native: Native, people: dict[str, bytes]) -> None:
    found = native.identify(people["ada"], galleries=list(KINDS), threshold=0)
    assert all(each["match"] for each in found["candidates"])
    score = found["candidates"][1]["score"]
    found = native.identify(people["ada"], galleries=list(KINDS), threshold=score)
    assert [each["match"] for each in found["candidates"]][:3] == [True, True, False]
    assert native.identify(people["hal"], threshold=100)["match"] is False


@conforms(IDENTIFY, "a target FPIR: the threshold follows each gallery's size")
@pytest.mark.usefixtures("filled")
def test_a_target_follows_the_size_of_each_gallery(
    native: Native, people: dict[str, bytes]
) -> None:
    found = native.identify(people["ada"], galleries=list(KINDS), target_fpir=0.001, explain=True)
    searched = {each["gallery"]: each for each in found["explanation"]["galleries"]}
    assert {name: each["faces"] for name, each in searched.items()} == {
        "default": 1,
        "bad": 2,
        "good": 2,
    }
    for each in searched.values():
        assert each["fmr"] == pytest.approx(0.001 / each["faces"], rel=1e-6)
    assert searched["default"]["threshold"] == pytest.approx(30)
    assert searched["bad"]["threshold"] > 30
    both = {"image": as_base64(people["ada"]), "threshold": 50, "target_fpir": 0.1}
    reply = native.http.post("/v1/identify", json=both)
    check_problem(reply, 400, "invalid_input", "target_fpir")


@conforms(IDENTIFY, "explain: head, faces, model pack, threshold, cosine and FMR of each gallery")
def test_explain_says_how_the_answer_came_about(
    native: Native, people: dict[str, bytes], filled: dict[str, str]
) -> None:
    assert native.http.delete(f"/v1/faces/{filled['cas']}").status_code == 204
    found = native.identify(people["ada"], galleries=list(KINDS), explain=True)
    searched = found["explanation"]["galleries"]
    assert [(each["gallery"], each["gallery_kind"]) for each in searched] == list(KINDS.items())
    assert [(each["head"], each["faces"]) for each in searched] == [(1, 1), (2, 2), (3, 1)]
    for each in searched:
        assert each["model_pack"] == "buffalo_sc"
        assert each["threshold"] == 50.0
        assert each["fmr"] == pytest.approx(1e-5)
        assert each["cosine"] == pytest.approx(0.33, abs=0.01)
    cosines = [each["cosine"] for each in found["candidates"]]
    assert cosines == sorted(cosines, reverse=True)
    for each in found["candidates"]:
        if 0 < each["score"] <= 60:
            assert each["fmr"] == pytest.approx(10 ** (-each["score"] / 10), rel=1e-6)
        elif each["score"] > 60:
            assert each["fmr"] <= 1e-6


@conforms(IDENTIFY, "400, 404, 413, 415 and 422 as documented")
def test_identify_refuses_what_it_cannot_use(native: Native, people: dict[str, bytes]) -> None:
    good = as_base64(people["ada"])

    def post(**fields: Any) -> httpx.Response:
        return native.http.post("/v1/identify", json=fields)

    check_problem(post(), 400, "invalid_input", "image")
    check_problem(post(image=good, limit=0), 400, "invalid_input", "limit")
    check_problem(post(image=good, limit=101), 400, "invalid_input", "limit")
    check_problem(post(image=good, galleries=[]), 400, "invalid_input", "galleries")
    check_problem(post(image=good, galleries=["A"]), 400, "invalid_input")
    check_problem(post(image=good, galleries=["default", "none"]), 404, "not_found")
    check_problem(post(image=as_base64(b"GIF89a")), 415, "unsupported_type", "image")
    check_problem(post(image=as_base64(b"\xff\xd8\xff\xe0")), 422, "bad_image", "image")
    reply = native.http.post("/v1/identify", files={"image": people["ada"]}, data={"limit": "x"})
    check_problem(reply, 400, "invalid_input", "limit")


@conforms(IDENTIFY, "multipart/form-data, galleries repeated")
@pytest.mark.usefixtures("filled")
def test_identify_reads_a_form(native: Native, people: dict[str, bytes]) -> None:
    fields = {"galleries": ["bad", "good"], "limit": "1", "explain": "true"}
    found = native.http.post("/v1/identify", files={"image": people["bea"]}, data=fields).json()
    assert [each["gallery"] for each in found["candidates"]] == ["bad"]
    assert len(found["explanation"]["galleries"]) == 2


def test_another_tenants_faces_are_never_candidates(
    native: Native, make_native: MakeNative, people: dict[str, bytes]
) -> None:
    theirs = make_native()
    theirs.create("theirs")
    theirs.enroll(people["ada"], "theirs")
    theirs.enroll(people["ada"])
    assert native.identify(people["ada"])["candidates"] == []
    body = {"image": as_base64(people["ada"]), "galleries": ["theirs"]}
    check_problem(native.http.post("/v1/identify", json=body), 404, "not_found")


@conforms(VERIFY, "match, score, level and cosine; threshold 40 by default")
def test_verify_compares_two_pictures(native: Native, people: dict[str, bytes]) -> None:
    def verify(target: bytes, **fields: Any) -> dict[str, Any]:
        body = {"source": as_base64(people["ada"]), "target": as_base64(target), **fields}
        reply = native.http.post("/v1/verify", json=body)
        assert reply.status_code == 200, reply.text
        compared: dict[str, Any] = reply.json()
        return compared

    same = verify(variations(people["ada"], 1, 3)[0])
    assert (same["match"], same["threshold"], same["match_level"]) == (True, 40.0, 5)
    assert len(same["detected"]["source"]) == len(same["detected"]["target"]) == 1
    assert (same["warnings"], same["request_id"]) == ([], None)
    other = verify(people["bea"])
    assert other["match"] is False
    assert other["score"] < 40
    assert verify(people["bea"], threshold=other["score"])["match"] is True
    assert verify(people["ada"])["score"] == pytest.approx(100)
    assert -1 <= other["cosine"] < same["cosine"] <= 1


@conforms(VERIFY, "a refused picture is named, both when both are")
def test_verify_names_the_picture_that_it_refuses(native: Native, people: dict[str, bytes]) -> None:
    good, bad = as_base64(people["ada"]), as_base64(b"\xff\xd8\xff\xe0")
    reply = native.http.post("/v1/verify", json={"source": good, "target": bad})
    body = check_problem(reply, 422, "bad_image", "target")
    assert len(body["errors"]) == 1
    reply = native.http.post("/v1/verify", json={"source": as_base64(b"GIF89a"), "target": bad})
    body = check_problem(reply, 415, "unsupported_type", "source")
    assert [each["code"] for each in body["errors"]] == ["unsupported_type", "bad_image"]
    check_problem(
        native.http.post("/v1/verify", json={"source": good}), 400, "invalid_input", "target"
    )
    reply = native.http.post("/v1/verify", json={"source": good, "target": good, "threshold": -1})
    check_problem(reply, 400, "invalid_input", "threshold")


@conforms(VERIFY, "multipart/form-data with two files")
def test_verify_reads_a_form(native: Native, people: dict[str, bytes]) -> None:
    files = {"source": people["ada"], "target": people["ada"]}
    reply = native.http.post("/v1/verify", files=files, data={"save": "true"})
    assert reply.status_code == 200
    assert reply.json()["match"] is True
    assert UUID(reply.json()["request_id"])
