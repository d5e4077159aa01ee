"""The parts that the VeriFlow dialect's answers are made of."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from oneton.domain.model import Analysis, FaceSource, Tenant
from oneton.domain.requests import RequestState
from oneton.domain.screening import FaceDetails, ScreenedFace
from oneton.edge.risks import RISKS
from oneton.edge.veriflow.wire import (
    AboutSession,
    Detection,
    Entity,
    Match,
    Warned,
)
from oneton.verbs.judge_screening import (
    Risk,
    ScreeningWarning,
    is_allowlisted,
    is_blocklisted,
)

FACEMATCH = "FACEMATCH"
LIVENESS = "LIVENESS"
NOTHING_FOUND = Detection()
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 20
_BLOCKED = (Risk.FACE_IN_BLOCKLIST, Risk.POSSIBLE_FACE_IN_BLOCKLIST)
_WORDS = {
    RequestState.IN_PROCESS: "In Progress",
    RequestState.APPROVED: "Approved",
    RequestState.DECLINED: "Declined",
    RequestState.IN_REVIEW: "In Review",
    RequestState.ERROR: "Error",
}


def new_request_id() -> str:
    """An id that nobody can guess: 103 random bits."""
    return "req_" + "".join(secrets.choice(_DIGITS) for _ in range(_ID_LENGTH))


def is_request_id(text: str) -> bool:
    """Whether it has the form of one."""
    prefix, _, digits = text.partition("_")
    return prefix == "req" and len(digits) == _ID_LENGTH and set(digits) <= set(_DIGITS)


def organization_id(tenant: Tenant) -> str:
    """The tenant's public name, 96 bits, in base 36; padded with zeros on the left."""
    number = int(tenant.public_id, 16)
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return "org_" + digits.rjust(_ID_LENGTH, "0")


def moment(at: datetime) -> str:
    """A time in UTC, with milliseconds and a Z."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def status_word(state: RequestState) -> str:
    """How the inner parts of a request spell a state."""
    return _WORDS[state]


def detection(analysis: Analysis) -> Detection:
    """Every face that was found, the one that counts first."""
    return Detection(
        best_angle=analysis.rotation,
        entities=tuple(
            Entity(
                age=None if face.attributes is None else round(face.attributes.age, 2),
                confidence=round(face.confidence, 6),
                gender=None if face.attributes is None else face.attributes.gender,
                bbox=(
                    round(face.box[0]),
                    round(face.box[1]),
                    round(face.box[2]),
                    round(face.box[3]),
                ),
            )
            for face in analysis.faces
        ),
    )


def warned(risk: str, feature: str, about: AboutSession | None = None) -> Warned:
    """A warning with its texts."""
    text = RISKS[risk]
    return Warned(feature, str(risk), about, text.log_type, text.short, text.long)


def warned_of(warning: ScreeningWarning) -> Warned:
    """A warning of a screening, with the session that it is about."""
    face = warning.face
    if face is None:
        return warned(warning.risk, LIVENESS)
    number, name = face.request_number, face.request_public_id
    service = None if face.request_kind is None else face.request_kind.upper()
    about = AboutSession(service, duplicated_session_id=name, duplicated_session_number=number)
    if warning.risk in _BLOCKED:
        about = AboutSession(
            service, blocklisted_session_id=name, blocklisted_session_number=number
        )
    return warned(warning.risk, LIVENESS, about)


def match(candidate: ScreenedFace) -> Match:
    """A candidate; its link is the image's key, until it is shown."""
    face = candidate.face
    state = face.request_state
    return Match(
        request_id=face.request_public_id,
        session_id=face.request_public_id,
        session_number=face.request_number,
        similarity_percentage=round(candidate.score, 2),
        source=str(_source(face)),
        vendor_data=face.note.external_id,
        verification_date=moment(face.created_at),
        match_image_url=face.image_key,
        status=None if state is None else status_word(state),
        is_blocklisted=is_blocklisted(face),
        is_allowlisted=is_allowlisted(face),
    )


def _source(face: FaceDetails) -> FaceSource:
    """Of a plain enrolment: what it comes to for a caller of this dialect."""
    if face.source is not None:
        return face.source
    is_listed = is_blocklisted(face) or is_allowlisted(face)
    return FaceSource.LIST_ENTRY if is_listed else FaceSource.IMPORTED
