"""Didit's lists, profiles and sessions together: what a listed face does to a search."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from _photos import variations
from PIL import Image

from tests.fixtures.didit_clients import DiditClient
from tests.fixtures.servers import MakePlace, as_base64, run_server

pytestmark = pytest.mark.model

ENTRIES = "/v3/lists/{}/entries/"
UPLOAD_CALL = (
    "POST /v3/organization/{organization_id}/application/{application_id}"
    "/vendor-users/by-id/{didit_internal_id}/faces/upload/"
)


def risks(found: dict[str, Any]) -> list[str]:
    """What a search warns of."""
    return [each["risk"] for each in found["warnings"]]


@pytest.mark.conforms(
    "didit",
    "POST /v3/lists/{list_uuid}/entries/face-upload/",
    "block-listed: search declines",
    "exact",
)
def test_face_on_the_block_list_declines_a_search_until_it_is_removed(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    other = variations(people["ada"], 1, seed=11)[0]
    assert api.search(other)["status"] == "Approved"
    of = api.face_blocklist()
    made = api.upload(of, people["ada"])
    found = api.search(other)
    assert (found["status"], found["total_matches"]) == ("Declined", 1)
    assert risks(found) == ["FACE_IN_BLOCKLIST"]
    (match,) = found["matches"]
    assert (match["source"], match["session_id"]) == ("list_entry", None)
    assert (match["is_blocklisted"], match["is_allowlisted"]) == (True, False)
    assert httpx.get(match["match_image_url"]).content == people["ada"]
    assert api.search(people["bea"])["status"] == "Approved"
    assert api.http.delete(f"{ENTRIES.format(of)}{made['uuid']}/").status_code == 204
    found = api.search(other)
    assert (found["status"], found["matches"]) == ("Approved", [])


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/face-upload/", "largest face kept", "exact"
)
def test_the_largest_of_several_faces_is_put_on_the_list(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    large, small = (Image.open(io.BytesIO(people[name])) for name in ("ada", "bea"))
    both = Image.new("RGB", (600, 400))
    both.paste(small.resize((180, 180)), (0, 0))
    both.paste(large.resize((400, 400)), (200, 0))
    out = io.BytesIO()
    both.save(out, "JPEG", quality=95)
    api.upload(api.face_blocklist(), out.getvalue())
    assert api.search(people["ada"])["status"] == "Declined"
    assert api.search(people["bea"])["status"] == "Approved"


@pytest.mark.conforms(
    "didit",
    "POST /v3/lists/{list_uuid}/entries/face-upload/",
    "503 when the engine is down",
    "exact",
)
def test_upload_is_503_while_pictures_cannot_be_stored(
    make_place: MakePlace, people: dict[str, bytes]
) -> None:
    place = make_place()
    with run_server(place) as server:
        caller = DiditClient(place, server)
        with caller.http:
            of = caller.face_blocklist()
            images = Path(place.environ["ONETON_DATA_DIR"], "images")
            aside = images.rename(images.with_name("aside"))
            images.write_text("no folder")
            path = f"{ENTRIES.format(of)}face-upload/"
            reply = caller.http.post(path, json={"image": as_base64(people["ada"])})
            assert (reply.status_code, list(reply.json())) == (503, ["detail"])
            assert int(reply.headers["retry-after"]) >= 1
            images.unlink()
            aside.rename(images)
            assert caller.get(ENTRIES.format(of))["count"] == caller.faces() == 0
            caller.upload(of, people["ada"])


@pytest.mark.conforms(
    "didit",
    "POST /v3/lists/{list_uuid}/entries/face-upload/",
    "allow-listed: no duplicate",
    "exact",
)
def test_face_on_an_allow_list_takes_the_warning_of_a_duplicate_away(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    other = variations(people["bea"], 1, seed=12)[0]
    assert api.live(people["bea"], vendor_data="user-1")["liveness"]["status"] == "Approved"
    assert risks(api.search(other)) == ["DUPLICATED_FACE"]
    of = api.new_list("allowlist", "face")
    made = api.upload(of, people["bea"])
    found = api.search(other)
    assert (found["status"], risks(found)) == ("Approved", [])
    assert {each["is_allowlisted"] for each in found["matches"]} == {True, False}
    api.upload(api.face_blocklist(), people["bea"])
    found = api.search(other)
    assert (found["status"], risks(found)) == ("Declined", ["FACE_IN_BLOCKLIST"])
    assert api.http.delete(f"{ENTRIES.format(of)}{made['uuid']}/").status_code == 204


def test_face_on_a_custom_list_is_not_searched(api: DiditClient, people: dict[str, bytes]) -> None:
    session = api.live(people["cas"])["request_id"]
    path = ENTRIES.format(api.new_list("custom", "face"))
    made = api.post(path, {"reference_session_id": session})
    assert made["reference_session_id"] == session
    assert api.faces() == 1
    assert api.search(people["cas"])["status"] == "Approved"


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/", "reference_session_id: block-listed", "exact"
)
def test_face_of_a_session_is_put_on_the_block_list(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    session = api.live(people["dan"], vendor_data="user-1")["request_id"]
    of = api.face_blocklist()
    body = {"reference_session_id": session, "comment": "fraud", "metadata": {"case": 7}}
    made = api.post(ENTRIES.format(of), body)
    assert made["reference_session_id"] == session
    assert made["reference_session_number"] == 1
    assert made["reference_object_uuid"] == made["value"]
    assert (made["comment"], made["metadata"]["case"]) == ("fraud", 7)
    assert httpx.get(made["metadata"]["reference_image_url"]).content == people["dan"]
    found = api.search(variations(people["dan"], 1, seed=13)[0])
    assert (found["status"], risks(found)) == ("Declined", ["FACE_IN_BLOCKLIST"])
    about = found["warnings"][0]["additional_data"]
    assert about["blocklisted_session_id"] == session
    assert about["blocklisted_session_number"] == 1
    refused = api.post(ENTRIES.format(of), {"reference_session_id": session}, 400)
    assert list(refused) == ["reference_session_id"]
    assert api.get(ENTRIES.format(of))["count"] == 1


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/", "400: session missing or without data", "exact"
)
def test_session_without_a_face_is_refused(api: DiditClient, people: dict[str, bytes]) -> None:
    of = api.face_blocklist()
    nobody = api.post(ENTRIES.format(of), {"reference_session_id": str(uuid4())}, 400)
    assert list(nobody) == ["reference_session_id"]
    session = api.live(people["eve"])["request_id"]
    for entry_type in ("email", "document"):
        path = ENTRIES.format(api.new_list("custom", entry_type))
        refused = api.post(path, {"reference_session_id": session}, 400)
        assert list(refused) == ["reference_session_id"]
    assert api.faces() == 1


def test_session_of_another_tenant_is_missing(
    make_didit: Any, api: DiditClient, people: dict[str, bytes]
) -> None:
    session = make_didit().live(people["eve"])["request_id"]
    path = ENTRIES.format(api.face_blocklist())
    refused = api.post(path, {"reference_session_id": session}, 400)
    assert list(refused) == ["reference_session_id"]


def test_of_concurrent_entries_of_one_session_one_is_made(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    session = api.live(people["fay"])["request_id"]
    path = ENTRIES.format(api.face_blocklist())
    before = api.pictures()

    def add(_: int) -> int:
        return api.http.post(path, json={"reference_session_id": session}).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(add, range(6))) == [201] + [400] * 5
    assert api.get(path)["count"] == 1
    assert (api.faces(), api.pictures()) == (2, before + 1)


@pytest.mark.conforms(
    "didit", "DELETE /v3/session/{sessionId}/delete/", "block entries stay", "exact"
)
def test_entry_outlives_its_session(api: DiditClient, people: dict[str, bytes]) -> None:
    session = api.live(people["gus"])["request_id"]
    path = ENTRIES.format(api.face_blocklist())
    made = api.post(path, {"reference_session_id": session})
    assert api.http.delete(f"/v3/session/{session}/delete/").status_code == 200
    (shown,) = api.get(path)["results"]
    assert (shown["value"], shown["reference_session_id"]) == (made["value"], session)
    assert shown["reference_session_number"] is None
    found = api.search(people["gus"])
    assert (found["status"], risks(found)) == ("Declined", ["FACE_IN_BLOCKLIST"])
    refused = api.post(path, {"reference_session_id": session}, 400)
    assert list(refused) == ["reference_session_id"]


@pytest.mark.conforms("didit", "POST /v3/blocklist/add/", "bodies", "exact")
@pytest.mark.conforms("didit", "POST /v3/blocklist/remove/", "bodies", "exact")
@pytest.mark.conforms("didit", "POST /v3/blocklist/add/", "replies", "chosen")
@pytest.mark.conforms("didit", "POST /v3/blocklist/remove/", "replies", "chosen")
def test_session_is_blocked_and_unblocked_by_the_older_calls(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    session = api.live(people["hal"])["request_id"]
    body = {"session_id": session, "blocklist_face": True}
    blocked = {"session_id": session, "session_number": 1, "face_blocklisted": True}
    for _ in range(2):
        assert api.post("/v3/blocklist/add/", body, 200) == blocked
    (item,) = api.get("/v3/blocklist/")["results"]
    assert (item["type"], item["session_id"], item["session_number"]) == ("face", session, 1)
    assert httpx.get(item["face_image"]).content == people["hal"]
    assert api.search(people["hal"])["status"] == "Declined"
    body = {"session_id": session, "unblock_face": True}
    assert api.post("/v3/blocklist/remove/", body, 200)["face_blocklisted"] is False
    assert api.search(people["hal"])["status"] == "Approved"
    assert api.get("/v3/blocklist/")["count"] == 0
    assert api.post("/v3/blocklist/remove/", body, 404) == {"detail": "Not found."}
    assert api.post("/v3/blocklist/add/", {**blocked, "blocklist_face": True}, 200) == blocked


@pytest.mark.conforms("didit", "GET /v3/blocklist/", "items by type", "chosen")
def test_older_call_shows_what_is_blocked_by_type(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    found = api.get("/v3/lists/", limit=100)["results"]
    blocked = {each["entry_type"]: each["uuid"] for each in found}
    api.post(ENTRIES.format(blocked["phone"]), {"value": "+14155552671"})
    api.post(ENTRIES.format(blocked["email"]), {"value": "ann@example.org"})
    api.post(ENTRIES.format(blocked["country"]), {"value": "US"})
    api.upload(blocked["face"], people["ian"])
    shown = api.get("/v3/blocklist/")
    assert [each["type"] for each in shown["results"]] == ["face", "email", "phone"]
    (item,) = api.get("/v3/blocklist/", item_type="phone")["results"]
    assert (item["phone_number"], item["email"]) == ("+14155552671", None)
    assert (item["face_image"], item["session_id"]) == (None, None)
    reply = api.http.get("/v3/blocklist/", params={"item_type": "iris"})
    assert (reply.status_code, list(reply.json())) == (400, ["item_type"])


@pytest.mark.conforms("didit", "POST /v3/blocklist/add/", "refusals", "chosen")
@pytest.mark.conforms("didit", "POST /v3/blocklist/remove/", "refusals", "chosen")
def test_older_calls_refuse_what_a_session_does_not_have(api: DiditClient) -> None:
    session = {"session_id": str(uuid4())}
    for path, part in (("add", "blocklist"), ("remove", "unblock")):
        url = f"/v3/blocklist/{path}/"
        assert list(api.post(url, session, 400)) == [f"{part}_face"]
        for other in ("document", "phone", "email"):
            field = f"{part}_{other}"
            assert list(api.post(url, {**session, field: True}, 400)) == [field]
        assert list(api.post(url, {"session_id": 1, f"{part}_face": True}, 400)) == ["session_id"]
        assert list(api.post(url, {}, 400)) == ["session_id"]
        known = api.post(url, {**session, f"{part}_face": True}, 404)
        assert known == {"detail": "Not found."}


@pytest.mark.conforms("didit", UPLOAD_CALL, "found with source imported", "exact")
def test_face_of_a_profile_is_found_as_imported(api: DiditClient, people: dict[str, bytes]) -> None:
    user = api.post("/v3/users/create/", {"vendor_data": "user-9"})
    tenant = api.tenant_id()
    path = (
        f"/v3/organization/{tenant}/application/{tenant}"
        f"/vendor-users/by-id/{user['didit_internal_id']}/faces/upload/"
    )
    api.post(path, {"image": as_base64(people["jon"])})
    found = api.search(variations(people["jon"], 1, seed=14)[0])
    assert (found["status"], risks(found)) == ("Approved", ["DUPLICATED_FACE"])
    (match,) = found["matches"]
    assert (match["source"], match["vendor_data"]) == ("imported", "user-9")
    assert (match["session_id"], match["is_blocklisted"]) == (None, False)
    assert match["vendor_user_id"] in (None, user["didit_internal_id"])
