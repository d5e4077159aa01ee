"""The rules of face search and passive liveness: whom they warn of, and who is declined."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fixtures.didit import Didit, MakeDiditOf, risks
from tests.fixtures.didit_shapes import other
from tests.fixtures.servers import Place, Server, run_server

pytestmark = pytest.mark.model

POST_SEARCH, POST_LIVENESS = "POST /v3/face-search/", "POST /v3/passive-liveness/"
ALL_POSSIBLE = {"floor": 70.0, "sure": 100.0}
ROOT = Path(__file__).resolve().parents[2]


def two_faces(people: dict[str, bytes]) -> bytes:
    """A picture of two people, the first the larger."""
    large, small = (Image.open(io.BytesIO(people[name])) for name in ("ada", "bea"))
    both = Image.new("RGB", (400, 250))
    both.paste(large, (0, 0))
    both.paste(small.resize((150, 150)), (250, 50))
    out = io.BytesIO()
    both.save(out, "JPEG", quality=95)
    return out.getvalue()


def warning(told: dict[str, Any], risk: str) -> dict[str, Any]:
    (found,) = [each for each in told["warnings"] if each["risk"] == risk]
    return dict(found)


@pytest.mark.conforms("didit", POST_SEARCH, "FACE_IN_BLOCKLIST declines, names the match", "exact")
def test_a_block_listed_face_is_declined(didit: Didit, people: dict[str, bytes]) -> None:
    didit.block(people["ada"])
    found = didit.search(other(people["ada"]))["face_search"]
    assert found["status"] == "Declined"
    assert warning(found, "FACE_IN_BLOCKLIST") == {
        "risk": "FACE_IN_BLOCKLIST",
        "feature": "LIVENESS",
        "additional_data": {
            "blocklisted_session_id": None,
            "blocklisted_session_number": None,
            "api_service": None,
        },
        "log_type": "error",
        "short_description": "Face in blocklist",
        "long_description": warning(found, "FACE_IN_BLOCKLIST")["long_description"],
    }
    (match,) = found["matches"]
    assert (match["source"], match["is_blocklisted"]) == ("list_entry", True)
    assert (match["session_id"], match["status"], match["api_service"]) == (None, None, None)


@pytest.mark.conforms("didit", POST_SEARCH, "a block-listed session is one match", "exact")
def test_a_block_listed_session_is_told_once(didit: Didit, people: dict[str, bytes]) -> None:
    session_id = didit.live(people["bea"], vendor_data="user-1")["request_id"]
    didit.block_session(session_id)
    number = didit.decision(session_id)["session_number"]
    found = didit.search(other(people["bea"]))["face_search"]
    assert (found["status"], risks(found)) == ("Declined", ["FACE_IN_BLOCKLIST"])
    assert warning(found, "FACE_IN_BLOCKLIST")["additional_data"] == {
        "blocklisted_session_id": session_id,
        "blocklisted_session_number": number,
        "api_service": "PASSIVE_LIVENESS",
    }
    assert found["total_matches"] == 1
    (match,) = found["matches"]
    assert (match["session_id"], match["source"]) == (session_id, "session")
    assert match["is_blocklisted"] is True


@pytest.mark.conforms("didit", POST_SEARCH, "a duplicate: Approved with DUPLICATED_FACE", "exact")
def test_a_duplicate_is_approved_with_a_warning(didit: Didit, people: dict[str, bytes]) -> None:
    session_id = didit.live(people["cas"])["request_id"]
    found = didit.search(other(people["cas"]))["face_search"]
    assert (found["status"], risks(found)) == ("Approved", ["DUPLICATED_FACE"])
    told = warning(found, "DUPLICATED_FACE")
    assert (told["log_type"], told["feature"]) == ("information", "LIVENESS")
    assert told["short_description"] == "Duplicated face from other approved session"
    assert told["additional_data"] == {
        "duplicated_session_id": session_id,
        "duplicated_session_number": 1,
        "api_service": "PASSIVE_LIVENESS",
    }


@pytest.mark.conforms("didit", POST_SEARCH, "the warning names only the first match", "exact")
def test_a_warning_names_the_best_match(didit: Didit, people: dict[str, bytes]) -> None:
    for seed in range(6):
        didit.live(other(people["dan"], seed), vendor_data="same")
    best = didit.live(people["dan"], vendor_data="same")["request_id"]
    found = didit.search(people["dan"])["face_search"]
    assert risks(found) == ["DUPLICATED_FACE"]
    told = warning(found, "DUPLICATED_FACE")["additional_data"]
    assert told["duplicated_session_id"] == best == found["matches"][0]["session_id"]
    scores = [each["similarity_percentage"] for each in found["matches"]]
    assert scores == sorted(scores, reverse=True)
    # At most five are listed, and all are counted.
    assert (len(scores), found["total_matches"]) == (5, 7)


@pytest.mark.conforms("didit", POST_SEARCH, "below the sure band: POSSIBLE_...", "chosen")
def test_below_the_sure_band_it_is_possible(
    shared_place: Place, shared_server: Server, didit_of: MakeDiditOf, people: dict[str, bytes]
) -> None:
    didit = didit_of(shared_place, shared_server, **ALL_POSSIBLE)
    didit.live(people["eve"])
    found = didit.search(other(people["eve"]))["face_search"]
    assert (found["status"], risks(found)) == ("Approved", ["POSSIBLE_DUPLICATED_FACE"])
    didit.block(people["eve"])
    found = didit.search(other(people["eve"]))["face_search"]
    assert (found["status"], risks(found)) == ("Declined", ["POSSIBLE_FACE_IN_BLOCKLIST"])
    assert warning(found, "POSSIBLE_FACE_IN_BLOCKLIST")["log_type"] == "error"


@pytest.mark.conforms("didit", POST_SEARCH, "below the floor nothing is a match", "chosen")
def test_below_the_floor_nothing_is_found(
    shared_place: Place, shared_server: Server, didit_of: MakeDiditOf, people: dict[str, bytes]
) -> None:
    didit = didit_of(shared_place, shared_server, floor=100.0, sure=100.0)
    didit.live(people["fay"])
    found = didit.search(other(people["fay"]))["face_search"]
    assert (found["matches"], found["total_matches"], found["warnings"]) == ([], 0, [])


@pytest.mark.conforms("didit", POST_SEARCH, "a sure block-list hit hides the duplicate", "exact")
def test_a_block_list_hit_hides_the_duplicate(didit: Didit, people: dict[str, bytes]) -> None:
    didit.live(people["gus"])
    didit.block(other(people["gus"], 7))
    found = didit.search(other(people["gus"], 8))["face_search"]
    assert (found["status"], risks(found)) == ("Declined", ["FACE_IN_BLOCKLIST"])
    assert found["total_matches"] == 2


@pytest.mark.conforms("didit", POST_SEARCH, "an allow list hides duplicates only", "exact")
def test_an_allow_list_hides_duplicates_and_no_block(
    didit: Didit, people: dict[str, bytes]
) -> None:
    didit.live(people["hal"])
    didit.allow(people["hal"])
    found = didit.search(other(people["hal"]))["face_search"]
    assert (found["status"], risks(found)) == ("Approved", [])
    assert [each["is_allowlisted"] for each in found["matches"]].count(True) == 1
    didit.block(people["hal"])
    found = didit.search(other(people["hal"]))["face_search"]
    assert (found["status"], risks(found)) == ("Declined", ["FACE_IN_BLOCKLIST"])


@pytest.mark.conforms("didit", POST_SEARCH, "a declined session is no duplicate", "exact")
def test_only_an_approved_session_is_a_duplicate(didit: Didit, people: dict[str, bytes]) -> None:
    entry = didit.block(people["ian"])
    declined = didit.live(people["ian"])
    assert declined["liveness"]["status"] == "Declined"
    didit.unblock(entry)
    found = didit.search(other(people["ian"]))["face_search"]
    (match,) = found["matches"]
    assert (match["status"], risks(found)) == ("Declined", [])
    narrow = didit.search(other(people["ian"]), search_type="blocklisted_or_approved")
    assert narrow["face_search"]["matches"] == []


@pytest.mark.conforms(
    "didit", POST_SEARCH, "imported faces are duplicates, source imported", "exact"
)
def test_an_enrolled_face_of_the_native_kind_is_imported(
    didit: Didit, people: dict[str, bytes]
) -> None:
    didit.insert_plainly(people["jon"])
    found = didit.search(other(people["jon"]))["face_search"]
    (match,) = found["matches"]
    assert (match["source"], match["session_id"], match["status"]) == ("imported", None, None)
    assert risks(found) == ["DUPLICATED_FACE"]


@pytest.mark.conforms("didit", POST_SEARCH, "several faces: the largest, and a warning", "exact")
def test_several_faces_are_warned_of(didit: Didit, people: dict[str, bytes]) -> None:
    didit.live(people["ada"])
    found = didit.search(two_faces(people))["face_search"]
    assert found["status"] == "Approved"
    told = warning(found, "MULTIPLE_FACES_DETECTED")
    assert (told["log_type"], told["additional_data"]) == ("warning", None)
    assert len(found["user_image"]["entities"]) == 2
    assert found["total_matches"] == 1


@pytest.mark.conforms("didit", POST_SEARCH, "blocklisted_or_approved, block-listed first", "exact")
def test_a_narrow_search_lists_the_block_listed_first(
    didit: Didit, people: dict[str, bytes]
) -> None:
    didit.live(people["bea"])
    didit.block(other(people["bea"], 3))
    every = didit.search(people["bea"])["face_search"]["matches"]
    assert [each["is_blocklisted"] for each in every] == [False, True]
    some = didit.search(people["bea"], search_type="blocklisted_or_approved")["face_search"]
    assert [each["is_blocklisted"] for each in some["matches"]] == [True, False]


@pytest.mark.conforms("didit", POST_SEARCH, "a block-listed face is never crowded out", "chosen")
def test_a_block_listed_face_counts_behind_many_nearer_ones(
    didit: Didit, people: dict[str, bytes]
) -> None:
    for seed in range(6):
        didit.live(people["cas"], vendor_data=f"user-{seed}")
    didit.block(other(people["cas"], 4))
    found = didit.search(people["cas"])["face_search"]
    assert (found["status"], risks(found)) == ("Declined", ["FACE_IN_BLOCKLIST"])
    assert not any(each["is_blocklisted"] for each in found["matches"])
    assert found["total_matches"] == 7


@pytest.mark.conforms("didit", POST_SEARCH, "the same vendor_data is not left out", "exact")
@pytest.mark.conforms("didit", POST_LIVENESS, "the same vendor_data is left out", "exact")
def test_only_liveness_leaves_out_the_same_reference(
    didit: Didit, people: dict[str, bytes]
) -> None:
    didit.live(people["dan"], vendor_data="user-1")
    same = didit.live(other(people["dan"]), vendor_data="user-1")["liveness"]
    assert "DUPLICATED_FACE" not in risks(same)
    for vendor_data in ({"vendor_data": "user-2"}, {}):
        told = didit.live(other(people["dan"]), save_api_request="false", **vendor_data)
        assert "DUPLICATED_FACE" in risks(told["liveness"])
        assert told["liveness"]["status"] == "Approved"
    found = didit.search(people["dan"], vendor_data="user-1")["face_search"]
    assert found["total_matches"] == 2


@pytest.mark.conforms(
    "didit", POST_LIVENESS, "a block-listed face is Declined, and enrolled", "exact"
)
def test_liveness_declines_a_block_listed_face(didit: Didit, people: dict[str, bytes]) -> None:
    didit.block(people["eve"])
    reply = didit.live(other(people["eve"]))
    assert reply["liveness"]["status"] == "Declined"
    assert warning(reply["liveness"], "FACE_IN_BLOCKLIST")["feature"] == "LIVENESS"
    assert didit.decision(reply["request_id"])["status"] == "Declined"
    assert didit.search(people["eve"])["face_search"]["total_matches"] == 2


@pytest.fixture(scope="module")
def assessing_server(shared_place: Place, shared_server: Server) -> Iterator[Server]:
    """A server with a liveness model that gives every face 0.4."""
    path = f"{ROOT}:{shared_place.environ.get('PYTHONPATH', '')}".rstrip(":")
    model = "tests.fixtures.constant_liveness:make"
    with run_server(shared_place, PYTHONPATH=path, ONETON_LIVENESS=model) as server:
        yield server


@pytest.mark.conforms("didit", POST_LIVENESS, "at or below the threshold declines", "exact")
@pytest.mark.parametrize(
    ("threshold", "status"),
    [(None, "Approved"), ("39.99", "Approved"), ("40", "Declined"), ("100", "Declined")],
)
def test_the_liveness_threshold_declines(
    shared_place: Place,
    assessing_server: Server,
    didit_of: MakeDiditOf,
    people: dict[str, bytes],
    threshold: str | None,
    status: str,
) -> None:
    didit = didit_of(shared_place, assessing_server)
    fields = {} if threshold is None else {"face_liveness_score_decline_threshold": threshold}
    reply = didit.live(people["ada"], **fields)
    found = reply["liveness"]
    assert (found["score"], found["status"]) == (40, status)
    assert risks(found) == ([] if status == "Approved" else ["LOW_LIVENESS_SCORE"])
    (check,) = didit.decision(reply["request_id"])["liveness_checks"]
    assert check["score"] == 40
