"""A saved call as a session: what is kept of it, and the one shape that it is told in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

import msgspec

from oneton.domain.model import FaceId
from oneton.domain.requests import NewEvent, RequestId, Review, SavedRequest
from oneton.edge.didit.answers import (
    STATUSES,
    AdditionalData,
    FaceWarning,
    Match,
    microseconds,
)
from oneton.edge.didit.calls import DIALECT

FACE_MATCH = "face_match"
FACE_SEARCH = "face_search"
PASSIVE_LIVENESS = "passive_liveness"
USER_IMAGE = "user_image"
REF_IMAGE = "ref_image"
STATUS_UPDATED = "status.updated"

Link = Callable[[str | None], str | None]
"""Makes an address of an object's key; None of None."""
ImageKeys = Mapping[FaceId, str | None]
"""The images of those matched faces that are still there; None where it was erased."""


class KeptMatch(msgspec.Struct, frozen=True):
    """A match without its link, which is made anew whenever it is shown."""

    face_id: FaceId
    match: Match


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of an answer is kept as a saved call's result, beside what its row has anyway.

    Attributes:
        score: null when nothing was scored.
    """

    score: float | None = None
    warnings: tuple[FaceWarning, ...] = ()
    matches: tuple[KeptMatch, ...] = ()
    age: float | None = None
    luminance: float | None = None


class NodeWarning(msgspec.Struct, frozen=True):
    """A warning with the workflow's node, which no call of ours has."""

    risk: str
    feature: str
    additional_data: AdditionalData | None
    log_type: str
    short_description: str
    long_description: str
    node_id: None = None


class FaceMatchCheck(msgspec.Struct, frozen=True):
    """A comparison; the source is the reference, the target the live face."""

    status: str
    score: float | None
    source_image: str | None
    target_image: str | None
    warnings: tuple[NodeWarning, ...]
    node_id: None = None
    source_image_session_id: None = None


class LivenessCheck(msgspec.Struct, frozen=True):
    """A face search or a liveness call; `score` is null when liveness was not assessed."""

    status: str
    score: float | None
    reference_image: str | None
    age_estimation: float | None
    matches: tuple[Match, ...]
    warnings: tuple[NodeWarning, ...]
    face_luminance: float | None
    face_quality: None = None
    method: str = "PASSIVE"
    node_id: None = None
    video_url: None = None


class SessionReview(msgspec.Struct, frozen=True):
    """A change of a session's status by a person."""

    user: str
    new_status: str
    comment: str
    created_at: str


class Decision(msgspec.Struct, frozen=True):
    """A saved call; what only workflows have is null."""

    session_id: RequestId
    session_number: int
    status: str
    features: tuple[str, ...]
    vendor_data: str | None
    metadata: msgspec.Raw | None
    created_at: str
    expires_at: str | None
    reviews: tuple[SessionReview, ...]
    face_matches: tuple[FaceMatchCheck, ...] | None
    liveness_checks: tuple[LivenessCheck, ...] | None
    session_kind: str = "api"
    session_url: None = None
    workflow_id: None = None
    expected_details: None = None
    contact_details: None = None
    callback: None = None
    environment: str = "live"


class StatusUpdated(msgspec.Struct, frozen=True):
    """What webhooks are told; each delivery puts in its id and time."""

    created_at: int
    application_id: UUID
    session_id: RequestId
    status: str
    vendor_data: str | None
    metadata: msgspec.Raw | None
    decision: Decision
    webhook_type: str = STATUS_UPDATED
    workflow_id: None = None
    workflow_version: None = None


def read_kept(request: SavedRequest) -> Kept:
    """What is kept of a call's answer."""
    return msgspec.json.decode(request.result, type=Kept)


def matched_faces(kept: Kept) -> list[FaceId]:
    """The face records that a call found."""
    return [each.face_id for each in kept.matches]


def make_decision(
    request: SavedRequest,
    kept: Kept,
    image_keys: ImageKeys,
    link: Link,
    reviews: Sequence[Review] = (),
) -> Decision:
    """Tell a saved call. Matches whose face record is gone are gone from it, too."""
    is_match = request.kind == FACE_MATCH
    return Decision(
        session_id=request.request_id,
        session_number=request.number,
        status=STATUSES[request.state],
        features=(request.kind.upper(),),
        vendor_data=request.external_id,
        metadata=request.metadata,
        created_at=microseconds(request.created_at),
        expires_at=None if request.due_at is None else microseconds(request.due_at),
        reviews=tuple(map(_review, reviews)),
        face_matches=(_face_match(request, kept, link),) if is_match else None,
        liveness_checks=None if is_match else (_liveness(request, kept, image_keys, link),),
    )


def make_event(request: SavedRequest, kept: Kept, image_keys: ImageKeys, link: Link) -> NewEvent:
    """What webhooks are told of a call that was just saved."""
    told = StatusUpdated(
        created_at=int(request.created_at.timestamp()),
        application_id=request.tenant_id,
        session_id=request.request_id,
        status=STATUSES[request.state],
        vendor_data=request.external_id,
        metadata=request.metadata,
        decision=make_decision(request, kept, image_keys, link),
    )
    return NewEvent(DIALECT, STATUS_UPDATED, msgspec.Raw(msgspec.json.encode(told)))


def _face_match(request: SavedRequest, kept: Kept, link: Link) -> FaceMatchCheck:
    return FaceMatchCheck(
        status=STATUSES[request.state],
        score=kept.score,
        source_image=link(_key(request, REF_IMAGE)),
        target_image=link(_key(request, USER_IMAGE)),
        warnings=_with_node(kept.warnings),
    )


def _liveness(
    request: SavedRequest, kept: Kept, image_keys: ImageKeys, link: Link
) -> LivenessCheck:
    return LivenessCheck(
        status=STATUSES[request.state],
        score=kept.score,
        reference_image=link(_key(request, USER_IMAGE)),
        age_estimation=kept.age,
        matches=tuple(
            msgspec.structs.replace(each.match, match_image_url=link(image_keys[each.face_id]))
            for each in kept.matches
            if each.face_id in image_keys
        ),
        warnings=_with_node(kept.warnings),
        face_luminance=kept.luminance,
    )


def _with_node(warnings: Collection[FaceWarning]) -> tuple[NodeWarning, ...]:
    return tuple(NodeWarning(*msgspec.structs.astuple(each)) for each in warnings)


def _key(request: SavedRequest, name: str) -> str | None:
    picture = request.picture(name)
    return None if picture is None else picture.key


def _review(review: Review) -> SessionReview:
    return SessionReview(
        user=review.actor,
        new_status=STATUSES[review.state],
        comment=review.comment,
        created_at=microseconds(review.at),
    )
