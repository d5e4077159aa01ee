"""The native API's galleries and jobs."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.fixtures.native import MakeNative, Native, check_problem

pytestmark = pytest.mark.model

GALLERIES = "/v1/galleries"


def conforms(call: str, what: str) -> pytest.MarkDecorator:
    return pytest.mark.conforms("native", call, what, "exact")


@conforms("POST /v1/galleries", "201 with the gallery, its size and model pack, and its address")
def test_create_answers_with_the_gallery(native: Native) -> None:
    reply = native.http.post(GALLERIES, json={"name": "watch-list", "kind": "blocklist"})
    assert reply.status_code == 201
    assert reply.headers["location"] == "/v1/galleries/watch-list"
    made = reply.json()
    assert made["kind"] == "blocklist"
    assert (made["threshold"], made["target_fpir"], made["threshold_now"]) == (50.0, None, 50.0)
    assert (made["faces"], made["faces_without_image"], made["head"]) == (0, 0, 0)
    assert made["model_pack"]["name"] == "buffalo_sc"
    assert native.json(reply.headers["location"]) == made


@conforms("POST /v1/galleries", "a threshold or a target FPIR, not both; a quality floor")
def test_create_takes_what_counts_as_a_match(native: Native) -> None:
    floor = {"size_px": 40.0, "sharpness": 5.0, "exposure": 0.5}
    made = native.create("a", threshold=33, description="Of May", quality_floor=floor)
    assert (made["threshold"], made["description"]) == (33.0, "Of May")
    assert made["quality_floor"] == floor
    made = native.create("b", target_fpir=0.001)
    assert (made["threshold"], made["target_fpir"]) == (None, 0.001)
    assert made["threshold_now"] == pytest.approx(30.0)
    both = {"name": "c", "threshold": 1, "target_fpir": 0.1}
    check_problem(native.http.post(GALLERIES, json=both), 400, "invalid_input", "target_fpir")


@conforms("POST /v1/galleries", "409 conflict for a name that is taken")
def test_a_name_is_given_once(native: Native) -> None:
    native.create("a")
    check_problem(native.http.post(GALLERIES, json={"name": "a"}), 409, "conflict")
    check_problem(native.http.post(GALLERIES, json={"name": "default"}), 409, "conflict")


@conforms("POST /v1/galleries", "400 invalid_input names the field")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "_pictures"}, "name"),
        ({"name": "ends\n"}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a", "kind": "watchlist"}, "kind"),
        ({"name": "a", "threshold": 101}, "threshold"),
        ({"name": "a", "threshold": "50"}, "threshold"),
        ({"name": "a", "target_fpir": 0}, "target_fpir"),
        ({"name": "a", "description": "\0"}, "description"),
        ({"name": "a", "quality_floor": {"exposure": 2}}, "quality_floor.exposure"),
        ({"name": "a", "quality_floor": {"blur": 2}}, "quality_floor.blur"),
        ({"name": "a", "size": 2}, "size"),
    ],
)
def test_create_refuses_bad_fields(native: Native, body: dict[str, object], field: str) -> None:
    check_problem(native.http.post(GALLERIES, json=body), 400, "invalid_input", field)
    assert len(native.json(GALLERIES)["items"]) == 1


@conforms("GET /v1/galleries", "pages by name with a cursor")
def test_list_goes_by_name_in_pages(native: Native) -> None:
    for name in ("b", "d", "a", "c"):
        native.create(name)
    pages = native.pages(GALLERIES, limit=2)
    assert [[each["name"] for each in page] for page in pages] == [
        ["a", "b"],
        ["c", "d"],
        ["default"],
    ]
    assert "faces" not in pages[0][0]


@conforms("GET /v1/galleries/{gallery}", "size and head move with the faces")
def test_show_counts_faces(native: Native, people: dict[str, bytes]) -> None:
    first = native.enroll(people["ada"])
    native.enroll(people["bea"])
    assert native.http.delete(f"/v1/faces/{first}/image").status_code == 204
    shown = native.json(f"{GALLERIES}/default")
    assert (shown["faces"], shown["faces_without_image"], shown["head"]) == (2, 1, 2)
    assert native.http.delete(f"/v1/faces/{first}").status_code == 204
    shown = native.json(f"{GALLERIES}/default")
    assert (shown["faces"], shown["faces_without_image"], shown["head"]) == (1, 0, 3)


@conforms("PATCH /v1/galleries/{gallery}", "a threshold ends a target, a target ends a threshold")
def test_change_switches_between_threshold_and_target(native: Native) -> None:
    native.create("a", description="old")
    path = f"{GALLERIES}/a"
    changed = native.http.patch(path, json={"target_fpir": 0.01}).json()
    assert (changed["threshold"], changed["target_fpir"]) == (None, 0.01)
    changed = native.http.patch(path, json={"description": "new"}).json()
    assert (changed["description"], changed["target_fpir"]) == ("new", 0.01)
    changed = native.http.patch(path, json={"threshold": 61.5}).json()
    assert (changed["threshold"], changed["target_fpir"]) == (61.5, None)
    assert native.http.patch(path, json={}).json() == changed
    both = native.http.patch(path, json={"threshold": 1, "target_fpir": 0.1})
    check_problem(both, 400, "invalid_input", "target_fpir")
    null = native.http.patch(path, json={"threshold": None})
    check_problem(null, 400, "invalid_input", "threshold")


@conforms("DELETE /v1/galleries/{gallery}", "202 with a job, when the name is confirmed")
def test_delete_hides_the_gallery_and_answers_with_a_job(
    native: Native, people: dict[str, bytes]
) -> None:
    native.create("old")
    face_id = native.enroll(people["ada"], "old")
    for confirm in ({}, {"confirm": "other"}):
        reply = native.http.delete(f"{GALLERIES}/old", params=confirm)
        check_problem(reply, 400, "invalid_input", "confirm")
    reply = native.http.delete(f"{GALLERIES}/old", params={"confirm": "old"})
    assert reply.status_code == 202
    job = reply.json()
    assert (job["kind"], job["subject"], job["total"]) == ("delete_gallery", "old", 1)
    assert reply.headers["location"] == f"/v1/jobs/{job['job_id']}"
    shown = native.json(reply.headers["location"])
    assert shown["state"] in ("queued", "running", "done")
    assert [each["job_id"] for each in native.json("/v1/jobs")["items"]] == [job["job_id"]]
    for path in (f"{GALLERIES}/old", f"{GALLERIES}/old/faces", f"/v1/faces/{face_id}"):
        check_problem(native.http.get(path), 404, "not_found")
    assert native.create("old")["faces"] == 0


@conforms("DELETE /v1/galleries/{gallery}", "409 conflict for the default gallery")
def test_the_default_gallery_stays(native: Native) -> None:
    reply = native.http.delete(f"{GALLERIES}/default", params={"confirm": "default"})
    check_problem(reply, 409, "conflict")
    assert native.json(f"{GALLERIES}/default")["name"] == "default"


@conforms("GET /v1/jobs", "pages, the newest first")
def test_jobs_go_from_the_newest(native: Native) -> None:
    ids = []
    for name in ("a", "b", "c"):
        native.create(name)
        reply = native.http.delete(f"{GALLERIES}/{name}", params={"confirm": name})
        ids.append(reply.json()["job_id"])
    pages = native.pages("/v1/jobs", limit=2)
    assert [[each["job_id"] for each in page] for page in pages] == [ids[:0:-1], ids[:1]]


@conforms("GET /v1/galleries/{gallery}", "404 not_found for an unknown name")
@conforms("GET /v1/jobs/{job_id}", "404 not_found for an unknown id")
@pytest.mark.parametrize(
    "path",
    [
        f"{GALLERIES}/nobody",
        f"{GALLERIES}/a%00b",
        f"{GALLERIES}/default%0A",
        f"/v1/jobs/{UUID(int=404)}",
        "/v1/jobs/none",
        "/v1/nowhere",
    ],
)
def test_what_is_unknown_is_not_found(native: Native, path: str) -> None:
    check_problem(native.http.get(path), 404, "not_found")


@conforms("GET /v1/galleries", "405 method_not_allowed for another method")
def test_another_method_is_not_allowed(native: Native) -> None:
    check_problem(native.http.put(GALLERIES), 405, "method_not_allowed")


@conforms("GET /v1/galleries", "400 invalid_input for a bad cursor or limit")
@pytest.mark.parametrize(
    "path", [GALLERIES, "/v1/jobs", "/v1/requests", f"{GALLERIES}/default/faces"]
)
def test_a_bad_place_in_a_list_is_refused(native: Native, path: str) -> None:
    for limit in ("0", "101", "many"):
        reply = native.http.get(path, params={"limit": limit})
        check_problem(reply, 400, "invalid_input", "limit")
    native.create("a")
    foreign = "bm90aGluZzo1"
    for cursor in ("", "%", "é", foreign, "x" * 401):
        reply = native.http.get(path, params={"cursor": cursor})
        check_problem(reply, 400, "invalid_input", "cursor")


def test_tenants_have_their_own_galleries_and_jobs(make_native: MakeNative) -> None:
    mine, theirs = make_native(), make_native()
    mine.create("secret")
    check_problem(theirs.http.get(f"{GALLERIES}/secret"), 404, "not_found")
    check_problem(theirs.http.patch(f"{GALLERIES}/secret", json={}), 404, "not_found")
    gone = theirs.http.delete(f"{GALLERIES}/secret", params={"confirm": "secret"})
    check_problem(gone, 404, "not_found")
    assert [each["name"] for each in theirs.json(GALLERIES)["items"]] == ["default"]
    job = mine.http.delete(f"{GALLERIES}/secret", params={"confirm": "secret"}).json()
    assert UUID(job["job_id"])
    check_problem(theirs.http.get(f"/v1/jobs/{job['job_id']}"), 404, "not_found")
    assert theirs.json("/v1/jobs")["items"] == []
