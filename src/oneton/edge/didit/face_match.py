"""POST /v3/face-match/: are these two pictures of one person?"""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency

from oneton.domain.errors import NoFaceError, ProbeError
from oneton.domain.model import Analysis, Permission, Score
from oneton.domain.requests import RequestState
from oneton.edge.didit.answers import (
    FACEMATCH,
    STATUSES,
    FaceMatch,
    FaceMatchReply,
    FaceWarning,
    analysed_picture,
    declined_by,
    make_warning,
    shown_score,
)
from oneton.edge.didit.bodies import refusals
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.decision import FACE_MATCH, REF_IMAGE, USER_IMAGE, Kept
from oneton.edge.didit.forms import PERCENT, Common, Form, documented_form
from oneton.edge.didit.refusals import FieldError
from oneton.edge.didit.saving import SANDBOX_ANALYSED, SANDBOX_SCORE, Call, Stamp, save, unsaved
from oneton.edge.risks import LOW_FACE_MATCH_SIMILARITY, NO_REFERENCE_IMAGE
from oneton.verbs.analyse import Picture
from oneton.verbs.verify import Comparison

THRESHOLD = "face_match_score_decline_threshold"


@post(
    "/v3/face-match",
    operation_id="diditFaceMatch",
    summary="Compare two faces",
    responses=refusals(400, 415),
    operation_class=documented_form(
        required=(USER_IMAGE, REF_IMAGE), face_match_score_decline_threshold=PERCENT
    ),
    status_code=200,
    permissions=(Permission.MATCH,),
    computes=True,
)
async def match_faces(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> FaceMatchReply:
    """Compare the largest faces of two pictures; a score above the threshold approves."""
    form = await Form.read(request)
    common, threshold = form.common(), form.threshold(THRESHOLD)
    user = await form.picture(USER_IMAGE, rotate=common.rotate, attributes=True)
    ref = await form.picture(REF_IMAGE, rotate=common.rotate, attributes=True)
    if caller.principal.sandbox:
        return _sandbox_reply(common)
    tenant = await caller.verbs.spend_credit.recent(caller.principal.tenant_id)
    async with caller.verbs.spend_credit(tenant):
        compared = await caller.verbs.verify.outcomes(caller.principal.tenant_id, user, ref)
        analyses = _analysis(USER_IMAGE, compared.source), _analysis(REF_IMAGE, compared.target)
        score, warnings = _judge(compared, threshold)
        state = declined_by(warnings)
        call = _call(common, threshold, user, ref, state, Kept(score, warnings))
        stamp = await save(caller, tenant.options, call)
    shown = FaceMatch(
        status=STATUSES[state],
        # What the service says of a pair that cannot be scored depends on this.
        score=0 if score is None and not common.save else score,
        user_image=analysed_picture(analyses[0]),
        ref_image=analysed_picture(analyses[1]),
        warnings=warnings,
    )
    return _reply(stamp, shown, common)


def _analysis(name: str, outcome: Analysis | ProbeError) -> Analysis | None:
    """None of a picture without a face; any other trouble is the caller's field's."""
    if isinstance(outcome, NoFaceError):
        return None
    if isinstance(outcome, ProbeError):
        raise FieldError(name, str(outcome))
    return outcome


def _judge(compared: Comparison, threshold: Score) -> tuple[Score | None, tuple[FaceWarning, ...]]:
    if compared.verification is None:
        return None, (make_warning(NO_REFERENCE_IMAGE, FACEMATCH),)
    score = shown_score(compared.verification.score)
    if score > threshold:
        return score, ()
    return score, (make_warning(LOW_FACE_MATCH_SIMILARITY, FACEMATCH),)


def _call(
    common: Common, threshold: Score, user: Picture, ref: Picture, state: RequestState, kept: Kept
) -> Call:
    return Call(
        kind=FACE_MATCH,
        state=state,
        common=common,
        asked={THRESHOLD: threshold},
        pictures={USER_IMAGE: user, REF_IMAGE: ref},
        kept=kept,
    )


def _sandbox_reply(common: Common) -> FaceMatchReply:
    status = STATUSES[RequestState.APPROVED]
    shown = FaceMatch(status, SANDBOX_SCORE, SANDBOX_ANALYSED, SANDBOX_ANALYSED, ())
    return _reply(unsaved(), shown, common)


def _reply(stamp: Stamp, shown: FaceMatch, common: Common) -> FaceMatchReply:
    return FaceMatchReply(
        request_id=stamp.request_id,
        face_match=shown,
        vendor_data=common.vendor_data,
        metadata=common.metadata,
        created_at=stamp.created_at,
    )
