"""What is on Didit's lists, over HTTP, with real photos."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from _photos import variations
from PIL import Image

from tests.e2e.test_bad_input import gif, no_face, six_megabytes
from tests.fixtures.didit_clients import DiditClient
from tests.fixtures.servers import as_base64

pytestmark = pytest.mark.model

LISTS = "/v3/lists/"
ENTRIES = "/v3/lists/{}/entries/"
UPLOAD = ENTRIES + "face-upload/"
ENTRY_FIELDS = {
    "uuid",
    "value",
    "display_label",
    "comment",
    "added_by",
    "reference_session_id",
    "reference_session_number",
    "reference_object_uuid",
    "metadata",
    "created_at",
}


@pytest.mark.conforms(
    "didit", "GET /v3/lists/{list_uuid}/entries/", "fields of body and reply", "exact"
)
@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/", "fields of body and reply", "exact"
)
@pytest.mark.conforms("didit", "POST /v3/lists/{list_uuid}/entries/", "201", "chosen")
def test_entry_of_a_value_is_added_and_shown(api: DiditClient) -> None:
    path = ENTRIES.format(api.new_list())
    reference = str(uuid4())
    body = {
        "value": "Ann@Example.org",
        "reference_object_uuid": reference,
        "display_label": "Ann",
        "comment": "charged back",
        "metadata": {"reference_type": "transaction", "deep": {"numbers": [1, 2.5, None]}},
    }
    made = api.post(path, body)
    assert set(made) == ENTRY_FIELDS
    assert {**body, "value": "ann@example.org"} == {name: made[name] for name in body}
    assert made["added_by"] == "api"
    assert made["reference_session_id"] is made["reference_session_number"] is None
    assert api.get(path) == {"count": 1, "next": None, "previous": None, "results": [made]}
    (of,) = (each for each in api.get(LISTS)["results"] if not each["is_system"])
    assert (of["entry_count"], of["last_entry_added_at"]) == (1, made["created_at"])
    assert of["updated_at"] > of["created_at"]
    least = api.post(path, {"value": "bob@example.org"})
    assert (least["display_label"], least["comment"], least["metadata"]) == ("", "", None)


@pytest.mark.conforms(
    "didit", "GET /v3/lists/{list_uuid}/entries/", "search, offset 0, limit 25", "exact"
)
def test_entries_are_searched_and_come_in_pages(api: DiditClient) -> None:
    path = ENTRIES.format(api.new_list(entry_type="document"))
    for number in range(30):
        api.post(path, {"value": f"X{number:02}", "display_label": "odd" if number % 2 else "even"})
    first = api.get(path)
    assert (first["count"], len(first["results"]), first["previous"]) == (30, 25, None)
    assert first["results"][0]["value"] == "x29"
    second = api.http.get(first["next"]).json()
    assert [each["value"] for each in second["results"]] == ["x04", "x03", "x02", "x01", "x00"]
    assert api.get(path, search="X07")["count"] == 1
    odd = api.get(path, search="oDD", limit=4, offset=4)
    assert (odd["count"], len(odd["results"])) == (15, 4)
    assert "search=oDD" in odd["next"]
    assert api.get(path, search="%")["count"] == 0
    assert api.http.get(path, params={"search": "\0"}).status_code == 400


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/", "a value that is there: 400", "chosen"
)
def test_value_that_is_on_the_list_is_refused(api: DiditClient) -> None:
    path = ENTRIES.format(api.new_list())
    api.post(path, {"value": "ann@example.org"})
    assert list(api.post(path, {"value": " ANN@example.org"}, 400)) == ["value"]
    assert api.get(path)["count"] == 1


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/", "values by entry type", "chosen"
)
@pytest.mark.parametrize(
    ("entry_type", "good", "kept", "bad"),
    [
        ("email", "A@b.org", "a@b.org", "a@b"),
        ("phone", "+1 (415) 555-2671", "+14155552671", "4155552671"),
        ("ip_address", "10.1.2.3/8", "10.0.0.0/8", "10.0.0.256"),
        ("device_fingerprint", "ABCDEF12", "abcdef12", "abc"),
        ("country", "usa", "USA", "U5"),
        ("wallet_address", "bc1Q", "bc1q", " "),
    ],
)
def test_values_are_checked_and_kept_in_one_form(
    api: DiditClient, entry_type: str, good: str, kept: str, bad: str
) -> None:
    path = ENTRIES.format(api.new_list(entry_type=entry_type))
    assert api.post(path, {"value": good})["value"] == kept
    assert list(api.post(path, {"value": bad}, 400)) == ["value"]


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/", "value or session is needed; 400", "exact"
)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "value"),
        ({"value": None}, "value"),
        ({"value": "a" * 513}, "value"),
        ({"value": "a@b.org\0"}, "value"),
        ({"value": "a@b.org", "reference_object_uuid": "x"}, "reference_object_uuid"),
        ({"value": "a@b.org", "metadata": []}, "metadata"),
        ({"value": "a@b.org", "metadata": {"a": "\0"}}, "metadata"),
        ({"reference_session_id": "x"}, "reference_session_id"),
        ({"reference_session_id": str(uuid4())}, "reference_session_id"),
    ],
)
def test_entry_with_a_wrong_field_is_refused(
    api: DiditClient, body: dict[str, Any], field: str
) -> None:
    path = ENTRIES.format(api.new_list())
    assert list(api.post(path, body, 400)) == [field]
    assert api.get(path)["count"] == 0


@pytest.mark.parametrize(
    "metadata",
    [b'{"a":1e999}', b'{"a":"\\ud800"}', b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"],
    ids=["number", "surrogate", "nested"],
)
def test_metadata_that_cannot_be_kept_is_refused(api: DiditClient, metadata: bytes) -> None:
    path = ENTRIES.format(api.new_list())
    body = b'{"value":"a@b.org","metadata":' + metadata + b"}"
    reply = api.http.post(path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
    large = {"value": "a@b.org", "metadata": {"a": "x" * 70_000}}
    assert list(api.post(path, large, 400)) == ["metadata"]
    assert api.get(path)["count"] == 0


@pytest.mark.conforms(
    "didit", "DELETE /v3/lists/{list_uuid}/entries/{entry_uuid}/", "204, then 404", "chosen"
)
def test_entry_is_removed(api: DiditClient) -> None:
    path = ENTRIES.format(api.new_list())
    made = api.post(path, {"value": "ann@example.org"})
    reply = api.http.delete(f"{path}{made['uuid']}/")
    assert (reply.status_code, reply.content) == (204, b"")
    reply = api.http.delete(f"{path}{made['uuid']}/")
    assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})
    assert api.get(path)["count"] == 0
    api.post(path, {"value": "ann@example.org"})


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/face-upload/", "body, fields, value, link", "exact"
)
@pytest.mark.conforms("didit", "POST /v3/lists/{list_uuid}/entries/face-upload/", "201", "chosen")
@pytest.mark.parametrize("list_type", ["blocklist", "allowlist"])
def test_face_is_uploaded_and_removed(
    api: DiditClient, people: dict[str, bytes], list_type: str
) -> None:
    of = api.face_blocklist() if list_type == "blocklist" else api.new_list("allowlist", "face")
    made = api.upload(of, people["ada"], comment="fraud")
    assert set(made) == ENTRY_FIELDS
    assert UUID(made["value"])
    assert made["reference_object_uuid"] == made["value"]
    assert (made["comment"], made["added_by"]) == ("fraud", "api")
    assert set(made["metadata"]) == {"reference_image_url"}
    link = made["metadata"]["reference_image_url"]
    assert httpx.get(link).content == people["ada"]
    (shown,) = api.get(ENTRIES.format(of))["results"]
    assert {**shown, "metadata": None} == {**made, "metadata": None}
    assert httpx.get(shown["metadata"]["reference_image_url"]).content == people["ada"]
    assert (api.faces(), api.pictures()) == (1, 1)
    assert api.http.delete(f"{ENTRIES.format(of)}{made['uuid']}").status_code == 204
    assert (api.faces(), api.pictures()) == (0, 0)
    assert httpx.get(link).status_code == 404
    assert api.http.delete(f"{ENTRIES.format(of)}{made['uuid']}").status_code == 404


def test_uploads_of_one_face_are_two_entries(api: DiditClient, people: dict[str, bytes]) -> None:
    of = api.face_blocklist()
    values = {api.upload(of, people["ada"])["value"] for _ in range(2)}
    assert len(values) == api.get(ENTRIES.format(of))["count"] == 2


def webp(photo: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(out, "WEBP", quality=95)
    return out.getvalue()


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/face-upload/", "jpg, png, webp", "exact"
)
def test_face_is_uploaded_as_webp_and_as_a_data_url(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    of = api.face_blocklist()
    api.upload(of, webp(people["ada"]))
    url = f"data:image/jpeg;base64,{as_base64(people['bea'])}"
    api.post(UPLOAD.format(of), {"image": url})
    assert api.faces() == 2


@pytest.mark.conforms(
    "didit",
    "POST /v3/lists/{list_uuid}/entries/face-upload/",
    "400: no face, not a picture, 2 MB",
    "exact",
)
@pytest.mark.parametrize(
    ("image", "field"),
    [
        (as_base64(no_face()), "error"),
        (as_base64(gif()), "image"),
        (as_base64(six_megabytes()), "image"),
        (as_base64(b"hello, this is no picture"), "image"),
        ("%%%%", "image"),
        ("", "image"),
        (None, "image"),
        (7, "image"),
        (..., "image"),
    ],
    ids=["no face", "gif", "6 MB", "text", "no base64", "empty", "null", "number", "missing"],
)
def test_picture_that_cannot_be_used_is_refused(
    api: DiditClient, image: object, field: str
) -> None:
    of = api.face_blocklist()
    refused = api.post(UPLOAD.format(of), {} if image is ... else {"image": image}, 400)
    assert list(refused) == [field]
    assert (api.faces(), api.pictures()) == (0, 0)
    assert api.get(ENTRIES.format(of))["count"] == 0


@pytest.mark.conforms(
    "didit",
    "POST /v3/lists/{list_uuid}/entries/face-upload/",
    "only block or allow lists of faces",
    "exact",
)
@pytest.mark.parametrize(("list_type", "entry_type"), [("custom", "face"), ("allowlist", "email")])
def test_face_is_not_uploaded_to_another_list(
    api: DiditClient, people: dict[str, bytes], list_type: str, entry_type: str
) -> None:
    path = UPLOAD.format(api.new_list(list_type, entry_type))
    refused = api.post(path, {"image": as_base64(people["ada"])}, 400)
    assert list(refused) == ["non_field_errors"]
    assert api.faces() == 0


@pytest.mark.conforms(
    "didit", "POST /v3/lists/{list_uuid}/entries/", "a face by its UUID is taken over", "chosen"
)
def test_face_that_is_enrolled_is_put_on_a_list_by_its_id(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    of, other = api.face_blocklist(), api.new_list("allowlist", "face")
    first = api.upload(of, people["ada"])
    made = api.post(ENTRIES.format(other), {"value": first["value"], "display_label": "Ada"})
    assert made["value"] not in ("", first["value"])
    assert made["display_label"] == "Ada"
    assert httpx.get(made["metadata"]["reference_image_url"]).content == people["ada"]
    for nobody in (str(uuid4()), "a face"):
        assert list(api.post(ENTRIES.format(other), {"value": nobody}, 400)) == ["value"]
    custom = api.new_list("custom", "face")
    assert api.post(ENTRIES.format(custom), {"value": "Any Text"})["value"] == "any text"


def test_face_that_is_purged_by_its_id_is_on_the_list_no_more(
    api: DiditClient, people: dict[str, bytes]
) -> None:
    of = api.face_blocklist()
    made = api.upload(of, variations(people["cas"], 1, seed=7)[0])
    api.place.command("purge", made["value"], "--tenant", api.tenant_name())
    assert api.faces() == 0
    assert api.get(ENTRIES.format(of))["count"] == 0
    assert api.http.delete(f"{ENTRIES.format(of)}{made['uuid']}/").status_code == 404
