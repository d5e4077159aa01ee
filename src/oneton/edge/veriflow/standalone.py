"""The calls on faces: 1:1 match, 1:N search, passive liveness. Each is kept as a request."""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency

from oneton.domain import errors
from oneton.domain.model import DEFAULT_GALLERY, Analysis, Permission, TenantOptions
from oneton.domain.requests import RequestState, SavedRequest
from oneton.domain.screening import Screening
from oneton.edge import risks
from oneton.edge.veriflow.bodies import FaceMatchAsked, FaceSearchAsked, PassiveLivenessAsked
from oneton.edge.veriflow.calls import (
    ANYTHING,
    FLAG,
    PERCENT,
    PICTURE,
    SECURITY,
    Caller,
    documented,
    one_of,
    prefix_of,
    read_body,
    read_metadata,
    read_picture,
)
from oneton.edge.veriflow.keeping import Outcome, keep, keep_and_enroll
from oneton.edge.veriflow.refusals import PictureError, refusals
from oneton.edge.veriflow.shapes import (
    FACEMATCH,
    LIVENESS,
    NOTHING_FOUND,
    detection,
    match,
    status_word,
    warned,
    warned_of,
)
from oneton.edge.veriflow.shown import (
    FACE_MATCH,
    FACE_SEARCH,
    PASSIVE_LIVENESS,
    REF_IMAGE,
    USER_IMAGE,
    show,
)
from oneton.edge.veriflow.wire import (
    Detection,
    FaceMatchInit,
    FaceMatchReply,
    FaceMatchResponse,
    FaceSearchInit,
    FaceSearchReply,
    FaceSearchResponse,
    PassiveLivenessInit,
    PassiveLivenessReply,
    PassiveLivenessResponse,
    RequestPayload,
    RequestReply,
    Warned,
)
from oneton.verbs.analyse import Picture
from oneton.verbs.judge_screening import (
    LISTED,
    SCREENED,
    blocklisted_first,
    is_blocklisted_or_approved,
    judge_screening,
    screened_galleries,
)
from oneton.verbs.screen import Terms, Wanted
from oneton.verbs.verify import Comparison

MOST_SIMILAR = "most_similar"
BLOCKLISTED_OR_APPROVED = "blocklisted_or_approved"


