"""The Didit dialect's calls on faces and sessions: shapes and outcomes, as documented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.e2e.test_bad_input import no_face
from tests.fixtures.didit import LIVENESS, MATCH, SEARCH, Didit, risks
from tests.fixtures.didit_shapes import MATCHED, WARNING, other

pytestmark = pytest.mark.model

POST_MATCH, POST_SEARCH = "POST /v3/face-match/", "POST /v3/face-search/"
POST_LIVENESS = "POST /v3/passive-liveness/"

ENVELOPE = {"request_id", "vendor_data", "metadata", "created_at"}
ENTITY = {"bbox", "confidence", "age", "gender", "race"}


def check_envelope(reply: dict[str, Any], feature: str) -> None:
    assert set(reply) == {*ENVELOPE, feature}
    UUID(reply["request_id"])
    at = datetime.fromisoformat(reply["created_at"])
    assert reply["created_at"] == at.isoformat(timespec="microseconds")
    assert reply["created_at"].endswith("+00:00")
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)


def check_entity(entity: dict[str, Any]) -> None:
    assert set(entity) == ENTITY
    left, top, right, bottom = entity["bbox"]
    assert all(isinstance(each, int) for each in entity["bbox"])
    assert left < right
    assert top < bottom
    assert 0 < entity["confidence"] <= 1
    assert 0 < entity["age"] < 100
    assert entity["gender"] in ("male", "female")
    assert entity["race"] is None


@pytest.mark.conforms("didit", POST_MATCH, "one person: Approved, the example's shape", "exact")
def test_match_approves_one_person(didit: Didit, people: dict[str, bytes]) -> None:
    fields = {
        "face_match_score_decline_threshold": "50",
        "vendor_data": "user-123",
        "metadata": '{"flow":"login"}',
    }
    reply = didit.match(people["ada"], other(people["ada"]), **fields)
    check_envelope(reply, "face_match")
    found = reply["face_match"]
    assert set(found) == {"status", "score", "user_image", "ref_image", "warnings"}
    assert found["status"] == "Approved"
    assert 90 < found["score"] <= 100
    assert found["score"] == round(found["score"], 2)
    assert found["warnings"] == []
    for name in ("user_image", "ref_image"):
        assert set(found[name]) == {"entities", "best_angle"}
        assert found[name]["best_angle"] == 0
        check_entity(found[name]["entities"][0])
    assert reply["vendor_data"] == "user-123"
    assert reply["metadata"] == {"flow": "login"}


@pytest.mark.conforms("didit", POST_MATCH, "two people: Declined with the warning", "exact")
def test_match_declines_two_people(didit: Didit, people: dict[str, bytes]) -> None:
    reply = didit.match(people["ada"], people["bea"])
    assert reply["vendor_data"] is None
    assert reply["metadata"] is None
    found = reply["face_match"]
    assert found["status"] == "Declined"
    assert found["score"] <= 30
    (warning,) = found["warnings"]
    assert set(warning) == WARNING
    assert warning["risk"] == "LOW_FACE_MATCH_SIMILARITY"
    assert warning["feature"] == "FACEMATCH"
    assert warning["additional_data"] is None
    assert warning["log_type"] == "error"
    assert warning["short_description"] == "Low face match similarity"


@pytest.mark.conforms("didit", POST_MATCH, "only a score above the threshold approves", "exact")
def test_match_declines_at_the_threshold(didit: Didit, people: dict[str, bytes]) -> None:
    pair = people["ada"], people["bea"]
    score = didit.match(*pair)["face_match"]["score"]
    name = "face_match_score_decline_threshold"
    at = didit.match(*pair, **{name: str(score)})["face_match"]
    assert (at["status"], risks(at)) == ("Declined", ["LOW_FACE_MATCH_SIMILARITY"])
    if score > 0:
        below = didit.match(*pair, **{name: f"{score - 0.01:.2f}"})["face_match"]
        assert (below["status"], risks(below)) == ("Approved", [])


@pytest.mark.conforms("didit", POST_MATCH, "just above the threshold approves", "exact")
def test_match_approves_just_above_the_threshold(didit: Didit, people: dict[str, bytes]) -> None:
    pair = people["cas"], other(people["cas"], 5)
    score = didit.match(*pair)["face_match"]["score"]
    name = "face_match_score_decline_threshold"
    below = didit.match(*pair, **{name: f"{score - 0.01:.2f}"})["face_match"]
    assert (below["status"], risks(below)) == ("Approved", [])
    assert didit.match(*pair, **{name: str(score)})["face_match"]["status"] == "Declined"


@pytest.mark.conforms("didit", POST_MATCH, "no face: Declined, NO_REFERENCE_IMAGE alone", "exact")
@pytest.mark.parametrize(("save", "score"), [("true", None), ("false", 0)])
@pytest.mark.parametrize("blank", ["user_image", "ref_image"])
def test_match_without_a_face_is_declined(
    didit: Didit, people: dict[str, bytes], blank: str, save: str, score: float | None
) -> None:
    photos = {"user_image": people["dan"], "ref_image": people["dan"], blank: no_face()}
    reply = didit.post(MATCH, photos, {"save_api_request": save}).json()
    found = reply["face_match"]
    assert found["status"] == "Declined"
    assert found["score"] == score
    assert risks(found) == ["NO_REFERENCE_IMAGE"]
    assert found[blank] == {"entities": [], "best_angle": 0}
    (good,) = {"user_image", "ref_image"} - {blank}
    assert len(found[good]["entities"]) == 1
    if save == "true":
        (check,) = didit.decision(reply["request_id"])["face_matches"]
        assert check["score"] is None
        assert httpx.get(check["source_image"]).content == photos["ref_image"]
        assert httpx.get(check["target_image"]).content == photos["user_image"]


@pytest.mark.conforms(
    "didit", POST_MATCH, "never enrolls or screens; unsaved leaves nothing", "exact"
)
def test_match_enrolls_nobody(didit: Didit, people: dict[str, bytes]) -> None:
    didit.block(people["eve"])
    before = didit.stored()
    unsaved = didit.match(people["eve"], other(people["eve"]), save_api_request="false")
    assert didit.stored() == before
    path = f"/v3/session/{unsaved['request_id']}/decision/"
    assert didit.http.get(path).status_code == 404
    saved = didit.match(people["eve"], other(people["eve"]))
    assert (saved["face_match"]["status"], saved["face_match"]["warnings"]) == ("Approved", [])
    added = {"face": 0, "request": 1, "picture": 2, "objects": 2, "outbox": 0}
    assert didit.stored() == {name: before[name] + more for name, more in added.items()}


@pytest.mark.conforms("didit", POST_MATCH, "rotate_image finds the angle", "exact")
def test_match_turns_pictures_when_asked(
    didit: Didit, turned_photos: Any, people: dict[str, bytes]
) -> None:
    sideways = (turned_photos / "rot_90.jpg").read_bytes()
    upright = (turned_photos / "rot_0.jpg").read_bytes()
    found = didit.match(sideways, upright, rotate_image="true")["face_match"]
    assert found["status"] == "Approved"
    assert found["user_image"]["best_angle"] in (90, 270)
    assert found["ref_image"]["best_angle"] == 0


@pytest.mark.conforms("didit", POST_SEARCH, "nobody there: Approved, no matches", "chosen")
def test_search_of_nobody(didit: Didit, people: dict[str, bytes]) -> None:
    reply = didit.search(people["ada"], vendor_data="user-1")
    check_envelope(reply, "face_search")
    found = reply["face_search"]
    (entity,) = found["user_image"].pop("entities")
    assert set(entity) == {"bbox", "confidence"}
    assert found == {
        "status": "Approved",
        "total_matches": 0,
        "matches": [],
        "user_image": {"best_angle": 0},
        "warnings": [],
    }


@pytest.mark.conforms("didit", POST_SEARCH, "a match in the example's shape", "exact")
def test_search_finds_an_enrolled_face(didit: Didit, people: dict[str, bytes]) -> None:
    enrolled = didit.live(people["bea"], vendor_data="user-1")
    number = didit.decision(enrolled["request_id"])["session_number"]
    found = didit.search(other(people["bea"]))["face_search"]
    assert found["total_matches"] == 1
    (match,) = found["matches"]
    assert set(match) == MATCHED
    assert httpx.get(match.pop("match_image_url")).content == people["bea"]
    assert 90 < match.pop("similarity_percentage") <= 100
    date = match.pop("verification_date")
    assert date == f"{datetime.fromisoformat(date):%Y-%m-%dT%H:%M:%SZ}"
    assert match == {
        "session_id": enrolled["request_id"],
        "session_number": number,
        "source": "session",
        "vendor_data": "user-1",
        "user_details": {"full_name": None, "document_type": None, "document_number": None},
        "status": "Approved",
        "is_blocklisted": False,
        "is_allowlisted": False,
        "api_service": "PASSIVE_LIVENESS",
        "vendor_user_id": None,
        "biometric_template_id": None,
    }


@pytest.mark.conforms("didit", POST_SEARCH, "enrolls nobody, saved or not", "exact")
def test_a_face_of_a_search_is_not_found_by_the_next(
    didit: Didit, people: dict[str, bytes]
) -> None:
    for _ in range(2):
        assert didit.search(people["cas"])["face_search"]["total_matches"] == 0
    before = didit.stored()
    assert (before["face"], before["request"]) == (0, 2)
    didit.search(people["cas"], save_api_request="false")
    assert didit.stored() == before


@pytest.mark.conforms("didit", POST_SEARCH, "no face: 400", "exact")
def test_search_without_a_face_is_400(didit: Didit) -> None:
    before = didit.stored()
    reply = didit.post(SEARCH, {"user_image": no_face()})
    assert (reply.status_code, reply.json()) == (400, {"error": "No face detected in the image"})
    assert didit.stored() == before


@pytest.mark.conforms("didit", POST_LIVENESS, "the example's shape; saving enrolls", "exact")
def test_liveness_enrolls_the_face(didit: Didit, people: dict[str, bytes]) -> None:
    reply = didit.live(people["dan"], vendor_data="user-123")
    check_envelope(reply, "liveness")
    found = reply["liveness"]
    assert set(found) == {
        "status", "method", "score", "user_image", "warnings", "face_quality", "face_luminance",
    }  # fmt: skip
    assert (found["status"], found["method"]) == ("Approved", "PASSIVE")
    check_entity(found["user_image"]["entities"][0])
    assert 0 < found["face_luminance"] < 100
    assert didit.stored() == {"face": 1, "request": 1, "picture": 1, "outbox": 0, "objects": 2}


@pytest.mark.conforms("didit", POST_LIVENESS, "unsaved: screened, and nothing stored", "exact")
def test_liveness_that_is_not_saved_leaves_nothing(didit: Didit, people: dict[str, bytes]) -> None:
    didit.block(people["eve"])
    before = didit.stored()
    found = didit.live(other(people["eve"]), save_api_request="false")["liveness"]
    assert (found["status"], risks(found)[-1]) == ("Declined", "FACE_IN_BLOCKLIST")
    assert didit.stored() == before


@pytest.mark.conforms("didit", POST_LIVENESS, "no model: score null, said so, no decline", "chosen")
def test_liveness_without_a_model_says_so(didit: Didit, people: dict[str, bytes]) -> None:
    found = didit.live(people["fay"], face_liveness_score_decline_threshold="100")["liveness"]
    assert found["status"] == "Approved"
    assert found["score"] is None
    assert found["face_quality"] is None
    (warning,) = found["warnings"]
    assert set(warning) == WARNING
    assert (warning["risk"], warning["log_type"]) == ("LIVENESS_NOT_ASSESSED", "information")


@pytest.mark.conforms("didit", POST_LIVENESS, "no face: Declined, NO_FACE_DETECTED, nulls", "exact")
def test_liveness_without_a_face_is_declined(didit: Didit) -> None:
    reply = didit.live(no_face())
    found = reply["liveness"]
    assert found["status"] == "Declined"
    assert risks(found) == ["NO_FACE_DETECTED"]
    assert [found[name] for name in ("score", "face_quality", "face_luminance")] == [None] * 3
    assert found["user_image"] == {"entities": [], "best_angle": 0}
    assert didit.stored()["face"] == 0
    assert didit.decision(reply["request_id"])["status"] == "Declined"


@pytest.mark.conforms("didit", "every path", "with and without the slash, no redirect", "chosen")
def test_paths_answer_with_and_without_the_slash(didit: Didit, people: dict[str, bytes]) -> None:
    photos = {"user_image": people["ada"], "ref_image": people["ada"]}
    for path in (MATCH, SEARCH, LIVENESS):
        for form in (path, path.rstrip("/")):
            reply = didit.post(form, photos)
            assert reply.status_code == 200
    session_id = reply.json()["request_id"]
    for form in ("decision", "decision/"):
        assert didit.http.get(f"/v3/session/{session_id}/{form}").status_code == 200
    assert didit.http.delete(f"/v3/session/{session_id}/delete").status_code == 200
    assert didit.http.post("/v3/sessions/delete", json={"delete_all": True}).status_code == 200
