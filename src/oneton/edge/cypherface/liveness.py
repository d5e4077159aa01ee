"""Liveness sessions: start, frames, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog
from litestar import Request, post
from litestar.datastructures import UploadFile
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import JSONBody

from oneton.domain.errors import TooLargeError
from oneton.domain.merchants import Refusal
from oneton.domain.model import Permission
from oneton.edge.aliases import aliased
from oneton.edge.cypherface.calls import ACCEPTED, IMAGE_LIMIT_BYTES, TOKEN, Caller
from oneton.edge.cypherface.refusals import RefusedError, refusals, refused
from oneton.edge.cypherface.wire import (
    CheckReply,
    CheckResponse,
    FrameReply,
    LiveMatchReply,
    LiveMatchRequest,
    Metadata,
    SessionReply,
    SessionRequest,
    UserRequest,
)
from oneton.verbs.merchant_liveness import MerchantLiveness, Verdict

START = ("/start-liveness-session", "/api/face-liveness/start")
MATCH = ("/match-liveness-face", "/api/match-liveness-face")


@dataclass
class FrameOperation(Operation):
    """Documents the form that the call reads by itself."""

    def __post_init__(self) -> None:
        form = Schema(
            type=OpenAPIType.OBJECT,
            required=["frame", "sessionId"],
            properties={
                "frame": Schema(
                    type=OpenAPIType.STRING, content_media_type="application/octet-stream"
                ),
                "sessionId": Schema(type=OpenAPIType.STRING),
            },
        )
        media = OpenAPIMediaType(schema=form)
        self.request_body = RequestBody(required=True, content={"multipart/form-data": media})


@post(
    list(START),
    operation_id=aliased("cypherfaceLivenessStart", *START),
    summary="Start a liveness session",
    security=TOKEN,
    responses=refusals(400, 401, 403, 404, 501),
    status_code=200,
    permissions=(Permission.MATCH,),
)
async def start_session(
    data: JSONBody[UserRequest], caller: NamedDependency[Caller]
) -> SessionReply:
    """Start a session: three minutes to the first frame, ten in all."""
    return SessionReply(await _liveness(caller).start(caller.tenant, data.user_id))


@post(
    "/upload-frame",
    operation_id="cypherfaceFrame",
    operation_class=FrameOperation,
    summary="Send a frame",
    security=TOKEN,
    responses=refusals(400, 401, 403, 404, 413, 422, 501),
    status_code=200,
    permissions=(Permission.MATCH,),
    computes=True,
)
async def take_frame(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> FrameReply:
    """Assess a frame of a session; the last frame counts, and one that fails is 422."""
    liveness = _liveness(caller)
    form = await request.form()
    frame, session_id = form.get("frame"), form.get("sessionId")
    if not isinstance(session_id, str) or not session_id:
        raise RefusedError(400, "BAD_REQUEST", "sessionId is required")
    if not isinstance(frame, UploadFile):
        raise RefusedError(400, "BAD_REQUEST", "frame is required, as a file")
    session = await liveness.read(caller.tenant, session_id)
    data = await frame.read()
    if len(data) > IMAGE_LIMIT_BYTES:
        raise TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES)
    passes, came = await liveness.take_frame(session, data, ACCEPTED)
    if not passes:
        raise RefusedError(422, "LIVENESS_FAILED", "the frame does not show a living person")
    time_ms = int(came.timestamp() * 1000)
    return FrameReply(f"liveness-sessions/{session.session_id}/{time_ms}.jpg")


@post(
    list(MATCH),
    operation_id=aliased("cypherfaceLivenessMatch", *MATCH),
    summary="Compare a live face",
    security=TOKEN,
    responses=refusals(400, 401, 403, 404, 422, 501),
    status_code=200,
    permissions=(Permission.MATCH,),
    computes=True,
)
async def match_frame(
    data: JSONBody[LiveMatchRequest], caller: NamedDependency[Caller]
) -> LiveMatchReply:
    """Compare the session's last frame with the user's source picture; the session goes on."""
    found = await _liveness(caller).match(caller.tenant, data.user_id, data.session_id)
    if isinstance(found, Refusal):
        raise refused(found)
    assert found.score is not None
    return LiveMatchReply(found.match, found.score)


@post(
    "/check-liveness",
    operation_id="cypherfaceLivenessCheck",
    summary="Liveness and comparison together",
    security=TOKEN,
    responses=refusals(400, 401, 403, 404, 422, 501),
    status_code=200,
    permissions=(Permission.MATCH,),
    computes=True,
)
async def check_session(
    data: JSONBody[SessionRequest], caller: NamedDependency[Caller]
) -> CheckReply:
    """What a session comes to; this ends it, and its frame is erased."""
    found = await _liveness(caller).check(caller.tenant, data.session_id)
    if isinstance(found, Refusal):
        raise refused(found)
    confidence = None if found.confidence is None else found.confidence * 100
    metadata = Metadata(str(structlog.contextvars.get_contextvars().get("request_id", "")))
    if found.match:
        response = CheckResponse(confidence, metadata, session_id=data.session_id, status="MATCHED")
    else:
        response = CheckResponse(confidence, metadata, audit_images=(), reference_image={})
    return CheckReply(found.live, found.live, found.match, _message(found), response)


def _message(found: Verdict) -> str:
    if not found.live:
        return f"Liveness failed with a confidence of {(found.confidence or 0.0) * 100:.2f}%"
    said = "Face matched" if found.match else "Face mismatch"
    return f"{said} with a similarity of {found.score:.2f}%"


def _liveness(caller: Caller) -> MerchantLiveness:
    settings = caller.platform.settings
    if settings.liveness is None and not settings.cypherface_frames_are_live:
        said = "there is no liveness model here, and frames are not taken for live without one"
        raise RefusedError(501, "NOT_IMPLEMENTED", said)
    return caller.merchants.liveness
