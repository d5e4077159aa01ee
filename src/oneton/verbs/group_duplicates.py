"""Group duplicates: whose photos are they?"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from oneton.biometrics.calibration import SCORE_DECADES, Calibration
from oneton.domain.model import Cosine, Face, FaceNo, Score
from oneton.verbs.duplicates import Pairs


class Duplicate(msgspec.Struct, frozen=True):
    """Two faces that may be of one person."""

    earlier: Face
    later: Face
    cosine: Cosine
    score: Score


class Group(msgspec.Struct, frozen=True):
    """Faces that pairs hold together, directly or through others: one person, it seems.

    Attributes:
        faces: at least two, in order of their enrolment.
        pairs: at least one, best first.
    """

    faces: tuple[Face, ...]
    pairs: tuple[Duplicate, ...]

    @property
    def best(self) -> Score:
        """The score of the best pair."""
        return self.pairs[0].score

    @property
    def possible(self) -> int:
        """Pairs that its faces could make; where fewer were found, there may be two people."""
        return len(self.faces) * (len(self.faces) - 1) // 2


def group_duplicates(
    pairs: Pairs, faces: Mapping[FaceNo, Face], calibration: Calibration
) -> list[Group]:
    """The connected components, that of the best pair first.

    Args:
        faces: those that are still there; pairs of others are left out.
    """
    leaders: dict[FaceNo, FaceNo] = {}
    duplicates: list[Duplicate] = []
    columns = (pairs.earlier.tolist(), pairs.later.tolist(), pairs.cosines.tolist())
    for earlier, later, cosine in sorted(zip(*columns, strict=True), key=lambda pair: -pair[2]):
        if earlier in faces and later in faces:
            score = calibration.score(Cosine(cosine))
            duplicates.append(Duplicate(faces[earlier], faces[later], Cosine(cosine), score))
            leaders[_leader(leaders, later)] = _leader(leaders, earlier)
    # In order of the best pair, which comes first.
    found: dict[FaceNo, list[Duplicate]] = {}
    for each in duplicates:
        found.setdefault(_leader(leaders, each.later.face_no), []).append(each)
    return [_group(each) for each in found.values()]


def split_group(group: Group, most: int) -> list[Group]:
    """A group in parts of at most `most` faces: what is left of it when the limit is raised.

    Where chance holds strangers together in a chain, each part is cut at the score from which on it
    is small enough, so that the best pairs stay together and strangers come apart. Pairs between
    two parts are in none. Every face is in a part: one that is alone at that score is with the face
    that it is most like.

    Args:
        most: at least 2.

    Returns:
        that of the best pair first; the group itself when it is small enough.
    """
    if len(group.faces) <= most:
        return [group]
    leaders: dict[FaceNo, FaceNo] = {}
    sizes = {face.face_no: 1 for face in group.faces}
    cut: set[FaceNo] = set()
    for pair in group.pairs:
        one, other = (_leader(leaders, each.face_no) for each in (pair.earlier, pair.later))
        if one == other:
            continue
        if cut & {one, other} or sizes[one] + sizes[other] > most:
            cut |= {one, other}
        else:
            leaders[other] = one
            sizes[one] += sizes[other]
    found: dict[FaceNo, list[Duplicate]] = {}
    for pair in group.pairs:
        one, other = (_leader(leaders, each.face_no) for each in (pair.earlier, pair.later))
        if one == other:
            found.setdefault(one, []).append(pair)
            continue
        for alone in {one, other} - found.keys():
            if sizes[alone] == 1:
                found[alone] = [pair]
    return [_group(each) for each in found.values()]


def _leader(leaders: dict[FaceNo, FaceNo], face_no: FaceNo) -> FaceNo:
    """The face that stands for a face's group; halves the path to it on the way."""
    while (leader := leaders.setdefault(face_no, face_no)) != face_no:
        leaders[face_no] = face_no = leaders.setdefault(leader, leader)
    return face_no


def _group(pairs: list[Duplicate]) -> Group:
    faces = {face.face_no: face for pair in pairs for face in (pair.earlier, pair.later)}
    return Group(tuple(faces[face_no] for face_no in sorted(faces)), tuple(pairs))


def expected_false_pairs(faces: int, least: Score) -> float:
    """How many pairs of different people reach a score, were each face another person's.

    A score of 10 n is a false match rate of 10^-n; beyond 60, where none was measured, it is at
    most that of 60.
    """
    rate: float = 10.0 ** -min(least / 10, SCORE_DECADES)
    return faces * (faces - 1) / 2 * rate
