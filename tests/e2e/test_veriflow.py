"""Face match of the VeriFlow dialect over HTTP, with real photos."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime

import cv2
import httpx
import numpy as np
import pytest
from _photos import variations

from tests.e2e.test_bad_input import no_face
from tests.fixtures.servers import MakePlace, as_base64, new_tenant, run_server
from tests.fixtures.veriflow import (
    MATCH,
    REQUEST_KEYS,
    REQUESTS,
    TIME,
    Flow,
    conforms,
    response,
    risks,
    side_by_side,
    unlinked,
    width,
)

pytestmark = pytest.mark.model


@conforms("POST /v2/face-match", "201, two photos of a person", "exact")
def test_a_match_has_the_documented_shape(flow: Flow, people: dict[str, bytes]) -> None:
    user = variations(people["ada"], 1, seed=1)[0]
    metadata = {"flow": "login", "n": [1, 2.5, None]}
    request = flow.match(
        user,
        people["ada"],
        faceMatchScoreDeclineThreshold=30,
        rotateImage=True,
        metadata=metadata,
        unknown="ignored",
    )
    assert set(request) == REQUEST_KEYS
    assert re.fullmatch(r"req_[0-9a-z]{20}", request["id"])
    assert re.fullmatch(r"org_[0-9a-z]{20}", request["organizationId"])
    assert (request["type"], request["status"], request["cost"]) == ("FACE_MATCH", "approved", 0)
    assert TIME.fullmatch(request["createdAt"])
    assert TIME.fullmatch(request["updatedAt"])
    made_at = datetime.fromisoformat(request["createdAt"])
    assert abs((datetime.now(UTC) - made_at).total_seconds()) < 60
    info = request["info"]
    assert set(info) == {"metadata", "init", "response"}
    assert info["metadata"] == info["init"]["metadata"] == metadata
    init = info["init"]
    assert set(init) == {
        "userImage",
        "refImage",
        "faceMatchScoreDeclineThreshold",
        "rotateImage",
        "metadata",
    }
    assert (init["faceMatchScoreDeclineThreshold"], init["rotateImage"]) == (30, True)
    found = info["response"]
    assert set(found) == {
        "status",
        "score",
        "sourceImage",
        "targetImage",
        "warnings",
        "userImage",
        "refImage",
    }
    assert (found["status"], found["warnings"]) == ("Approved", [])
    assert 60 < found["score"] <= 100
    assert round(found["score"], 2) == found["score"]
    for block in (found["userImage"], found["refImage"]):
        assert set(block) == {"bestAngle", "entities"}
        assert block["bestAngle"] == 0
        entity = block["entities"][0]
        assert set(entity) == {"age", "confidence", "gender", "bbox"}
        assert 0 < entity["confidence"] <= 1
        left, top, right, bottom = entity["bbox"]
        assert all(isinstance(each, int) for each in entity["bbox"])
        assert left < right
        assert top < bottom


@conforms("POST /v2/face-match", "pictures by links, good for an hour", "chosen")
def test_links_lead_to_the_pictures_as_they_came(flow: Flow, people: dict[str, bytes]) -> None:
    user = variations(people["ada"], 1, seed=1)[0]
    request = flow.match(user, people["ada"])
    found, init = response(request), request["info"]["init"]
    assert flow.picture(found["sourceImage"]) == people["ada"]
    assert flow.picture(found["targetImage"]) == user
    assert flow.picture(init["refImage"]) == people["ada"]
    assert flow.picture(init["userImage"]) == user
    assert httpx.get(found["sourceImage"][:-3] + "AAA").status_code == 404


@conforms("POST /v2/face-match", "defaults: 30, false, null", "chosen")
def test_a_match_of_pictures_alone_has_the_defaults(flow: Flow, people: dict[str, bytes]) -> None:
    request = flow.match(people["cas"], people["cas"])
    init = request["info"]["init"]
    assert (init["faceMatchScoreDeclineThreshold"], init["rotateImage"]) == (30, False)
    assert request["info"]["metadata"] is None
    assert init["metadata"] is None


@conforms("POST /v2/face-match", "two people: declined, with a warning", "chosen")
def test_two_people_are_declined_with_the_documented_warning(
    flow: Flow, people: dict[str, bytes]
) -> None:
    request = flow.match(people["ada"], people["gus"])
    found = response(request)
    assert (request["status"], found["status"]) == ("declined", "Declined")
    assert found["score"] <= 30
    [warning] = found["warnings"]
    assert warning.pop("longDescription")
    assert warning == {
        "feature": "FACEMATCH",
        "risk": "LOW_FACE_MATCH_SIMILARITY",
        "additionalData": None,
        "logType": "error",
        "shortDescription": "Low face match similarity",
    }


@conforms("POST /v2/face-match", "above the threshold approves, at it declines", "chosen")
def test_a_score_at_the_threshold_is_declined(flow: Flow, people: dict[str, bytes]) -> None:
    user = variations(people["dan"], 1, seed=5)[0]
    score = response(flow.match(user, people["dan"]))["score"]
    at = flow.match(user, people["dan"], faceMatchScoreDeclineThreshold=score)
    assert (at["status"], risks(at)) == ("declined", ["LOW_FACE_MATCH_SIMILARITY"])
    assert at["info"]["init"]["faceMatchScoreDeclineThreshold"] == score
    below = flow.match(user, people["dan"], faceMatchScoreDeclineThreshold=round(score - 0.01, 2))
    assert (below["status"], risks(below)) == ("approved", [])
    top = flow.match(people["dan"], people["dan"], faceMatchScoreDeclineThreshold=100)
    assert (top["status"], response(top)["score"]) == ("declined", 100)
    assert flow.match(people["ada"], people["dan"], faceMatchScoreDeclineThreshold=0)


@conforms("POST /v2/face-match", "no face: declined, NO_REFERENCE_IMAGE", "chosen")
@pytest.mark.parametrize("missing", ["userImage", "refImage", "both"])
def test_a_picture_without_a_face_is_declined(
    flow: Flow, people: dict[str, bytes], missing: str
) -> None:
    user = people["ada"] if missing == "refImage" else no_face()
    reference = people["ada"] if missing == "userImage" else no_face()
    request = flow.match(user, reference)
    found = response(request)
    assert (request["status"], found["status"], found["score"]) == ("declined", "Declined", 0)
    assert risks(request) == ["NO_REFERENCE_IMAGE"]
    assert found["userImage"]["entities"] == [] or missing == "refImage"
    assert found["refImage"]["entities"] == [] or missing == "userImage"
    assert len(found["userImage"]["entities"]) + len(found["refImage"]["entities"]) == (
        0 if missing == "both" else 1
    )
    assert flow.picture(found["targetImage"]) == user
    assert unlinked(flow.get(request["id"])) == unlinked(request)


@conforms("POST /v2/face-match", "several faces: the largest is compared", "chosen")
def test_of_several_faces_the_largest_is_compared(flow: Flow, people: dict[str, bytes]) -> None:
    both = side_by_side(people["ada"], people["bea"])
    request = flow.match(both, people["ada"])
    assert request["status"] == "approved"
    first, second = response(request)["userImage"]["entities"]
    assert width(first) > width(second)
    assert risks(request) == []


@conforms("POST /v2/face-match", "rotateImage tries every right angle", "chosen")
def test_a_picture_on_its_side_is_turned_when_asked(flow: Flow, people: dict[str, bytes]) -> None:
    pixels = cv2.imdecode(np.frombuffer(people["ada"], np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    turned = cv2.imencode(".jpg", cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE))[1].tobytes()
    request = flow.match(turned, people["ada"], rotateImage=True)
    assert request["status"] == "approved"
    assert response(request)["userImage"]["bestAngle"] == 270
    assert response(request)["refImage"]["bestAngle"] == 0


@conforms("POST /v2/face-match", "base64 with a data URL's prefix", "chosen")
def test_pictures_may_be_data_urls(flow: Flow, people: dict[str, bytes]) -> None:
    text = "data:image/jpeg;base64," + as_base64(people["ada"])
    request = flow.made(MATCH, userImage=text, refImage=as_base64(people["ada"]))
    assert response(request)["score"] == 100


@conforms("POST /v2/face-match", "JPEG, PNG, WebP, TIFF", "chosen")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_pictures_are_of_four_types(flow: Flow, people: dict[str, bytes], suffix: str) -> None:
    pixels = cv2.imdecode(np.frombuffer(people["ada"], np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    picture = cv2.imencode(suffix, pixels)[1].tobytes()
    request = flow.match(picture, people["ada"])
    assert request["status"] == "approved"
    reply = httpx.get(response(request)["targetImage"])
    kind = "jpeg" if suffix == ".jpg" else suffix[1:]
    assert reply.headers["content-type"] == f"image/{kind}"
    assert reply.content == picture


def test_the_echo_of_pictures_is_literal(make_place: MakePlace, people: dict[str, bytes]) -> None:
    place = make_place(ONETON_VERIFLOW_ECHO_IMAGES="true")
    with run_server(place) as server:
        flow = Flow(server.url, new_tenant(place))
        user = "data:image/jpeg;base64," + as_base64(people["ada"])
        reference = as_base64(people["ada"])
        request = flow.made(MATCH, userImage=user, refImage=reference)
        for each in (request, flow.get(request["id"])):
            init = each["info"]["init"]
            assert (init["userImage"], init["refImage"]) == (user, reference)
            assert flow.picture(response(each)["sourceImage"]) == base64.b64decode(reference)
        listed = flow.http.get(REQUESTS).json()["payload"]["requests"][0]
        assert "/media/" in listed["info"]["init"]["userImage"]
        flow.http.close()
