"""Judge a screening: what the found faces warn of, and whether the person is declined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

import msgspec

from oneton.domain.model import FaceSource, GalleryId, GalleryKind, Score
from oneton.domain.requests import RequestState
from oneton.domain.screening import FaceDetails, ScreenedFace, Screening

SCREENED = 100
"""Candidates of each gallery that a screening should ask for, so that `total` means something.

Ask with `Terms(limit=SCREENED, each=True)`: a block-listed face counts however many other
records of the same person are nearer.
"""
LISTED = 5
"""Candidates that a dialect shows."""


class Risk(StrEnum):
    """What a warning is about; clients key on it."""

    FACE_IN_BLOCKLIST = "FACE_IN_BLOCKLIST"
    POSSIBLE_FACE_IN_BLOCKLIST = "POSSIBLE_FACE_IN_BLOCKLIST"
    DUPLICATED_FACE = "DUPLICATED_FACE"
    POSSIBLE_DUPLICATED_FACE = "POSSIBLE_DUPLICATED_FACE"
    MULTIPLE_FACES_DETECTED = "MULTIPLE_FACES_DETECTED"


class ScreeningWarning(msgspec.Struct, frozen=True):
    """One warning.

    Attributes:
        face: the best match that it is about; None when it is about none.
    """

    risk: Risk
    face: FaceDetails | None = None


class ScreeningVerdict(msgspec.Struct, frozen=True):
    """What a screening comes to.

    Attributes:
        declined: the face is, or may be, block-listed.
        warnings: at most one of each risk: block list, duplicate, several faces.
        candidates: those that reach the floor, best first.
    """

    declined: bool
    warnings: tuple[ScreeningWarning, ...]
    candidates: tuple[ScreenedFace, ...]


def judge_screening(screening: Screening, *, floor: Score, sure: Score) -> ScreeningVerdict:
    """Judge the candidates that reach `floor`; from `sure` on they are sure, below possible.

    A block-list match hides the duplicate warning of its own band only. A sure match in an allow
    list hides duplicate warnings of both bands, never a block-list one.
    """
    candidates = tuple(each for each in screening.candidates if each.score >= floor)
    blocked = _first(candidates, is_blocklisted)
    duplicate = _first(candidates, may_be_duplicate)
    warnings = []
    if blocked is not None:
        is_sure = blocked.score >= sure
        risk = Risk.FACE_IN_BLOCKLIST if is_sure else Risk.POSSIBLE_FACE_IN_BLOCKLIST
        warnings.append(ScreeningWarning(risk, blocked.face))
    if duplicate is not None:
        is_sure = duplicate.score >= sure
        is_allowed = any(each.score >= sure and is_allowlisted(each.face) for each in candidates)
        is_blocked = blocked is not None and (blocked.score >= sure) == is_sure
        if not is_allowed and not is_blocked:
            risk = Risk.DUPLICATED_FACE if is_sure else Risk.POSSIBLE_DUPLICATED_FACE
            warnings.append(ScreeningWarning(risk, duplicate.face))
    if len(screening.analysis.faces) > 1:
        warnings.append(ScreeningWarning(Risk.MULTIPLE_FACES_DETECTED))
    return ScreeningVerdict(blocked is not None, tuple(warnings), candidates)


def is_blocklisted(face: FaceDetails) -> bool:
    """Whether it is in a block list."""
    return face.kind is GalleryKind.BLOCKLIST


def is_allowlisted(face: FaceDetails) -> bool:
    """Whether it is in an allow list."""
    return face.kind is GalleryKind.ALLOWLIST


def may_be_duplicate(face: FaceDetails) -> bool:
    """Whether it is a person's who was let in: an approved session's, or an imported one.

    A plain enrolment counts as imported, for the caller put it there.
    """
    if face.kind is not GalleryKind.ENROLLMENT:
        return False
    if face.source is FaceSource.SESSION:
        return face.request_state is RequestState.APPROVED
    return face.source is None or face.source is FaceSource.IMPORTED


def is_blocklisted_or_approved(face: FaceDetails) -> bool:
    """The candidates of a search for `blocklisted_or_approved`; a `Terms.wanted`."""
    return is_blocklisted(face) or is_allowlisted(face) or may_be_duplicate(face)


def blocklisted_first(candidates: Iterable[ScreenedFace]) -> list[ScreenedFace]:
    """The same candidates with the block-listed ones before the others, each best first."""
    return sorted(candidates, key=lambda each: not is_blocklisted(each.face))


def screened_galleries(
    kinds: Iterable[tuple[GalleryId, GalleryKind]], enrolled: GalleryId
) -> list[GalleryId]:
    """Which of a tenant's galleries a face is screened against: one, and all the lists."""
    lists = (each for each, kind in kinds if kind is not GalleryKind.ENROLLMENT)
    return list(dict.fromkeys((enrolled, *lists)))


def _first(
    candidates: Sequence[ScreenedFace], is_it: Callable[[FaceDetails], bool]
) -> ScreenedFace | None:
    return next((each for each in candidates if is_it(each.face)), None)
