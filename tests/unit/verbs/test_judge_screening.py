"""What the found faces warn of: every rule of emission and suppression."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pytest

from oneton.domain.model import (
    DEFAULT_GALLERY,
    Analysis,
    DetectedFace,
    FaceId,
    FaceNote,
    FaceSource,
    GalleryId,
    GalleryKind,
    Quality,
    Score,
)
from oneton.domain.requests import RequestId, RequestState
from oneton.domain.screening import FaceDetails, ScreenedFace, Screening
from oneton.verbs.judge_screening import (
    Risk,
    ScreeningVerdict,
    blocklisted_first,
    is_blocklisted_or_approved,
    judge_screening,
    may_be_duplicate,
    screened_galleries,
)

FLOOR, SURE = Score(70.0), Score(90.0)
BLOCKED, ALLOWED = GalleryKind.BLOCKLIST, GalleryKind.ALLOWLIST


def face(
    kind: GalleryKind = GalleryKind.ENROLLMENT,
    source: FaceSource | None = FaceSource.SESSION,
    state: RequestState | None = RequestState.APPROVED,
) -> FaceDetails:
    request_id = None if state is None else RequestId(uuid4())
    return FaceDetails(
        face_id=FaceId(uuid4()),
        gallery_id=GalleryId("any"),
        kind=kind,
        image_key=None,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        note=FaceNote(source=source, request_id=request_id),
        request_id=request_id,
        request_state=state,
    )


def listed(kind: GalleryKind) -> FaceDetails:
    return face(kind, FaceSource.LIST_ENTRY, None)


def judged(*found: tuple[float, FaceDetails], faces: int = 1) -> ScreeningVerdict:
    quality = Quality(size_px=100, sharpness=100, exposure=1)
    detected = DetectedFace((0, 0, 9, 9), np.zeros((5, 2), np.float32), 0.9, quality)
    analysis = Analysis("image/jpeg", 99, 99, 0, (detected,) * faces, np.zeros(2, np.float32))
    best_first = sorted(found, key=lambda each: -each[0])
    candidates = tuple(
        ScreenedFace(rank, Score(score), is_match=True, face=details)
        for rank, (score, details) in enumerate(best_first, start=1)
    )
    screening = Screening(candidates, len(candidates), (), analysis, {})
    return judge_screening(screening, floor=FLOOR, sure=SURE)


def risks(verdict: ScreeningVerdict) -> list[str]:
    return [str(each.risk) for each in verdict.warnings]


def test_nobody_found_is_approved_without_warnings() -> None:
    assert judged() == ScreeningVerdict(declined=False, warnings=(), candidates=())


@pytest.mark.parametrize(
    ("score", "block_list", "duplicate"),
    [
        (69.99, [], []),
        (70.0, ["POSSIBLE_FACE_IN_BLOCKLIST"], ["POSSIBLE_DUPLICATED_FACE"]),
        (89.99, ["POSSIBLE_FACE_IN_BLOCKLIST"], ["POSSIBLE_DUPLICATED_FACE"]),
        (90.0, ["FACE_IN_BLOCKLIST"], ["DUPLICATED_FACE"]),
        (100.0, ["FACE_IN_BLOCKLIST"], ["DUPLICATED_FACE"]),
    ],
)
def test_the_floor_and_the_sure_score_belong_to_the_band_above(
    score: float, block_list: list[str], duplicate: list[str]
) -> None:
    blocked = judged((score, listed(BLOCKED)))
    assert (blocked.declined, risks(blocked)) == (bool(block_list), block_list)
    doubled = judged((score, face()))
    assert (doubled.declined, risks(doubled)) == (False, duplicate)


def test_candidates_below_the_floor_are_left_out() -> None:
    near, far = face(), face()
    assert [each.face for each in judged((75, near), (60, far)).candidates] == [near]


@pytest.mark.parametrize(
    ("block_list", "duplicate", "expected"),
    [
        (95, 95, ["FACE_IN_BLOCKLIST"]),
        (95, 75, ["FACE_IN_BLOCKLIST", "POSSIBLE_DUPLICATED_FACE"]),
        (75, 95, ["POSSIBLE_FACE_IN_BLOCKLIST", "DUPLICATED_FACE"]),
        (75, 75, ["POSSIBLE_FACE_IN_BLOCKLIST"]),
    ],
)
def test_a_block_list_match_hides_the_duplicate_of_its_own_band(
    block_list: float, duplicate: float, expected: list[str]
) -> None:
    verdict = judged((block_list, listed(BLOCKED)), (duplicate, face()))
    assert risks(verdict) == expected
    assert verdict.declined


@pytest.mark.parametrize("duplicate", [75, 95])
def test_a_sure_allow_list_match_hides_duplicates_of_both_bands(duplicate: float) -> None:
    assert risks(judged((90, listed(ALLOWED)), (duplicate, face()))) == []


def test_a_possible_allow_list_match_hides_nothing() -> None:
    assert risks(judged((89.9, listed(ALLOWED)), (95, face()))) == ["DUPLICATED_FACE"]


@pytest.mark.parametrize("score", [75, 95])
def test_an_allow_list_match_never_hides_a_block_list_one(score: float) -> None:
    verdict = judged((100, listed(ALLOWED)), (score, listed(BLOCKED)), (99, face()))
    assert verdict.declined
    assert len(verdict.warnings) == 1
    assert "BLOCKLIST" in verdict.warnings[0].risk


def test_an_allow_list_match_by_itself_warns_of_nothing() -> None:
    assert risks(judged((99, listed(ALLOWED)))) == []


def test_a_warning_names_the_best_match_that_it_is_about() -> None:
    best, second = listed(BLOCKED), listed(BLOCKED)
    verdict = judged((99, face()), (96, second), (98, best), (80, face()))
    assert [each.face for each in verdict.warnings] == [best]


def test_a_duplicate_names_the_first_that_was_let_in() -> None:
    declined, approved = face(state=RequestState.DECLINED), face()
    verdict = judged((99, declined), (80, approved))
    assert risks(verdict) == ["POSSIBLE_DUPLICATED_FACE"]
    assert verdict.warnings[0].face == approved
    assert len(verdict.candidates) == 2


@pytest.mark.parametrize(
    ("known", "counts"),
    [
        (face(state=RequestState.APPROVED), True),
        (face(state=RequestState.DECLINED), False),
        (face(state=RequestState.IN_PROCESS), False),
        (face(state=RequestState.IN_REVIEW), False),
        (face(state=None), False),
        (face(source=FaceSource.IMPORTED, state=None), True),
        (face(source=None, state=None), True),
        (face(source=FaceSource.RETAINED_TEMPLATE, state=None), False),
        (listed(ALLOWED), False),
        (listed(BLOCKED), False),
    ],
)
def test_who_was_let_in_may_be_a_duplicate(known: FaceDetails, counts: bool) -> None:
    assert may_be_duplicate(known) is counts
    assert ("DUPLICATED_FACE" in risks(judged((95, known)))) is counts


def test_a_session_face_in_a_block_list_is_blocked_whatever_became_of_the_session() -> None:
    assert risks(judged((95, face(BLOCKED)))) == ["FACE_IN_BLOCKLIST"]


def test_several_faces_warn_without_declining_and_come_last() -> None:
    assert risks(judged(faces=2)) == ["MULTIPLE_FACES_DETECTED"]
    verdict = judged((95, listed(BLOCKED)), (75, face()), faces=3)
    assert risks(verdict) == [
        "FACE_IN_BLOCKLIST",
        "POSSIBLE_DUPLICATED_FACE",
        "MULTIPLE_FACES_DETECTED",
    ]
    assert verdict.warnings[-1].face is None
    assert not judged(faces=2).declined


def test_no_verdict_has_a_risk_twice(rng: np.random.Generator) -> None:
    kinds = [face(), listed(BLOCKED), listed(ALLOWED), face(source=None, state=None)]
    for _ in range(200):
        picked = rng.integers(0, len(kinds), 6)
        verdict = judged(*((float(rng.uniform(60, 100)), kinds[at]) for at in picked), faces=2)
        assert len(set(risks(verdict))) == len(verdict.warnings)
        assert verdict.declined == any("BLOCKLIST" in each for each in risks(verdict))
        assert set(risks(verdict)) <= set(Risk)


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        (face(), True),
        (face(source=FaceSource.IMPORTED, state=None), True),
        (listed(BLOCKED), True),
        (listed(ALLOWED), True),
        (face(state=RequestState.DECLINED), False),
        (face(source=FaceSource.RETAINED_TEMPLATE, state=None), False),
    ],
)
def test_a_search_of_the_block_listed_or_approved_wants(known: FaceDetails, wanted: bool) -> None:
    assert is_blocklisted_or_approved(known) is wanted


def test_block_listed_candidates_come_first_and_keep_their_order() -> None:
    a, b, c, d = face(), listed(BLOCKED), listed(ALLOWED), listed(BLOCKED)
    verdict = judged((99, a), (95, b), (92, c), (80, d))
    assert [each.face for each in blocklisted_first(verdict.candidates)] == [b, d, a, c]


def test_a_face_is_screened_against_one_gallery_and_every_list() -> None:
    kinds = [
        (GalleryId("bad"), BLOCKED),
        (DEFAULT_GALLERY, GalleryKind.ENROLLMENT),
        (GalleryId("other"), GalleryKind.ENROLLMENT),
        (GalleryId("staff"), ALLOWED),
    ]
    assert screened_galleries(kinds, DEFAULT_GALLERY) == [DEFAULT_GALLERY, "bad", "staff"]
