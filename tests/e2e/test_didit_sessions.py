"""Saved calls of the Didit dialect: looked up, deleted, told to webhooks."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.fixtures.didit import Didit, MakeDiditOf
from tests.fixtures.didit_shapes import DECISION, LIVENESS_CHECK, MATCHED, WARNING, other
from tests.fixtures.servers import Place, Server

pytestmark = pytest.mark.model

GET_DECISION = "GET /v3/session/{sessionId}/decision/"
DELETE_ONE = "DELETE /v3/session/{sessionId}/delete/"
DELETE_MANY = "POST /v3/sessions/delete/"


@pytest.mark.conforms("didit", GET_DECISION, "face match: both pictures, the score", "exact")
def test_decision_of_a_match(didit: Didit, people: dict[str, bytes]) -> None:
    ref = other(people["gus"])
    reply = didit.match(people["gus"], ref, vendor_data="v", metadata='{"b": [1, {"a": null}]}')
    decision = didit.decision(reply["request_id"])
    assert set(decision) == DECISION
    assert decision["session_id"] == reply["request_id"]
    assert decision["status"] == "Approved"
    assert decision["features"] == ["FACE_MATCH"]
    assert decision["vendor_data"] == "v"
    assert decision["metadata"] == {"b": [1, {"a": None}]}
    assert decision["created_at"] == reply["created_at"]
    assert decision["liveness_checks"] is None
    (check,) = decision["face_matches"]
    assert set(check) == {
        "node_id", "status", "score", "source_image_session_id", "source_image", "target_image",
        "warnings",
    }  # fmt: skip
    assert check["score"] == reply["face_match"]["score"]
    assert httpx.get(check["source_image"]).content == ref
    assert httpx.get(check["target_image"]).content == people["gus"]


@pytest.mark.conforms(
    "didit", GET_DECISION, "face search: FACE_SEARCH, in liveness_checks", "exact"
)
def test_decision_of_a_search(didit: Didit, people: dict[str, bytes]) -> None:
    didit.live(people["hal"])
    reply = didit.search(other(people["hal"]))
    decision = didit.decision(reply["request_id"])
    assert set(decision) == DECISION
    assert decision["features"] == ["FACE_SEARCH"]
    assert decision["face_matches"] is None
    (check,) = decision["liveness_checks"]
    assert set(check) == LIVENESS_CHECK
    (said,), (told,) = reply["face_search"]["matches"], check["matches"]
    assert set(told) == MATCHED
    for link in (said.pop("match_image_url"), told.pop("match_image_url")):
        assert httpx.get(link).content == people["hal"]
    assert told == said
    for warning in check["warnings"]:
        assert set(warning) == {*WARNING, "node_id"}
    assert [each["risk"] for each in check["warnings"]] == ["DUPLICATED_FACE"]


@pytest.mark.conforms("didit", GET_DECISION, "passive liveness", "exact")
def test_decision_of_a_liveness_call(didit: Didit, people: dict[str, bytes]) -> None:
    reply = didit.live(people["ian"], vendor_data="v")
    (check,) = didit.decision(reply["request_id"])["liveness_checks"]
    assert set(check) == LIVENESS_CHECK
    assert check["face_luminance"] == reply["liveness"]["face_luminance"]
    assert check["age_estimation"] == reply["liveness"]["user_image"]["entities"][0]["age"]
    assert httpx.get(check["reference_image"]).content == people["ian"]


@pytest.mark.conforms("didit", GET_DECISION, "sessions count from 1", "chosen")
def test_sessions_are_numbered(didit: Didit, people: dict[str, bytes]) -> None:
    ids = [didit.match(people["ada"], people["ada"])["request_id"] for _ in range(3)]
    assert [didit.decision(each)["session_number"] for each in ids] == [1, 2, 3]


@pytest.mark.conforms("didit", GET_DECISION, "404 for unknown ids", "exact")
@pytest.mark.parametrize("unknown", [str(UUID(int=404)), "nonsense", "1"])
def test_decision_of_an_unknown_session_is_404(didit: Didit, unknown: str) -> None:
    reply = didit.http.get(f"/v3/session/{unknown}/decision/")
    assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})


@pytest.mark.conforms("didit", GET_DECISION, "another tenant's session is 404", "exact")
def test_tenants_do_not_see_each_others_sessions(
    didit: Didit,
    shared_place: Place,
    shared_server: Server,
    didit_of: MakeDiditOf,
    people: dict[str, bytes],
) -> None:
    theirs = didit_of(shared_place, shared_server)
    session_id = didit.live(people["ada"])["request_id"]
    assert theirs.http.get(f"/v3/session/{session_id}/decision/").status_code == 404
    assert theirs.http.delete(f"/v3/session/{session_id}/delete/").status_code == 404
    assert theirs.search(people["ada"])["face_search"]["total_matches"] == 0
    assert didit.decision(session_id)["status"] == "Approved"


@pytest.mark.conforms("didit", DELETE_ONE, "erases the session, its pictures and face", "exact")
def test_delete_removes_session_and_face(didit: Didit, people: dict[str, bytes]) -> None:
    enrolled = didit.live(people["jon"], vendor_data="v")
    found = didit.search(other(people["jon"]))
    number = didit.decision(enrolled["request_id"])["session_number"]
    assert didit.delete(enrolled["request_id"]) == {
        "session_id": enrolled["request_id"],
        "session_number": number,
        "face_retention_outcome": "deleted",
        "biometric_template_uuid": None,
    }
    assert didit.search(other(people["jon"]))["face_search"]["total_matches"] == 0
    for method, path in (("GET", "decision"), ("DELETE", "delete")):
        reply = didit.http.request(method, f"/v3/session/{enrolled['request_id']}/{path}/")
        assert (reply.status_code, reply.json()) == (404, {"detail": "Not found."})
    # What found it earlier does not tell of it any more.
    (check,) = didit.decision(found["request_id"])["liveness_checks"]
    assert check["matches"] == []


@pytest.mark.conforms("didit", DELETE_ONE, "a session without a face: none", "exact")
def test_delete_of_a_match_says_none(didit: Didit, people: dict[str, bytes]) -> None:
    session_id = didit.match(people["ada"], people["ada"])["request_id"]
    assert didit.delete(session_id)["face_retention_outcome"] == "none"
    assert didit.stored()["objects"] == 0


@pytest.mark.conforms("didit", DELETE_ONE, "retain_face_embeddings keeps the template", "exact")
def test_delete_may_keep_the_template(didit: Didit, people: dict[str, bytes]) -> None:
    session_id = didit.live(people["eve"], vendor_data="user-9")["request_id"]
    gone = didit.delete(session_id, retain_face_embeddings=True, instruction_id="i-1")
    assert gone["face_retention_outcome"] == "retained_with_user"
    assert didit.stored()["objects"] == 0
    found = didit.search(other(people["eve"]))["face_search"]
    (match,) = found["matches"]
    assert match["source"] == "retained_template"
    assert match["biometric_template_id"] == gone["biometric_template_uuid"] is not None
    user = didit.http.get("/v3/users/user-9/").json()
    assert match["vendor_user_id"] == user["didit_internal_id"]
    for name in ("session_id", "session_number", "match_image_url", "status", "api_service"):
        assert match[name] is None
    assert match["vendor_data"] == "user-9"
    assert match["is_blocklisted"] is False


@pytest.mark.conforms("didit", DELETE_ONE, "a template without a user: ineligible", "exact")
def test_delete_keeps_no_template_without_a_user(didit: Didit, people: dict[str, bytes]) -> None:
    session_id = didit.live(people["fay"])["request_id"]
    gone = didit.delete(session_id, retain_face_embeddings=True)
    assert gone["face_retention_outcome"] == "ineligible_no_vendor_user"
    assert gone["biometric_template_uuid"] is None
    assert didit.search(people["fay"])["face_search"]["total_matches"] == 0


@pytest.mark.conforms("didit", DELETE_ONE, "block-list entries survive", "exact")
def test_delete_leaves_block_list_entries(didit: Didit, people: dict[str, bytes]) -> None:
    session_id = didit.live(people["gus"], vendor_data="v")["request_id"]
    didit.block_session(session_id)
    didit.delete(session_id)
    found = didit.search(other(people["gus"]))["face_search"]
    assert found["status"] == "Declined"
    (match,) = found["matches"]
    assert (match["session_id"], match["source"]) == (None, "list_entry")
    assert match["is_blocklisted"] is True


@pytest.mark.conforms("didit", DELETE_ONE, "wrong options: 400 by field", "chosen")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"face_retention_days": 0}, "face_retention_days"),
        ({"face_retention_days": 3651}, "face_retention_days"),
        ({"retain_face_embeddings": "yes"}, "retain_face_embeddings"),
        ({"instruction_id": "a\0b"}, "instruction_id"),
        ([], "non_field_errors"),
    ],
)
def test_delete_refuses_wrong_options(
    didit: Didit, people: dict[str, bytes], body: Any, field: str
) -> None:
    session_id = didit.match(people["ada"], people["ada"])["request_id"]
    reply = didit.http.request("DELETE", f"/v3/session/{session_id}/delete/", json=body)
    assert reply.status_code == 400
    assert list(reply.json()) == [field]
    assert didit.decision(session_id)["status"] == "Approved"


@pytest.mark.conforms("didit", DELETE_MANY, "by session_number, or delete_all", "exact")
def test_many_sessions_are_deleted(didit: Didit, people: dict[str, bytes]) -> None:
    ids = [didit.live(people[name])["request_id"] for name in ("ada", "bea", "cas", "dan")]
    path = "/v3/sessions/delete/"
    reply = didit.http.post(path, json={"session_number": [1, 3, 99]})
    assert reply.status_code == 200
    assert [each["session_id"] for each in reply.json()["deleted"]] == [ids[0], ids[2]]
    assert {each["face_retention_outcome"] for each in reply.json()["deleted"]} == {"deleted"}
    assert didit.search(people["ada"], save_api_request="false")["face_search"]["matches"] == []
    reply = didit.http.post(path, json={"delete_all": True})
    assert {each["session_id"] for each in reply.json()["deleted"]} == {ids[1], ids[3]}
    stored = didit.stored()
    assert (stored["request"], stored["picture"], stored["objects"]) == (0, 0, 0)
    assert didit.http.post(path, json={"delete_all": True}).json() == {"deleted": []}


@pytest.mark.conforms("didit", DELETE_MANY, "neither: 400", "chosen")
def test_many_deletions_need_to_say_which(didit: Didit) -> None:
    for body in (b"", b"{}", b'{"delete_all": false}'):
        reply = didit.http.post("/v3/sessions/delete/", content=body)
        assert reply.status_code == 400
        assert reply.json() == {"session_number": ["This field is required."]}
    for body in (b"{", b'{"session_number": "1"}', b'{"session_number": [99999999999999999999]}'):
        assert didit.http.post("/v3/sessions/delete/", content=body).status_code == 400


@pytest.mark.conforms("didit", "webhook status.updated", "every saved call, the envelope", "exact")
def test_saved_calls_are_told_to_webhooks(didit: Didit, people: dict[str, bytes]) -> None:
    didit.add_endpoint()
    assert didit.match(people["ada"], people["ada"], save_api_request="false")
    assert didit.told() == []
    calls = [
        didit.match(people["ada"], people["bea"], vendor_data="v", metadata='{"a": 1}'),
        didit.live(people["ada"]),
        didit.search(people["ada"]),
    ]
    told = didit.told()[::-1]
    assert len(told) == 3
    for call, event in zip(calls, told, strict=True):
        assert set(event) == {
            "webhook_type", "created_at", "application_id", "session_id", "status", "workflow_id",
            "workflow_version", "vendor_data", "metadata", "decision",
        }  # fmt: skip
        assert event["webhook_type"] == "status.updated"
        assert event["application_id"] == str(didit.tenant)
        assert event["session_id"] == call["request_id"]
        assert abs(event["created_at"] - time.time()) < 60
        decision = didit.decision(call["request_id"])
        assert event["status"] == decision["status"]
        assert without_links(event["decision"]) == without_links(decision)
    assert (told[0]["vendor_data"], told[0]["metadata"]) == ("v", {"a": 1})
    assert told[0]["status"] == "Declined"


def without_links(value: Any) -> Any:
    """The same, with links told only as links, for each is made anew."""
    if isinstance(value, dict):
        return {name: without_links(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_links(each) for each in value]
    return "link" if isinstance(value, str) and "/media/" in value else value
