"""Pairs to groups."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneton.biometrics.calibration import FOLDER, Calibration
from oneton.domain.model import DEFAULT_GALLERY, Face, FaceId, FaceNo, Score, TenantId
from oneton.verbs.duplicates import Pairs
from oneton.verbs.group_duplicates import Group, expected_false_pairs, group_duplicates, split_group

FACES = 12


def a_face(face_no: int) -> Face:
    return Face(
        face_id=FaceId(UUID(int=face_no)),
        face_no=FaceNo(face_no),
        tenant_id=TenantId(UUID(int=1)),
        gallery_id=DEFAULT_GALLERY,
        has_image=True,
        content_type="image/jpeg",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def some_pairs(found: dict[tuple[int, int], float]) -> Pairs:
    return Pairs(
        np.array([earlier for earlier, _ in found], dtype=np.int64),
        np.array([later for _, later in found], dtype=np.int64),
        np.array(list(found.values()), dtype=np.float32),
    )


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return msgspec.json.decode((FOLDER / "buffalo_sc.json").read_bytes(), type=Calibration)


def reached(pairs: set[tuple[int, int]], start: int) -> set[int]:
    """Everybody whom pairs lead to, by walking."""
    found, waiting = {start}, [start]
    while waiting:
        at = waiting.pop()
        beside = {a if b == at else b for a, b in pairs if at in (a, b)} - found
        found |= beside
        waiting += beside
    return found


EDGES = st.dictionaries(
    st.tuples(st.integers(0, FACES - 2), st.integers(1, FACES - 1)).filter(lambda p: p[0] < p[1]),
    st.floats(0.375, 1.0, width=32),
)


@given(found=EDGES, gone=st.sets(st.integers(0, FACES - 1), max_size=3))
def test_groups_are_what_pairs_lead_to(
    calibration: Calibration, found: dict[tuple[int, int], float], gone: set[int]
) -> None:
    faces = {FaceNo(each): a_face(each) for each in range(FACES) if each not in gone}
    groups = group_duplicates(some_pairs(found), faces, calibration)
    left = {pair for pair in found if not gone & set(pair)}
    shown = [(pair.earlier.face_no, pair.later.face_no) for group in groups for pair in group.pairs]
    assert sorted(shown) == sorted(left)
    for group in groups:
        face_nos = [face.face_no for face in group.faces]
        assert face_nos == sorted(reached(left, face_nos[0]))
        scores = [pair.score for pair in group.pairs]
        assert scores == sorted(scores, reverse=True)
        assert group.possible == len(face_nos) * (len(face_nos) - 1) / 2
    bests = [group.best for group in groups]
    assert bests == sorted(bests, reverse=True)


@given(found=EDGES, most=st.integers(2, 5))
def test_parts_are_small_whole_groups_are_not_cut_and_nobody_is_lost(
    calibration: Calibration, found: dict[tuple[int, int], float], most: int
) -> None:
    faces = {FaceNo(each): a_face(each) for each in range(FACES)}
    for group in group_duplicates(some_pairs(found), faces, calibration):
        parts = split_group(group, most)
        if len(group.faces) <= most:
            assert parts == [group]
        assert {face.face_no for part in parts for face in part.faces} == {
            face.face_no for face in group.faces
        }
        pairs = [pair for part in parts for pair in part.pairs]
        assert len({(pair.earlier.face_no, pair.later.face_no) for pair in pairs}) == len(pairs)
        assert pairs[0] == group.pairs[0]
        assert [part.best for part in parts] == sorted((p.best for p in parts), reverse=True)
        for part in parts:
            assert 2 <= len(part.faces) <= most
            assert part == group_duplicates(some_pairs(found_in(part)), faces, calibration)[0]


def test_a_part_has_no_pair_below_the_score_that_it_was_cut_at(calibration: Calibration) -> None:
    """Two pairs meet at 0.7 and are cut there; who hangs on at less comes apart from them."""
    found = {
        (0, 1): 0.9,
        (2, 3): 0.8,
        (1, 2): 0.7,
        (0, 4): 0.6,
        (4, 5): 0.5,
        (6, 7): 0.45,
        (5, 6): 0.4,
    }
    faces = {FaceNo(each): a_face(each) for each in range(8)}
    (group,) = group_duplicates(some_pairs(found), faces, calibration)
    parts = [[face.face_no for face in part.faces] for part in split_group(group, 3)]
    assert parts == [[0, 1], [2, 3], [0, 4], [4, 5], [6, 7]]


def found_in(group: Group) -> dict[tuple[int, int], float]:
    return {(pair.earlier.face_no, pair.later.face_no): float(pair.cosine) for pair in group.pairs}


def test_a_long_chain_is_one_group(calibration: Calibration) -> None:
    count = 5000
    found = {(each, each + 1): 0.5 + each / count / 4 for each in range(count - 1)}
    faces = {FaceNo(each): a_face(each) for each in range(count)}
    (group,) = group_duplicates(some_pairs(found), faces, calibration)
    assert (len(group.faces), len(group.pairs)) == (count, count - 1)


def test_a_pair_that_was_found_twice_counts_once_with_its_best_cosine() -> None:
    twice = Pairs(
        np.array([1, 1, 2, 1], dtype=np.int64),
        np.array([3, 2, 3, 3], dtype=np.int64),
        np.array([0.5, 0.7, 0.6, 0.75], dtype=np.float32),
    ).once()
    assert twice.earlier.tolist() == [1, 1, 2]
    assert twice.later.tolist() == [2, 3, 3]
    assert twice.cosines.tolist() == pytest.approx([0.7, 0.75, 0.6])
    assert len(some_pairs({}).once()) == 0


@pytest.mark.parametrize(
    ("faces", "score", "expected"),
    [(0, 50, 0), (1, 50, 0), (2, 10, 0.1), (10_001, 50, 500.05), (1_000_001, 95, 500_000.5)],
)
def test_expected_false_pairs_are_the_rate_times_all_pairs(
    faces: int, score: float, expected: float
) -> None:
    assert expected_false_pairs(faces, Score(score)) == pytest.approx(expected)
