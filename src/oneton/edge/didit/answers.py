"""What the calls on faces answer, and how it is made of what the verbs return."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from oneton.domain.model import Analysis, DetectedFace, FaceId, Score
from oneton.domain.requests import RequestState
from oneton.edge.risks import RISKS

STATUSES = {
    RequestState.APPROVED: "Approved",
    RequestState.DECLINED: "Declined",
    RequestState.IN_REVIEW: "In Review",
    RequestState.IN_PROCESS: "In Progress",
    RequestState.ERROR: "Error",
}
LIVENESS = "LIVENESS"
FACEMATCH = "FACEMATCH"


class Box(msgspec.Struct, frozen=True):
    """A face that was found.

    Attributes:
        bbox: left, top, right, bottom in pixels.
        confidence: of the detector, 0 to 1.
    """

    bbox: tuple[int, int, int, int]
    confidence: float


class Entity(msgspec.Struct, frozen=True):
    """The same with estimates; `race` is never estimated."""

    bbox: tuple[int, int, int, int]
    confidence: float
    age: float | None
    gender: str | None
    race: None = None


class SearchedPicture(msgspec.Struct, frozen=True):
    """The faces of a picture, as face search tells them."""

    entities: tuple[Box, ...] = ()
    best_angle: int = 0


class AnalysedPicture(msgspec.Struct, frozen=True):
    """The faces of a picture, the one that counts first."""

    entities: tuple[Entity, ...] = ()
    best_angle: int = 0


class BlocklistedSession(msgspec.Struct, frozen=True):
    """Where a block-listed face came from; nulls when it was no saved call."""

    blocklisted_session_id: UUID | None
    blocklisted_session_number: int | None
    api_service: str | None


class DuplicatedSession(msgspec.Struct, frozen=True):
    """Likewise, of a duplicate."""

    duplicated_session_id: UUID | None
    duplicated_session_number: int | None
    api_service: str | None


AboutSession = BlocklistedSession | DuplicatedSession


AdditionalData = dict[str, str | int | None]


class FaceWarning(msgspec.Struct, frozen=True):
    """Something that a person may want to look at; clients key on `risk`."""

    risk: str
    feature: str
    additional_data: AdditionalData | None
    log_type: str
    short_description: str
    long_description: str


class UserDetails(msgspec.Struct, frozen=True):
    """Of the matched session's documents, which we never have."""

    full_name: None = None
    document_type: None = None
    document_number: None = None


class Match(msgspec.Struct, frozen=True):
    """A face record that resembles the probe."""

    session_id: UUID | None
    session_number: int | None
    similarity_percentage: float
    source: str
    vendor_data: str | None
    verification_date: str
    match_image_url: str | None
    status: str | None
    is_blocklisted: bool
    is_allowlisted: bool
    api_service: str | None
    vendor_user_id: UUID | None
    biometric_template_id: FaceId | None
    user_details: UserDetails = UserDetails()


class FaceMatch(msgspec.Struct, frozen=True):
    """What a comparison came to."""

    status: str
    score: float | None
    user_image: AnalysedPicture
    ref_image: AnalysedPicture
    warnings: tuple[FaceWarning, ...]


class FaceMatchReply(msgspec.Struct, frozen=True):
    """The answer of face match."""

    request_id: UUID
    face_match: FaceMatch
    vendor_data: str | None
    metadata: msgspec.Raw | None
    created_at: str


class FaceSearch(msgspec.Struct, frozen=True):
    """What a search came to; at most five matches are listed."""

    status: str
    total_matches: int
    matches: tuple[Match, ...]
    user_image: SearchedPicture
    warnings: tuple[FaceWarning, ...]


class FaceSearchReply(msgspec.Struct, frozen=True):
    """The answer of face search."""

    request_id: UUID
    face_search: FaceSearch
    vendor_data: str | None
    metadata: msgspec.Raw | None
    created_at: str


class Liveness(msgspec.Struct, frozen=True):
    """What passive liveness came to.

    Attributes:
        score: 0 to 100; null when it was not assessed.
        face_quality: null, for we have no such measure.
        face_luminance: mean luma of the face, 0 to 100.
    """

    status: str
    score: float | None
    user_image: AnalysedPicture
    warnings: tuple[FaceWarning, ...]
    face_luminance: float | None
    face_quality: float | None = None
    method: str = "PASSIVE"


class LivenessReply(msgspec.Struct, frozen=True):
    """The answer of passive liveness."""

    request_id: UUID
    liveness: Liveness
    vendor_data: str | None
    metadata: msgspec.Raw | None
    created_at: str


def make_warning(risk: str, feature: str, about: AboutSession | None = None) -> FaceWarning:
    """A warning with its texts."""
    text = RISKS[risk]
    data: AdditionalData | None = None if about is None else msgspec.to_builtins(about)
    return FaceWarning(risk, feature, data, text.log_type, text.short, text.long)


def analysed_picture(analysis: Analysis | None) -> AnalysedPicture:
    """None is a picture without a face."""
    if analysis is None:
        return AnalysedPicture()
    return AnalysedPicture(tuple(map(_entity, analysis.faces)), analysis.rotation)


def searched_picture(analysis: Analysis) -> SearchedPicture:
    """The same, without estimates."""
    return SearchedPicture(tuple(map(_box, analysis.faces)), analysis.rotation)


def declined_by(warnings: Iterable[FaceWarning]) -> RequestState:
    """Declined when any of the warnings is an error."""
    is_bad = any(each.log_type == "error" for each in warnings)
    return RequestState.DECLINED if is_bad else RequestState.APPROVED


def shown_score(score: Score) -> Score:
    """With two decimals; what is compared with a threshold, so that nobody sees a riddle."""
    return Score(round(score, 2))


def microseconds(at: datetime) -> str:
    """ISO 8601 in UTC with microseconds and `+00:00`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def seconds(at: datetime) -> str:
    """ISO 8601 in UTC to the second, with `Z`."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _box(face: DetectedFace) -> Box:
    left, top, right, bottom = (round(each) for each in face.box)
    return Box((left, top, right, bottom), round(face.confidence, 6))


def _entity(face: DetectedFace) -> Entity:
    box, guess = _box(face), face.attributes
    age = None if guess is None else round(guess.age, 2)
    return Entity(box.bbox, box.confidence, age, None if guess is None else guess.gender)
