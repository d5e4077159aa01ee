"""Didit's users, the faces on their profiles, and the templates that outlive sessions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest
from _photos import variations

from tests.e2e.test_bad_input import gif, no_face, six_megabytes, webp
from tests.fixtures.didit_clients import WRONG, DiditClient, MakeDidit
from tests.fixtures.servers import Place, Server, as_base64, new_tenant

pytestmark = pytest.mark.model

CREATE = "/v3/users/create/"
TEMPLATES = "/v3/biometric-templates/"
UPLOAD_CALL = (
    "POST /v3/organization/{organization_id}/application/{application_id}"
    "/vendor-users/by-id/{didit_internal_id}/faces/upload/"
)


def user_path(name: str) -> str:
    return f"/v3/users/{name}/"


def faces_path(tenant: str, user: str, application: str | None = None) -> str:
    return (
        f"/v3/organization/{tenant}/application/{application or tenant}"
        f"/vendor-users/by-id/{user}/faces/upload/"
    )


@pytest.fixture
def profile(api: DiditClient) -> str:
    """Where the faces of a new user go."""
    user = api.post(CREATE, {"vendor_data": "user-abc-123"})
    return faces_path(api.tenant_id(), user["didit_internal_id"])


@pytest.mark.conforms("didit", "POST /v3/users/create/", "didit_internal_id, vendor_data", "exact")
@pytest.mark.conforms("didit", "POST /v3/users/create/", "201, other fields", "chosen")
@pytest.mark.conforms("didit", "GET /v3/users/{vendor_data}/", "didit_internal_id", "exact")
def test_user_is_created_and_shown(api: DiditClient) -> None:
    body = {
        "vendor_data": "user-abc-123",
        "full_name": "Jane Doe",
        "date_of_birth": "1990-02-28",
        "metadata": {"tier": "premium"},
    }
    made = api.post(CREATE, body)
    assert UUID(made["didit_internal_id"])
    assert {**made, **body} == made
    assert (made["effective_name"], made["status"], made["session_count"]) == (
        "Jane Doe",
        "ACTIVE",
        0,
    )
    assert api.get(user_path("user-abc-123")) == made
    assert api.get("/v3/users/user-abc-123") == made


@pytest.mark.parametrize("name", ["a/b", "ünï cödé", "50%", "create me", "a.b@c", "'; drop"])
def test_user_of_any_name_is_shown(api: DiditClient, name: str) -> None:
    made = api.post(CREATE, {"vendor_data": name})
    reply = api.http.get(f"/v3/users/{quote(name, safe='')}/")
    assert (reply.status_code, reply.json()) == (200, made)


@pytest.mark.conforms("didit", "POST /v3/users/create/", "400 by field", "chosen")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "vendor_data"),
        ({"vendor_data": ""}, "vendor_data"),
        ({"vendor_data": "a\0"}, "vendor_data"),
        ({"vendor_data": "a" * 501}, "vendor_data"),
        ({"vendor_data": "a", "status": "GONE"}, "status"),
        ({"vendor_data": "a", "date_of_birth": "1990-02-30"}, "date_of_birth"),
        ({"vendor_data": "a", "metadata": "x"}, "metadata"),
        ({"vendor_data": "a", "metadata": {"x": "\0"}}, "metadata"),
        ({"vendor_data": "a", "full_name": "x" * 513}, "full_name"),
    ],
)
def test_user_with_a_wrong_field_is_refused(
    api: DiditClient, body: dict[str, Any], field: str
) -> None:
    assert list(api.post(CREATE, body, 400)) == [field]
    assert api.http.get(user_path("a")).status_code == 404


@pytest.mark.conforms("didit", "POST /v3/users/create/", "taken vendor_data: 400", "chosen")
def test_user_of_a_name_that_is_taken_is_refused(api: DiditClient) -> None:
    api.post(CREATE, {"vendor_data": "one"})
    assert list(api.post(CREATE, {"vendor_data": "one"}, 400)) == ["vendor_data"]


@pytest.mark.conforms("didit", "GET /v3/users/{vendor_data}/", "404", "exact")
def test_unknown_user_is_404(api: DiditClient, make_didit: MakeDidit) -> None:
    make_didit().post(CREATE, {"vendor_data": "theirs"})
    for name in ("theirs", "nobody", "%00"):
        reply = api.http.get(user_path(name))
        assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})


@pytest.mark.conforms("didit", "GET /v3/users/{vendor_data}/", "a session's user", "chosen")
def test_user_that_a_session_named_is_there_with_counts(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    api.live(people["ada"], vendor_data="user-7")
    api.upload(api.face_blocklist(), people["bea"])
    api.form("/v3/face-search/", people["bea"], vendor_data="user-7")
    shown = api.get(user_path("user-7"))
    assert (shown["session_count"], shown["approved_count"], shown["declined_count"]) == (2, 1, 1)
    assert shown["first_session_at"] < shown["last_session_at"]
    assert api.get(user_path("user-7"))["didit_internal_id"] == shown["didit_internal_id"]


@pytest.mark.conforms("didit", UPLOAD_CALL, "body, fields of the reply", "exact")
@pytest.mark.conforms("didit", UPLOAD_CALL, "201", "chosen")
def test_face_is_put_on_a_profile(api: DiditClient, profile: str, people: dict[str, bytes]) -> None:
    made = api.post(profile, {"image": as_base64(people["cas"]), "comment": "Imported"})
    assert set(made) == {"uuid", "image_url", "comment", "uploaded_by", "created_at"}
    assert UUID(made["uuid"])
    assert (made["comment"], made["uploaded_by"]) == ("Imported", "api")
    assert made["created_at"].endswith("+00:00")
    assert httpx.get(made["image_url"]).content == people["cas"]
    without = api.post(profile.rstrip("/"), {"image": as_base64(people["cas"])})
    assert without["comment"] is None
    assert api.faces() == 2


@pytest.mark.conforms("didit", UPLOAD_CALL, "400: picture, base64, no face", "exact")
@pytest.mark.parametrize(
    ("image", "field"),
    [
        (as_base64(no_face()), "error"),
        (as_base64(gif()), "image"),
        (as_base64(webp()), "image"),
        (as_base64(six_megabytes()), "image"),
        (as_base64(b"hello, this is no picture"), "image"),
        ("data:image/jpeg;base64,/9j/4AAQ", "image"),
        ("%%%%", "image"),
        ("", "image"),
        (None, "image"),
        (..., "image"),
    ],
    ids=["no face", "gif", "webp", "6 MB", "text", "data URL", "no base64", "", "null", "missing"],
)
def test_picture_that_cannot_be_used_is_refused(
    api: DiditClient, profile: str, image: object, field: str
) -> None:
    refused = api.post(profile, {} if image is ... else {"image": image}, 400)
    assert list(refused) == [field]
    assert (api.faces(), api.pictures()) == (0, 0)


@pytest.mark.conforms("didit", UPLOAD_CALL, "at most 5 faces a user: 400", "exact")
def test_profile_has_room_for_five_faces_of_concurrent_uploads(
    api: DiditClient, profile: str, people: dict[str, bytes]
) -> None:
    photos = variations(people["dan"], 9, seed=3)

    def upload(photo: bytes) -> int:
        return api.http.post(profile, json={"image": as_base64(photo)}).status_code

    with ThreadPoolExecutor(9) as pool:
        assert sorted(pool.map(upload, photos)) == [201] * 5 + [400] * 4
    assert (api.faces(), api.pictures()) == (5, 5)
    refused = api.post(profile, {"image": as_base64(people["dan"])}, 400)
    assert refused == {"image": ["A user has at most 5 uploaded faces."]}
    other = api.post(CREATE, {"vendor_data": "other"})["didit_internal_id"]
    api.post(faces_path(api.tenant_id(), other), {"image": as_base64(people["dan"])})


@pytest.mark.conforms("didit", UPLOAD_CALL, "404 for unknown ids", "exact")
def test_unknown_user_or_application_is_404(
    api: DiditClient, make_didit: MakeDidit, people: dict[str, bytes]
) -> None:
    tenant, theirs = api.tenant_id(), make_didit()
    user = api.post(CREATE, {"vendor_data": "mine"})["didit_internal_id"]
    other = theirs.post(CREATE, {"vendor_data": "theirs"})["didit_internal_id"]
    body = {"image": as_base64(people["eve"])}
    for path in (
        faces_path(tenant, str(uuid4())),
        faces_path(tenant, "x"),
        faces_path(tenant, other),
        faces_path(theirs.tenant_id(), user),
        faces_path(tenant, user, application=str(uuid4())),
    ):
        assert api.post(path, body, 404) == {"detail": "Not found."}
    assert (api.faces(), theirs.faces()) == (0, 0)


@pytest.mark.conforms("didit", "every call on users", "403 for no key and for a wrong one", "exact")
@pytest.mark.parametrize("headers", [{}, WRONG])
def test_users_need_a_key(shared_server: Server, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", CREATE),
        ("GET", user_path("a")),
        ("POST", faces_path(str(uuid4()), str(uuid4()))),
        ("GET", TEMPLATES),
        ("DELETE", f"{TEMPLATES}{uuid4()}/"),
    ):
        reply = httpx.request(method, shared_server.url + path, headers=headers, content=b"{")
        assert reply.status_code == 403
        assert reply.json() == {"detail": "You do not have permission to perform this action."}


@pytest.mark.conforms("didit", "every call on users", "insert, read and purge are needed", "chosen")
def test_each_call_needs_its_permission(make_didit: MakeDidit, shared_place: Place) -> None:
    calls = {
        "insert": ("POST", CREATE, {"vendor_data": "a"}),
        "read": ("GET", TEMPLATES, None),
        "purge": ("DELETE", f"{TEMPLATES}{uuid4()}/", None),
    }
    for held in calls:
        api = make_didit(new_tenant(shared_place, permissions=[held]))
        for needed, (method, path, body) in calls.items():
            reply = api.http.request(method, path, json=body)
            assert (reply.status_code == 403) is (needed != held), (held, needed)


@pytest.mark.conforms("didit", "every call on users", "sandbox keys write nothing: 403", "chosen")
def test_sandbox_keys_write_nothing(api: DiditClient, people: dict[str, bytes]) -> None:
    api.make_sandbox()
    tenant = api.tenant_id()
    assert list(api.post(CREATE, {"vendor_data": "a"}, 403)) == ["detail"]
    body = {"image": as_base64(people["ada"])}
    assert list(api.post(faces_path(tenant, str(uuid4())), body, 403)) == ["detail"]
    assert list(api.post(f"{TEMPLATES}delete/", {"delete_all": True}, 403)) == ["detail"]
    assert api.http.get(user_path("a")).status_code == 404


def retained(api: DiditClient, photo: bytes, name: str, **more: Any) -> dict[str, Any]:
    """The answer to the deletion of a session whose template is to stay."""
    session = api.live(photo, vendor_data=name)["request_id"]
    reply = api.http.request(
        "DELETE",
        f"/v3/session/{session}/delete/",
        json={"retain_face_embeddings": True, **more},
    )
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


@pytest.mark.conforms("didit", "GET /v3/biometric-templates/", "list, one, count", "chosen")
def test_templates_are_shown_and_purged(api: DiditClient, people: dict[str, bytes]) -> None:
    gone = retained(api, people["fay"], "User-1", face_retention_days=30)
    retained(api, people["gus"], "user-2")
    shown = api.get(TEMPLATES)
    assert (shown["count"], shown["next"]) == (2, None)
    second, first = shown["results"]
    assert first["uuid"] == gone["biometric_template_uuid"]
    assert (first["vendor_data"], second["vendor_data"]) == ("User-1", "user-2")
    user = api.get(user_path("User-1"))["didit_internal_id"]
    assert first["vendor_user_uuid"] == user
    assert (first["status"], first["source_type"]) == ("active", "session_delete")
    assert first["expires_at"] > first["retained_at"]
    assert second["expires_at"] is None
    assert api.get(f"{TEMPLATES}{first['uuid']}/") == first
    assert api.get(TEMPLATES, vendor_data="USER-1")["results"] == [first]
    assert api.get(TEMPLATES, vendor_user_uuid=user)["results"] == [first]
    assert api.get(f"{TEMPLATES}count/", vendor_data="user") == {"count": 2}
    assert api.get(f"{TEMPLATES}count/", vendor_data="nobody") == {"count": 0}
    assert api.pictures() == 0


@pytest.mark.conforms(
    "didit", "DELETE /v3/biometric-templates/{template_uuid}/", "204, then 404", "chosen"
)
def test_purged_template_matches_no_more(api: DiditClient, people: dict[str, bytes]) -> None:
    template = retained(api, people["hal"], "user-3")["biometric_template_uuid"]
    (match,) = api.search(people["hal"])["matches"]
    assert (match["source"], match["biometric_template_id"]) == ("retained_template", template)
    assert api.http.delete(f"{TEMPLATES}{template}/").status_code == 204
    assert api.search(people["hal"])["matches"] == []
    for method in ("GET", "DELETE"):
        reply = api.http.request(method, f"{TEMPLATES}{template}/")
        assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})
    assert api.get(TEMPLATES)["count"] == 0


@pytest.mark.conforms("didit", "POST /v3/biometric-templates/delete/", "by id, or all", "chosen")
def test_many_templates_are_purged_at_once(api: DiditClient, people: dict[str, bytes]) -> None:
    made = [
        retained(api, people[name], f"user-{name}")["biometric_template_uuid"]
        for name in ("ada", "bea", "cas")
    ]
    unknown = str(uuid4())
    path = f"{TEMPLATES}delete/"
    done = api.post(path, {"template_uuids": [made[0], unknown]}, 200)
    assert done == {
        "results": [
            {"uuid": made[0], "outcome": "purged"},
            {"uuid": unknown, "outcome": "already_purged"},
        ]
    }
    done = api.post(path, {"delete_all": True, "vendor_data": "user-b"}, 200)
    assert [each["uuid"] for each in done["results"]] == [made[1]]
    done = api.post(path, {"delete_all": True}, 200)
    assert [each["uuid"] for each in done["results"]] == [made[2]]
    assert api.faces() == 0
    assert list(api.post(path, {}, 400)) == ["template_uuids"]


def test_a_face_that_is_no_template_is_none_to_purge(
    api: DiditClient, profile: str, people: dict[str, bytes]
) -> None:
    made = api.post(profile, {"image": as_base64(people["ian"])})
    assert api.http.delete(f"{TEMPLATES}{made['uuid']}/").status_code == 404
    assert api.faces() == 1