@post(
    "/face-match",
    operation_id="veriflowFaceMatch",
    summary="Compare two faces",
    security=SECURITY,
    responses=refusals(400, 413),
    operation_class=documented(
        ["userImage", "refImage"],
        userImage=PICTURE,
        refImage=PICTURE,
        faceMatchScoreDeclineThreshold=PERCENT,
        rotateImage=FLAG,
        metadata=ANYTHING,
    ),
    permissions=(Permission.MATCH,),
    computes=True,
)
async def match_two(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> FaceMatchReply:
    """Compare the largest faces of two pictures; approved above the threshold, not at it."""
    asked = await read_body(request, FaceMatchAsked)
    metadata = read_metadata(asked.metadata)
    pictures = {
        USER_IMAGE: read_picture("userImage", asked.user_image, rotate=asked.rotate_image),
        REF_IMAGE: read_picture("refImage", asked.ref_image, rotate=asked.rotate_image),
    }
    found = await caller.verbs.verify.outcomes(caller.tenant_id, *pictures.values())
    threshold = asked.face_match_score_decline_threshold
    state, result = _compared(found, float(threshold))
    outcome = Outcome(
        FACE_MATCH,
        state,
        metadata,
        FaceMatchInit(
            prefix_of(asked.user_image),
            prefix_of(asked.ref_image),
            threshold,
            asked.rotate_image,
        ),
        result,
        result.score,
        pictures,
    )
    return await _reply(caller, await keep(caller, outcome))


def _compared(found: Comparison, threshold: float) -> tuple[RequestState, FaceMatchResponse]:
    """Without a face in each picture there is nothing to compare: declined."""
    user = _detected("userImage", found.source)
    reference = _detected("refImage", found.target)
    if found.verification is None:
        score, risk = 0.0, risks.NO_REFERENCE_IMAGE
        is_approved = False
    else:
        score, risk = round(found.verification.score, 2), risks.LOW_FACE_MATCH_SIMILARITY
        is_approved = score > threshold
    state = RequestState.APPROVED if is_approved else RequestState.DECLINED
    warnings = () if is_approved else (warned(risk, FACEMATCH),)
    return state, FaceMatchResponse(status_word(state), score, warnings, user, reference)


def _detected(name: str, found: Analysis | errors.ProbeError) -> Detection:
    if isinstance(found, errors.NoFaceError):
        return NOTHING_FOUND
    if isinstance(found, errors.ProbeError):
        raise PictureError(name, found)
    return detection(found)


@post(
    "/face-search",
    operation_id="veriflowFaceSearch",
    summary="Search for a face",
    security=SECURITY,
    responses=refusals(400, 413),
    operation_class=documented(
        ["userImage"],
        userImage=PICTURE,
        searchType=one_of(MOST_SIMILAR, BLOCKLISTED_OR_APPROVED, default=MOST_SIMILAR),
        rotateImage=FLAG,
        metadata=ANYTHING,
    ),
    permissions=(Permission.SEARCH,),
    computes=True,
)
async def search_face(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> FaceSearchReply:
    """Search the enrolled faces and the lists; the face is never added to them."""
    asked = await read_body(request, FaceSearchAsked)
    metadata = read_metadata(asked.metadata)
    picture = read_picture("userImage", asked.user_image, rotate=asked.rotate_image)
    options = (await caller.tenant()).options
    is_narrow = asked.search_type == BLOCKLISTED_OR_APPROVED
    wanted = is_blocklisted_or_approved if is_narrow else None
    screening = await _screen(caller, picture, options, wanted)
    verdict = judge_screening(screening, floor=options.floor, sure=options.sure)
    best = blocklisted_first(verdict.candidates) if is_narrow else verdict.candidates
    state = RequestState.DECLINED if verdict.declined else RequestState.APPROVED
    result = FaceSearchResponse(
        status=status_word(state),
        total_matches=len(verdict.candidates),
        matches=tuple(match(each) for each in best[:LISTED]),
        user_image=detection(screening.analysis),
        warnings=tuple(warned_of(each) for each in verdict.warnings),
    )
    init = FaceSearchInit(prefix_of(asked.user_image), asked.search_type, asked.rotate_image)
    score = result.matches[0].similarity_percentage if result.matches else None
    outcome = Outcome(FACE_SEARCH, state, metadata, init, result, score, {USER_IMAGE: picture})
    return await _reply(caller, await keep(caller, outcome))


async def _screen(
    caller: Caller, picture: Picture, options: TenantOptions, wanted: Wanted | None = None
) -> Screening:
    galleries = await caller.verbs.manage_galleries.list(caller.tenant_id)
    kinds = [(each.gallery_id, each.kind) for each in galleries]
    terms = Terms(limit=SCREENED, each=True, least=options.floor, wanted=wanted)
    try:
        return await caller.verbs.screen(
            caller.tenant_id, screened_galleries(kinds, DEFAULT_GALLERY), picture, terms
        )
    except errors.NoFaceError:
        raise
    except errors.ProbeError as error:
        raise PictureError("userImage", error) from error


@post(
    "/passive-liveness",
    operation_id="veriflowPassiveLiveness",
    summary="Check liveness, and enroll the face",
    security=SECURITY,
    responses=refusals(400, 413),
    operation_class=documented(
        ["userImage"],
        userImage=PICTURE,
        faceLivenessScoreDeclineThreshold=PERCENT,
        rotateImage=FLAG,
        metadata=ANYTHING,
    ),
    permissions=(Permission.SEARCH, Permission.INSERT),
    computes=True,
)
async def check_liveness(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> PassiveLivenessReply:
    """Check a picture's liveness, search for its face, and enroll it.

    Without a liveness model the score is null, and a warning says so.
    """
    asked = await read_body(request, PassiveLivenessAsked)
    metadata = read_metadata(asked.metadata)
    picture = read_picture("userImage", asked.user_image, rotate=asked.rotate_image, liveness=True)
    options = (await caller.tenant()).options
    threshold = asked.face_liveness_score_decline_threshold
    screening: Screening | None = None
    try:
        screening = await _screen(caller, picture, options)
        state, result = _live(screening, options, float(threshold))
    except errors.NoFaceError:
        state, result = RequestState.DECLINED, NO_FACE
    init = PassiveLivenessInit(prefix_of(asked.user_image), threshold, asked.rotate_image)
    outcome = Outcome(
        PASSIVE_LIVENESS, state, metadata, init, result, result.score, {USER_IMAGE: picture}
    )
    if screening is None:
        return await _reply(caller, await keep(caller, outcome))
    return await _reply(caller, await keep_and_enroll(caller, outcome, screening))


NO_FACE = PassiveLivenessResponse(
    status=status_word(RequestState.DECLINED),
    score=None,
    user_image=NOTHING_FOUND,
    warnings=(warned(risks.NO_FACE_DETECTED, LIVENESS),),
    face_quality=None,
    face_luminance=None,
)


def _live(
    screening: Screening, options: TenantOptions, threshold: float
) -> tuple[RequestState, PassiveLivenessResponse]:
    """Declined for a low score, or for somebody who is, or may be, block-listed."""
    verdict = judge_screening(screening, floor=options.floor, sure=options.sure)
    analysis = screening.analysis
    warnings: list[Warned] = []
    score, is_low = None, False
    if analysis.liveness is None:
        warnings.append(warned(risks.LIVENESS_NOT_ASSESSED, LIVENESS))
    else:
        score = round(100 * analysis.liveness, 2)
        is_low = score <= threshold
        if is_low:
            warnings.append(warned(risks.LOW_LIVENESS_SCORE, LIVENESS))
    warnings += (warned_of(each) for each in verdict.warnings)
    is_declined = is_low or verdict.declined
    state = RequestState.DECLINED if is_declined else RequestState.APPROVED
    return state, PassiveLivenessResponse(
        status=status_word(state),
        score=score,
        user_image=detection(analysis),
        warnings=tuple(warnings),
        face_quality=None,
        face_luminance=round(analysis.faces[0].quality.luminance, 2),
    )


async def _reply(caller: Caller, saved: SavedRequest) -> RequestReply[Any, Any]:
    return RequestReply(RequestPayload(await show(caller, saved, (), echo=True)))
