"""Didit's webhook destinations over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.fixtures.didit_clients import WRONG, DiditClient, MakeDidit
from tests.fixtures.servers import MakePlace, Place, Server, new_tenant, run_server

pytestmark = pytest.mark.model

PATH = "/v3/webhook/destinations/"
FIELDS = {
    "uuid",
    "label",
    "url",
    "enabled",
    "webhook_version",
    "secret_shared_key",
    "subscribed_events",
    "created_at",
    "updated_at",
}
BODY = {
    "label": "Production",
    "url": "https://93.184.216.34/webhooks/didit",
    "webhook_version": "v3",
    "subscribed_events": ["status.updated", "data.updated"],
}


@pytest.mark.conforms("didit", "POST /v3/webhook/destinations/", "body; secret in reply", "exact")
@pytest.mark.conforms("didit", "POST /v3/webhook/destinations/", "201, other fields", "chosen")
@pytest.mark.conforms("didit", "GET /v3/webhook/destinations/", "envelope; no secret", "chosen")
@pytest.mark.conforms(
    "didit", "GET /v3/webhook/destinations/{destination_uuid}/", "no secret", "chosen"
)
def test_destination_is_created_and_its_secret_told_once(api: DiditClient) -> None:
    made = api.post(PATH, BODY)
    assert set(made) == FIELDS
    assert {**made, **BODY} == made
    assert UUID(made["uuid"])
    assert made["enabled"] is True
    assert len(made["secret_shared_key"]) >= 32
    assert made["created_at"].endswith("+00:00")
    later = {**made, "secret_shared_key": None}
    assert api.get(f"{PATH}{made['uuid']}/") == later
    assert api.get(PATH.rstrip("/")) == {
        "count": 1,
        "next": None,
        "previous": None,
        "results": [later],
    }
    changed = api.http.patch(f"{PATH}{made['uuid']}/", json={"label": "x"}).json()
    assert changed["secret_shared_key"] is None


@pytest.mark.conforms("didit", "POST /v3/webhook/destinations/", "url unique", "exact")
def test_destination_of_an_url_that_is_taken_is_refused(
    api: DiditClient, make_didit: MakeDidit
) -> None:
    api.post(PATH, BODY)
    assert list(api.post(PATH, {**BODY, "label": "Second"}, 400)) == ["url"]
    make_didit().post(PATH, BODY)


@pytest.mark.conforms("didit", "POST /v3/webhook/destinations/", "https, public: 400", "exact")
@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.216.34/hook",
        "https://127.0.0.1/hook",
        "https://10.0.0.1/hook",
        "https://[::1]/hook",
        "https://169.254.169.254/latest",
        "https://localhost/hook",
        "ftp://93.184.216.34/",
        "nonsense",
        "",
    ],
)
def test_destination_that_is_not_public_is_refused(api: DiditClient, url: str) -> None:
    assert list(api.post(PATH, {**BODY, "url": url}, 400)) == ["url"]
    assert api.get(PATH)["count"] == 0


@pytest.mark.conforms("didit", "POST /v3/webhook/destinations/", "exact event names: 400", "exact")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"subscribed_events": ["*"]}, "subscribed_events"),
        ({"subscribed_events": ["all"]}, "subscribed_events"),
        ({"subscribed_events": []}, "subscribed_events"),
        ({"subscribed_events": "status.updated"}, "subscribed_events"),
        ({"subscribed_events": ...}, "subscribed_events"),
        ({"webhook_version": "v1"}, "webhook_version"),
        ({"label": ""}, "label"),
        ({"label": "a\0"}, "label"),
        ({"label": ...}, "label"),
        ({"url": ...}, "url"),
    ],
)
def test_destination_with_a_wrong_field_is_refused(
    api: DiditClient, change: dict[str, Any], field: str
) -> None:
    body = {name: value for name, value in {**BODY, **change}.items() if value is not ...}
    assert list(api.post(PATH, body, 400)) == [field]


@pytest.mark.conforms(
    "didit", "PATCH /v3/webhook/destinations/{destination_uuid}/", "200; the rest stays", "chosen"
)
def test_destination_is_changed(api: DiditClient) -> None:
    made = {**api.post(PATH, BODY), "secret_shared_key": None}
    path = f"{PATH}{made['uuid']}/"
    change = {
        "label": "Staging",
        "url": "https://93.184.216.35/hook",
        "subscribed_events": ["status.updated"],
        "enabled": False,
    }
    changed = api.http.patch(path, json=change).json()
    assert {**made, **change, "updated_at": changed["updated_at"]} == changed
    assert changed["updated_at"] > made["updated_at"]
    assert api.get(path) == changed
    unchanged = api.http.patch(path, json={}).json()
    assert {**unchanged, "updated_at": ""} == {**changed, "updated_at": ""}
    wrongs: tuple[dict[str, Any], ...] = (
        {"url": "https://127.0.0.1/"},
        {"subscribed_events": []},
        {"label": 5},
    )
    for wrong in wrongs:
        reply = api.http.patch(path, json=wrong)
        assert (reply.status_code, list(reply.json())) == (400, list(wrong))
    api.post(PATH, {**BODY, "url": "https://93.184.216.36/"})
    reply = api.http.patch(path, json={"url": "https://93.184.216.36/"})
    assert (reply.status_code, list(reply.json())) == (400, ["url"])


@pytest.mark.conforms(
    "didit", "DELETE /v3/webhook/destinations/{destination_uuid}/", "204, then 404", "chosen"
)
def test_destination_is_deleted(api: DiditClient) -> None:
    made = api.post(PATH, BODY)
    path = f"{PATH}{made['uuid']}/"
    assert api.http.delete(path).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        reply = api.http.request(method, path, json={} if method == "PATCH" else None)
        assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})
    assert api.get(PATH)["count"] == 0
    api.post(PATH, BODY)


@pytest.mark.conforms(
    "didit", "every call on destinations", "scoped to the application: 404", "exact"
)
def test_tenants_do_not_see_each_others_destinations(
    api: DiditClient, make_didit: MakeDidit
) -> None:
    theirs = make_didit().post(PATH, BODY)
    for path in (f"{PATH}{theirs['uuid']}/", f"{PATH}{uuid4()}/", f"{PATH}x/"):
        for method in ("GET", "PATCH", "DELETE"):
            reply = api.http.request(method, path, json={} if method == "PATCH" else None)
            assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})
    assert api.get(PATH)["count"] == 0


@pytest.mark.conforms(
    "didit", "every call on destinations", "403 for no key and for a wrong one", "exact"
)
@pytest.mark.parametrize("headers", [{}, WRONG])
def test_destinations_need_a_key(shared_server: Server, headers: dict[str, str]) -> None:
    for method, path in (
        ("GET", PATH),
        ("POST", PATH),
        ("GET", f"{PATH}{uuid4()}/"),
        ("PATCH", f"{PATH}{uuid4()}/"),
        ("DELETE", f"{PATH}{uuid4()}/"),
    ):
        reply = httpx.request(method, shared_server.url + path, headers=headers, content=b"{")
        assert reply.status_code == 403
        assert reply.json() == {"detail": "You do not have permission to perform this action."}


@pytest.mark.conforms("didit", "every call on destinations", "read and admin are needed", "chosen")
def test_each_call_needs_its_permission(make_didit: MakeDidit, shared_place: Place) -> None:
    calls: dict[str, tuple[str, dict[str, Any] | None]] = {
        "read": ("GET", None),
        "admin": ("POST", BODY),
    }
    for held in calls:
        caller = make_didit(new_tenant(shared_place, permissions=[held]))
        for needed, (method, body) in calls.items():
            reply = caller.http.request(method, PATH, json=body)
            assert (reply.status_code == 403) is (needed != held), (held, needed)


@pytest.fixture(scope="module")
def strict(make_place: MakePlace) -> Iterator[tuple[Place, Server]]:
    """A server that tells a wrong key from a lack of rights."""
    place = make_place(ONETON_DIDIT_401="true")
    with run_server(place) as server:
        yield place, server


@pytest.mark.conforms("didit", "every call", "the switch: 401 for a wrong key", "chosen")
def test_wrong_key_is_401_by_setting(strict: tuple[Place, Server]) -> None:
    place, server = strict
    for path in (PATH, "/v3/lists/", "/v3/users/a/", "/v3/biometric-templates/"):
        reply = httpx.get(server.url + path, headers=WRONG)
        assert (reply.status_code, list(reply.json())) == (401, ["detail"])
    caller = DiditClient(place, server, new_tenant(place, permissions=["match"]))
    with caller.http:
        assert caller.http.get(PATH).status_code == 403
