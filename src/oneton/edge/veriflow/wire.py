"""What the VeriFlow dialect answers."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from oneton.edge.veriflow.bodies import ContactDetails, ExpectedDetails, Number, SearchType


class Entity(msgspec.Struct, rename="camel", frozen=True):
    """A detected face; age and gender are null without an attribute model."""

    age: float | None
    confidence: float
    gender: str | None
    bbox: tuple[int, int, int, int]


class Detection(msgspec.Struct, rename="camel", frozen=True):
    """What was found in a picture, and how it had to be turned for that."""

    best_angle: int = 0
    entities: tuple[Entity, ...] = ()


class AboutSession(msgspec.Struct, rename="camel", frozen=True):
    """Whose face a warning is about; nulls when it came by no saved call."""

    api_service: str | None
    blocklisted_session_id: str | UnsetType | None = UNSET
    blocklisted_session_number: int | UnsetType | None = UNSET
    duplicated_session_id: str | UnsetType | None = UNSET
    duplicated_session_number: int | UnsetType | None = UNSET


class Warned(msgspec.Struct, rename="camel", frozen=True):
    """A warning; clients key on `risk`."""

    feature: str
    risk: str
    additional_data: AboutSession | None
    log_type: str
    short_description: str
    long_description: str


class Reviewed(msgspec.Struct, rename="camel", frozen=True):
    """What a reviewer did."""

    user: str
    new_status: str
    created_at: str
    comment: str


class FaceMatchInit(msgspec.Struct, rename="camel", frozen=True):
    """The call as it came, with links in place of pictures."""

    user_image: str | None
    ref_image: str | None
    face_match_score_decline_threshold: Number
    rotate_image: bool
    metadata: Any = None


class FaceMatchResponse(msgspec.Struct, rename="camel", frozen=True):
    """What came of a comparison; source is the reference."""

    status: str
    score: float
    warnings: tuple[Warned, ...]
    user_image: Detection
    ref_image: Detection
    source_image: str | None = None
    target_image: str | None = None
    reviews: tuple[Reviewed, ...] | UnsetType = UNSET


class FaceSearchInit(msgspec.Struct, rename="camel", frozen=True):
    """The call as it came, with a link in place of the picture."""

    user_image: str | None
    search_type: SearchType
    rotate_image: bool
    metadata: Any = None


class UserDetails(msgspec.Struct, rename="camel", frozen=True):
    """Of a document; there are none here."""

    full_name: str | None = None
    document_type: str | None = None
    document_number: str | None = None


class Match(msgspec.Struct, rename="camel", frozen=True):
    """A face that was found. As it is stored, the link is an object's key."""

    request_id: str | None
    session_id: str | None
    session_number: int | None
    similarity_percentage: float
    source: str
    vendor_data: str | None
    verification_date: str
    match_image_url: str | None
    status: str | None
    is_blocklisted: bool
    is_allowlisted: bool
    user_details: UserDetails = UserDetails()


class FaceSearchResponse(msgspec.Struct, rename="camel", frozen=True):
    """What came of a search."""

    status: str
    total_matches: int
    matches: tuple[Match, ...]
    user_image: Detection
    warnings: tuple[Warned, ...]
    reviews: tuple[Reviewed, ...] | UnsetType = UNSET


class PassiveLivenessInit(msgspec.Struct, rename="camel", frozen=True):
    """The call as it came, with a link in place of the picture."""

    user_image: str | None
    face_liveness_score_decline_threshold: Number
    rotate_image: bool
    metadata: Any = None


class PassiveLivenessResponse(msgspec.Struct, rename="camel", frozen=True):
    """What came of a liveness check; the score is null without a liveness model."""

    status: str
    score: float | None
    user_image: Detection
    warnings: tuple[Warned, ...]
    face_quality: float | None
    face_luminance: float | None
    method: str = "PASSIVE"
    reviews: tuple[Reviewed, ...] | UnsetType = UNSET


class SessionKept(msgspec.Struct, rename="camel", frozen=True):
    """What is stored of a session request."""

    workflow_id: str | None
    callback: str | None
    expected_details: ExpectedDetails
    contact_details: ContactDetails


class SessionInit(msgspec.Struct, rename="camel", frozen=True):
    """A session request as it was made."""

    url: str
    status: str
    workflow_id: str | None
    callback: str | None


class SessionResponse(msgspec.Struct, rename="camel", frozen=True):
    """A session request as it stands; nobody captures a face for it yet."""

    session_url: str
    status: str
    workflow_id: str | None
    created_at: str
    expected_details: ExpectedDetails
    contact_details: ContactDetails
    reviews: tuple[Reviewed, ...]
    features: tuple[str, ...] = ()
    face_match: FaceMatchResponse | None = None
    liveness: PassiveLivenessResponse | None = None


Init = TypeVar("Init")
Response = TypeVar("Response")


class Info(msgspec.Struct, Generic[Init, Response], rename="camel", frozen=True):
    """The call and what came of it."""

    metadata: Any
    init: Init
    response: Response


class ShownRequest(msgspec.Struct, Generic[Init, Response], rename="camel", frozen=True):
    """A request; `session` and `workflow` are of session requests only."""

    id: str
    organization_id: str
    type: str
    status: str
    created_at: str
    updated_at: str
    cost: int
    info: Info[Init, Response]
    session: str | UnsetType = UNSET
    workflow: str | UnsetType | None = UNSET


class RequestPayload(msgspec.Struct, Generic[Init, Response], rename="camel", frozen=True):
    """One request."""

    request: ShownRequest[Init, Response]


class RequestReply(msgspec.Struct, Generic[Init, Response], rename="camel", frozen=True):
    """The envelope of one request."""

    payload: RequestPayload[Init, Response]
    success: bool = True


FaceMatchReply = RequestReply[FaceMatchInit, FaceMatchResponse]
FaceSearchReply = RequestReply[FaceSearchInit, FaceSearchResponse]
PassiveLivenessReply = RequestReply[PassiveLivenessInit, PassiveLivenessResponse]
SessionReply = RequestReply[SessionInit, SessionResponse]
AnyRequest = ShownRequest[Any, Any]
AnyReply = FaceMatchReply | FaceSearchReply | PassiveLivenessReply | SessionReply


class RequestsPayload(msgspec.Struct, rename="camel", frozen=True):
    """Some requests, the newest first, and how many there are."""

    total: int
    offset: int
    limit: int
    requests: tuple[AnyRequest, ...]


class RequestsReply(msgspec.Struct, rename="camel", frozen=True):
    """The envelope of several."""

    payload: RequestsPayload
    success: bool = True


class Refusal(msgspec.Struct, rename="camel", frozen=True):
    """Every refusal: `error` is stable, `message` is for people."""

    error: str
    message: str
    success: bool = False
