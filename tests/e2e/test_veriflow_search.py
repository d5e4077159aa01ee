"""Face search and passive liveness of the VeriFlow dialect over HTTP, with real photos."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from _photos import variations

from oneton.domain.model import Score
from tests.e2e.test_bad_input import no_face
from tests.fixtures.servers import MakeClient, MakePlace, Place, as_base64, new_tenant, run_server
from tests.fixtures.veriflow import (
    MATCH,
    REQUEST_KEYS,
    REQUESTS,
    SEARCH,
    TIME,
    Flow,
    MakeFlow,
    check_refusal,
    conforms,
    options_of,
    response,
    risks,
    side_by_side,
    unlinked,
    wait_for_options,
)

pytestmark = pytest.mark.model


@conforms("POST /v2/face-search", "201, nobody found", "chosen")
def test_a_search_that_finds_nobody_is_approved(flow: Flow, people: dict[str, bytes]) -> None:
    request = flow.search(people["ada"], metadata="m")
    assert set(request) == REQUEST_KEYS
    assert (request["type"], request["status"]) == ("FACE_SEARCH", "approved")
    init = request["info"]["init"]
    assert flow.picture(init.pop("userImage")) == people["ada"]
    assert init == {"searchType": "most_similar", "rotateImage": False, "metadata": "m"}
    found = response(request)
    assert set(found) == {"status", "totalMatches", "matches", "userImage", "warnings"}
    assert (found["status"], found["totalMatches"]) == ("Approved", 0)
    assert (found["matches"], found["warnings"]) == ([], [])
    assert len(found["userImage"]["entities"]) == 1


@conforms("POST /v2/face-search", "201, a duplicate: approved, with a warning", "chosen")
def test_a_search_finds_who_was_enrolled_and_warns(flow: Flow, people: dict[str, bytes]) -> None:
    enrolled = flow.enroll(people["ada"])
    request = flow.search(people["ada"])
    found = response(request)
    assert (request["status"], found["status"], found["totalMatches"]) == (
        "approved",
        "Approved",
        1,
    )
    [match] = found["matches"]
    assert flow.picture(match.pop("matchImageUrl")) == people["ada"]
    assert TIME.fullmatch(match.pop("verificationDate"))
    assert match == {
        "requestId": enrolled["id"],
        "sessionId": enrolled["id"],
        "sessionNumber": 1,
        "similarityPercentage": 100,
        "source": "session",
        "vendorData": None,
        "userDetails": {"fullName": None, "documentType": None, "documentNumber": None},
        "status": "Approved",
        "isBlocklisted": False,
        "isAllowlisted": False,
    }
    [warning] = found["warnings"]
    assert warning.pop("longDescription")
    assert warning == {
        "feature": "LIVENESS",
        "risk": "DUPLICATED_FACE",
        "additionalData": {
            "duplicatedSessionId": enrolled["id"],
            "duplicatedSessionNumber": 1,
            "apiService": "PASSIVE_LIVENESS",
        },
        "logType": "information",
        "shortDescription": "Duplicated face from other approved session",
    }


@conforms("POST /v2/face-search", "floor 70, sure from 90", "chosen")
def test_the_bands_are_those_of_the_organization(
    flow: Flow, shared_place: Place, people: dict[str, bytes]
) -> None:
    flow.enroll(people["ada"])
    photo = variations(people["ada"], 1, seed=7)[0]
    score = response(flow.search(photo))["matches"][0]["similarityPercentage"]
    assert 70 <= score < 100
    for floor, sure, expected in (
        (score - 1, score - 0.5, ["DUPLICATED_FACE"]),
        (score - 1, score + 0.5, ["POSSIBLE_DUPLICATED_FACE"]),
        (score + 0.5, 100, []),
    ):
        other = flow
        options_of(shared_place, other, floor=Score(floor), sure=Score(sure))
        wait_for_options()
        request = other.search(photo)
        assert risks(request) == expected
        assert response(request)["totalMatches"] == len(expected)


@conforms("POST /v2/face-search", "never enrolls", "chosen")
def test_a_search_adds_nobody(flow: Flow, people: dict[str, bytes]) -> None:
    for _ in range(2):
        assert response(flow.search(people["ada"]))["totalMatches"] == 0


@conforms("POST /v2/face-search", "no face: 400, none stored", "chosen")
def test_a_search_without_a_face_is_refused(flow: Flow) -> None:
    reply = flow.http.post(SEARCH, json={"userImage": as_base64(no_face())})
    check_refusal(reply, 400, "VALIDATION_ERROR")
    assert reply.json()["message"] == "No face detected in the image"
    assert flow.total() == 0


@conforms("POST /v2/face-search", "several faces: MULTIPLE_FACES_DETECTED", "chosen")
def test_a_search_with_several_faces_warns(flow: Flow, people: dict[str, bytes]) -> None:
    request = flow.search(side_by_side(people["ada"], people["bea"]))
    assert request["status"] == "approved"
    [warning] = response(request)["warnings"]
    assert (warning["risk"], warning["logType"]) == ("MULTIPLE_FACES_DETECTED", "warning")
    assert warning["additionalData"] is None
    assert len(response(request)["userImage"]["entities"]) == 2


@conforms("POST /v2/face-search", "at most 5 matches, all are counted", "chosen")
def test_a_search_lists_five_and_counts_all(flow: Flow, people: dict[str, bytes]) -> None:
    for _ in range(7):
        flow.enroll(people["cas"])
    found = response(flow.search(people["cas"]))
    assert (len(found["matches"]), found["totalMatches"]) == (5, 7)
    assert (
        found["warnings"][0]["additionalData"]["duplicatedSessionId"]
        == (found["matches"][0]["sessionId"])
    )


@conforms("POST /v2/face-search", "searchType is one of two, else 400", "chosen")
def test_an_unknown_search_type_is_refused(flow: Flow, people: dict[str, bytes]) -> None:
    body = {"userImage": as_base64(people["ada"]), "searchType": "all"}
    check_refusal(flow.http.post(SEARCH, json=body), 400, "VALIDATION_ERROR", "searchType")


@conforms("POST /v2/face-search", "block-listed: declined, FACE_IN_BLOCKLIST", "chosen")
@conforms(
    "POST /v2/passive-liveness",
    "block-listed: declined, enrolled all the same",
    "chosen",
)
def test_a_block_listed_face_is_declined(with_lists: Flow, people: dict[str, bytes]) -> None:
    flow = with_lists
    request = flow.search(people["ada"])
    found = response(request)
    assert (request["status"], found["status"]) == ("declined", "Declined")
    [match] = found["matches"]
    assert (match["isBlocklisted"], match["isAllowlisted"]) == (True, False)
    assert (match["source"], match["requestId"], match["status"]) == ("list_entry", None, None)
    [warning] = found["warnings"]
    assert (warning["risk"], warning["logType"]) == ("FACE_IN_BLOCKLIST", "error")
    assert warning["additionalData"] == {
        "blocklistedSessionId": None,
        "blocklistedSessionNumber": None,
        "apiService": None,
    }
    # However often she comes back, nearer than her picture on the list, she stays declined.
    again = variations(people["ada"], 1, seed=11)[0]
    for _ in range(7):
        assert flow.enroll(again)["status"] == "declined"
    request = flow.search(again)
    assert request["status"] == "declined"
    assert risks(request)[0] in ("FACE_IN_BLOCKLIST", "POSSIBLE_FACE_IN_BLOCKLIST")
    assert response(request)["totalMatches"] == 8
    assert not any(each["isBlocklisted"] for each in response(request)["matches"])
    narrow = response(flow.search(again, searchType="blocklisted_or_approved"))
    assert [each["isBlocklisted"] for each in narrow["matches"]] == [True]


@pytest.mark.slow
@pytest.mark.timeout(120)
@conforms("POST /v2/face-search", "a block-listed face is never hidden by nearer ones", "chosen")
def test_a_block_listed_face_is_found_behind_a_hundred_nearer_ones(
    with_lists: Flow, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    again = variations(people["ada"], 1, seed=11)[0]
    credentials = {"client_id": with_lists.key_id, "client_secret": with_lists.token}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make_client(with_lists.url, credentials).insert, [again] * 100))
    request = with_lists.search(again)
    assert request["status"] == "declined"
    assert response(request)["totalMatches"] == 101
    assert all(each["similarityPercentage"] == 100 for each in response(request)["matches"])


@conforms("POST /v2/face-search", "an allow list hides duplicates", "chosen")
def test_an_allow_listed_face_warns_of_no_duplicate(
    with_lists: Flow, people: dict[str, bytes]
) -> None:
    enrolled = with_lists.enroll(people["bea"])
    assert "DUPLICATED_FACE" not in risks(enrolled)
    request = with_lists.search(people["bea"])
    assert (request["status"], risks(request)) == ("approved", [])
    found = response(request)
    assert found["totalMatches"] == 2
    assert {each["isAllowlisted"] for each in found["matches"]} == {True, False}


@conforms("POST /v2/passive-liveness", "201; enrolls the face", "chosen")
def test_passive_liveness_enrolls_and_says_that_liveness_is_not_assessed(
    flow: Flow, people: dict[str, bytes]
) -> None:
    request = flow.enroll(people["eve"], metadata={"user": 1})
    assert set(request) == REQUEST_KEYS
    assert (request["type"], request["status"]) == ("PASSIVE_LIVENESS", "approved")
    init = request["info"]["init"]
    assert flow.picture(init.pop("userImage")) == people["eve"]
    assert init == {
        "faceLivenessScoreDeclineThreshold": 30,
        "rotateImage": False,
        "metadata": {"user": 1},
    }
    found = response(request)
    assert set(found) == {
        "status",
        "method",
        "score",
        "userImage",
        "warnings",
        "faceQuality",
        "faceLuminance",
    }
    assert (found["status"], found["method"], found["score"]) == ("Approved", "PASSIVE", None)
    assert 0 < found["faceLuminance"] < 100
    assert [(each["risk"], each["logType"]) for each in found["warnings"]] == [
        ("LIVENESS_NOT_ASSESSED", "information")
    ]
    assert response(flow.search(people["eve"]))["totalMatches"] == 1
    assert risks(flow.enroll(people["eve"])) == ["LIVENESS_NOT_ASSESSED", "DUPLICATED_FACE"]
    assert response(flow.search(people["eve"]))["totalMatches"] == 2


@conforms("POST /v2/passive-liveness", "no face: declined, NO_FACE_DETECTED", "chosen")
def test_passive_liveness_without_a_face_is_declined(flow: Flow) -> None:
    request = flow.enroll(no_face())
    found = response(request)
    assert (request["status"], found["status"]) == ("declined", "Declined")
    assert risks(request) == ["NO_FACE_DETECTED"]
    assert (found["score"], found["faceQuality"], found["faceLuminance"]) == (None, None, None)
    assert found["userImage"] == {"bestAngle": 0, "entities": []}
    assert unlinked(flow.get(request["id"])) == unlinked(request)


@conforms("POST /v2/passive-liveness", "at or below the threshold declines", "chosen")
def test_a_liveness_model_decides_by_the_threshold(
    make_place: MakePlace, people: dict[str, bytes]
) -> None:
    place = make_place(ONETON_LIVENESS="half_alive:Half")
    (place.folder / "half_alive.py").write_text(
        "class Half:\n    def __call__(self, pixels, box, landmarks):\n        return 0.5\n"
    )
    with run_server(place) as server:
        flow = Flow(server.url, new_tenant(place))
        alive = flow.enroll(people["ada"], faceLivenessScoreDeclineThreshold=49.9)
        assert (alive["status"], response(alive)["score"], risks(alive)) == ("approved", 50, [])
        low = flow.enroll(people["bea"], faceLivenessScoreDeclineThreshold=50)
        assert (low["status"], risks(low)) == ("declined", ["LOW_LIVENESS_SCORE"])
        # Declined sessions are found, but nobody is a duplicate of one.
        assert response(flow.search(people["bea"]))["totalMatches"] == 1
        assert risks(flow.search(people["bea"])) == []
        flow.http.close()


@conforms("any", "organizations do not see each other", "chosen")
def test_organizations_do_not_see_each_other(make_flow: MakeFlow, people: dict[str, bytes]) -> None:
    mine, theirs = make_flow(), make_flow()
    request = mine.enroll(people["ada"])
    assert response(theirs.search(people["ada"]))["totalMatches"] == 0
    check_refusal(theirs.http.get(f"{REQUESTS}/{request['id']}"), 404, "NOT_FOUND")
    other = theirs.enroll(people["ada"])
    assert request["organizationId"] != other["organizationId"]
    assert mine.enroll(people["bea"])["organizationId"] == request["organizationId"]


def test_a_sandbox_key_is_answered_alike_and_nothing_is_kept(
    make_flow: MakeFlow, shared_place: Place, people: dict[str, bytes]
) -> None:
    real = make_flow(name=f"sandbox-{np.random.default_rng().integers(1 << 40)}")
    tenant = shared_place.json("tenant", "list")
    name = next(each["name"] for each in reversed(tenant) if each["name"].startswith("sandbox-"))
    key = shared_place.json("key", "create", "--tenant", name, "--sandbox")
    flow = Flow(real.url, {"client_id": key["client_id"], "client_secret": key["client_secret"]})
    assert flow.match(people["ada"], people["ada"])["status"] == "approved"
    assert flow.match(people["ada"], people["gus"])["status"] == "declined"
    enrolled = flow.enroll(people["ada"])
    assert enrolled["info"]["init"]["userImage"] is None
    check_refusal(real.http.get(f"{REQUESTS}/{enrolled['id']}"), 404, "NOT_FOUND")
    assert response(real.search(people["ada"]))["totalMatches"] == 0
    assert real.total() == 1
    check_refusal(flow.http.post(MATCH, json={}), 400, "VALIDATION_ERROR")
    flow.http.close()
