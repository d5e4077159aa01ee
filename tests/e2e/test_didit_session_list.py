"""The list of saved calls of the Didit dialect."""

from __future__ import annotations

import pytest

from tests.fixtures.didit import Didit
from tests.fixtures.didit_shapes import other
from tests.fixtures.servers import Server

pytestmark = pytest.mark.model

LIST = "GET /v3/sessions/"


@pytest.mark.conforms("didit", LIST, "newest first, by pages of 25", "chosen")
def test_the_sessions_are_listed_newest_first(didit: Didit, people: dict[str, bytes]) -> None:
    ids = [didit.match(people["ada"], people["ada"])["request_id"] for _ in range(3)]
    page = didit.http.get("/v3/sessions/", params={"limit": 2}).json()
    assert set(page) == {"count", "next", "previous", "results"}
    assert page["count"] == 3
    assert page["previous"] is None
    assert [each["session_id"] for each in page["results"]] == ids[:0:-1]
    rest = didit.http.get(page["next"]).json()
    assert [each["session_id"] for each in rest["results"]] == ids[:1]
    assert rest["next"] is None
    assert set(rest["results"][0]) == {
        "session_id", "session_number", "session_kind", "status", "features", "vendor_data",
        "metadata", "created_at", "expires_at", "workflow_id",
    }  # fmt: skip


@pytest.mark.conforms("didit", LIST, "by status and vendor_data", "chosen")
def test_the_list_is_filtered(didit: Didit, people: dict[str, bytes]) -> None:
    same = didit.match(people["ada"], other(people["ada"]), vendor_data="u1")["request_id"]
    different = didit.match(people["ada"], people["bea"], vendor_data="u2")["request_id"]

    def listed(**query: str) -> list[str]:
        found = didit.http.get("/v3/sessions", params=query).json()
        return [each["session_id"] for each in found["results"]]

    assert listed(status="Declined") == [different]
    assert listed(status="Approved") == [same]
    assert listed(vendor_data="u2") == [different]
    assert listed(vendor_data="u3") == []
    assert didit.http.get("/v3/sessions/", params={"status": "Lost"}).status_code == 400
    assert didit.http.get("/v3/sessions/", params={"limit": 0}).status_code == 400


@pytest.mark.conforms("didit", LIST, "another application's are not there", "exact")
def test_the_list_is_the_tenants_own(
    didit: Didit, shared_server: Server, people: dict[str, bytes]
) -> None:
    didit.match(people["ada"], people["ada"])
    stranger = Didit.of_new_tenant(didit.place, shared_server)
    with stranger.http as http:
        assert http.get("/v3/sessions/").json()["count"] == 0
    assert didit.beside(sandbox=True).http.get("/v3/sessions/").json()["count"] == 0
