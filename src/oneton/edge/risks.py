"""What warnings say of a face, in the dialects that have them."""

from __future__ import annotations

import msgspec

from oneton.verbs.judge_screening import Risk

LOW_FACE_MATCH_SIMILARITY = "LOW_FACE_MATCH_SIMILARITY"
NO_REFERENCE_IMAGE = "NO_REFERENCE_IMAGE"
NO_FACE_DETECTED = "NO_FACE_DETECTED"
LOW_LIVENESS_SCORE = "LOW_LIVENESS_SCORE"
LIVENESS_NOT_ASSESSED = "LIVENESS_NOT_ASSESSED"


class RiskText(msgspec.Struct, frozen=True):
    """What goes with a risk.

    Attributes:
        log_type: `information`, `warning` or `error`.
    """

    log_type: str
    short: str
    long: str


RISKS: dict[str, RiskText] = {
    Risk.FACE_IN_BLOCKLIST: RiskText(
        "error", "Face in blocklist", "The face is that of somebody on a block list."
    ),
    Risk.POSSIBLE_FACE_IN_BLOCKLIST: RiskText(
        "error",
        "Possible face in blocklist",
        "The face resembles somebody's on a block list; a person should look at both.",
    ),
    Risk.DUPLICATED_FACE: RiskText(
        "information",
        "Duplicated face from other approved session",
        "The face is that of somebody who was let in before.",
    ),
    Risk.POSSIBLE_DUPLICATED_FACE: RiskText(
        "information",
        "Possible duplicated face from other approved session",
        "The face resembles that of somebody who was let in before.",
    ),
    Risk.MULTIPLE_FACES_DETECTED: RiskText(
        "warning",
        "Multiple faces detected",
        "The picture has several faces; only the largest was looked at.",
    ),
    LOW_FACE_MATCH_SIMILARITY: RiskText(
        "error",
        "Low face match similarity",
        "The faces are not alike enough for the threshold of this call.",
    ),
    NO_REFERENCE_IMAGE: RiskText(
        "error",
        "No reference image",
        "One of the pictures has no face in it, so that there is nothing to compare.",
    ),
    NO_FACE_DETECTED: RiskText("error", "No face detected", "The picture has no face in it."),
    LOW_LIVENESS_SCORE: RiskText(
        "error",
        "Low liveness score",
        "The liveness score is not above the threshold of this call.",
    ),
    LIVENESS_NOT_ASSESSED: RiskText(
        "information",
        "Liveness not assessed",
        "This server has no liveness model; nothing was found out about liveness.",
    ),
}
"""By risk; the texts are for people, clients key on the risk."""
