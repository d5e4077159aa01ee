"""POST /v3/passive-liveness/: screens a live face, and enrolls it."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency

from oneton.domain.errors import NoFaceError
from oneton.domain.model import Analysis, Permission, Score, TenantOptions
from oneton.domain.requests import RequestState
from oneton.domain.screening import FaceDetails
from oneton.edge.didit.answers import (
    LIVENESS,
    STATUSES,
    FaceWarning,
    Liveness,
    LivenessReply,
    analysed_picture,
    declined_by,
    make_warning,
    shown_score,
)
from oneton.edge.didit.bodies import refusals
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.decision import PASSIVE_LIVENESS, USER_IMAGE, Kept
from oneton.edge.didit.forms import PERCENT, Common, Form, documented_form
from oneton.edge.didit.saving import (
    SANDBOX_ANALYSED,
    Call,
    Stamp,
    save,
    save_and_enroll,
    unsaved,
)
from oneton.edge.didit.screening import Screened, screen
from oneton.edge.risks import LIVENESS_NOT_ASSESSED, LOW_LIVENESS_SCORE, NO_FACE_DETECTED
from oneton.verbs.analyse import Picture
from oneton.verbs.screen import Wanted

THRESHOLD = "face_liveness_score_decline_threshold"
_SANDBOX_SCORE = 95.0
_SANDBOX_LUMINANCE = 50.33


@post(
    "/v3/passive-liveness",
    operation_id="diditPassiveLiveness",
    summary="Screen a live face and enroll it",
    responses=refusals(400, 415),
    operation_class=documented_form(
        required=(USER_IMAGE,), face_liveness_score_decline_threshold=PERCENT
    ),
    status_code=200,
    permissions=(Permission.SEARCH,),
    computes=True,
)
async def assess_liveness(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> LivenessReply:
    """Assess liveness where this server has a model of it, screen the face, and enroll it.

    Faces of the same `vendor_data` are left out of the screening. Without a model the score is
    null, which a warning says, and nobody is declined for it.
    """
    form = await Form.read(request)
    common, threshold = form.common(), form.threshold(THRESHOLD)
    picture = await form.picture(USER_IMAGE, rotate=common.rotate, attributes=True, liveness=True)
    if common.save:
        caller.principal.require(Permission.INSERT)
    if caller.principal.sandbox:
        return _sandbox_reply(common)
    tenant = await caller.verbs.spend_credit.recent(caller.principal.tenant_id)
    async with caller.verbs.spend_credit(tenant):
        try:
            screened = await screen(caller, picture, tenant.options, wanted=_but(common))
        except NoFaceError:
            screened = None
        analysis = None if screened is None else screened.screening.analysis
        score, warnings = _judge(analysis, threshold)
        warnings += () if screened is None else screened.warnings
        state = declined_by(warnings)
        kept = _kept(score, warnings, screened)
        call = Call(
            PASSIVE_LIVENESS, state, common, {THRESHOLD: threshold}, {USER_IMAGE: picture}, kept
        )
        stamp = await _save(caller, tenant.options, call, picture, screened)
    shown = Liveness(
        status=STATUSES[state],
        score=score,
        user_image=analysed_picture(analysis),
        warnings=warnings,
        face_luminance=kept.luminance,
    )
    return _reply(stamp, shown, common)


def _but(common: Common) -> Wanted | None:
    """Leaves out the faces of the same reference."""
    if common.vendor_data is None:
        return None

    def wanted(face: FaceDetails) -> bool:
        return face.note.external_id != common.vendor_data

    return wanted


def _judge(
    analysis: Analysis | None, threshold: Score
) -> tuple[Score | None, tuple[FaceWarning, ...]]:
    if analysis is None:
        return None, (make_warning(NO_FACE_DETECTED, LIVENESS),)
    if analysis.liveness is None:
        return None, (make_warning(LIVENESS_NOT_ASSESSED, LIVENESS),)
    score = shown_score(Score(analysis.liveness * 100))
    if score > threshold:
        return score, ()
    return score, (make_warning(LOW_LIVENESS_SCORE, LIVENESS),)


def _kept(
    score: Score | None, warnings: tuple[FaceWarning, ...], screened: Screened | None
) -> Kept:
    if screened is None:
        return Kept(score, warnings)
    face = screened.screening.analysis.faces[0]
    return Kept(
        score=score,
        warnings=warnings,
        matches=screened.matches,
        age=None if face.attributes is None else round(face.attributes.age, 2),
        luminance=round(face.quality.luminance, 2),
    )


async def _save(
    caller: Caller,
    options: TenantOptions,
    call: Call,
    picture: Picture,
    screened: Screened | None,
) -> Stamp:
    if screened is None:
        return await save(caller, options, call)
    call = msgspec.structs.replace(call, image_keys=screened.image_keys)
    return await save_and_enroll(caller, options, call, picture, screened.screening)


def _sandbox_reply(common: Common) -> LivenessReply:
    status = STATUSES[RequestState.APPROVED]
    shown = Liveness(status, _SANDBOX_SCORE, SANDBOX_ANALYSED, (), _SANDBOX_LUMINANCE)
    return _reply(unsaved(), shown, common)


def _reply(stamp: Stamp, shown: Liveness, common: Common) -> LivenessReply:
    return LivenessReply(
        request_id=stamp.request_id,
        liveness=shown,
        vendor_data=common.vendor_data,
        metadata=common.metadata,
        created_at=stamp.created_at,
    )
