"""Face sessions: a photo, then selfies; the second call stands for the vendor's own capture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath

from oneton.domain.face_sessions import (
    ComparedSelfie,
    SelfieState,
    SelfieTerms,
    SessionId,
)
from oneton.domain.model import Permission
from oneton.edge.uqudo.calls import (
    BEARER,
    PICTURE_SCHEMA,
    Caller,
    FormOrJsonOperation,
    as_picture,
    decoded,
    is_form,
    part_bytes,
    read_json,
    refused_input,
)
from oneton.edge.uqudo.refusals import BadRequestError, refusals
from oneton.edge.uqudo.wire import (
    SelfieOptions,
    SelfieReply,
    SelfieRequest,
    SessionData,
    SessionFace,
    SessionReply,
    SessionRequest,
)

_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass
class SessionOperation(FormOrJsonOperation):
    """Documents the two forms of a new session's photo."""

    def __post_init__(self) -> None:
        self.describe(
            Schema(
                type=OpenAPIType.OBJECT,
                required=["idPhoto"],
                properties={"idPhoto": PICTURE_SCHEMA},
            )
        )


@dataclass
class SelfieOperation(FormOrJsonOperation):
    """Documents the two forms of a selfie."""

    def __post_init__(self) -> None:
        switch = Schema(type=OpenAPIType.BOOLEAN, default=False)
        self.describe(
            Schema(
                type=OpenAPIType.OBJECT,
                required=["selfie"],
                properties={
                    "selfie": PICTURE_SCHEMA,
                    "nonce": Schema(type=OpenAPIType.STRING, max_length=1024),
                    "minimumMatchLevel": Schema(
                        type=OpenAPIType.INTEGER, minimum=1, maximum=5, default=3
                    ),
                    "maxAttempts": Schema(
                        type=OpenAPIType.INTEGER, minimum=1, maximum=3, default=3
                    ),
                    "returnDataForIncompleteSession": switch,
                    "enableOneToNVerification": switch,
                    "insert": switch,
                },
            )
        )


@post(
    "/api/v1/face",
    operation_id="uqudoCreateFaceSession",
    summary="Begin a face session",
    security=BEARER,
    responses=refusals(400, 413, 415, 500, 503),
    operation_class=SessionOperation,
    status_code=201,
    tags=["uqudo"],
    permissions=(Permission.MATCH,),
    computes=True,
)
async def create_session(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> SessionReply:
    """Keep a photo of an identity document for ten minutes, to compare a selfie with it."""
    if is_form(request):
        photo = await part_bytes("idPhoto", (await request.form()).get("idPhoto"))
    else:
        photo = decoded("idPhoto", (await read_json(request, SessionRequest)).id_photo)
    sessions = caller.verbs.run_face_sessions
    return SessionReply(await sessions.create(caller.principal, as_picture(photo)))


@post(
    "/uqudo/face-sessions/{session_id:str}/selfie",
    operation_id="uqudoTakeSelfie",
    summary="Compare a selfie with a session's photo",
    security=BEARER,
    responses=refusals(400, 404, 409, 413, 415, 500, 503),
    operation_class=SelfieOperation,
    status_code=200,
    tags=["uqudo"],
    permissions=(Permission.MATCH,),
    computes=True,
)
async def take_selfie(
    session_id: FromPath[str], request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> SelfieReply:
    """Compare a selfie with a session's photo, and sign the result when that ends the session.

    A match ends it, and so does the last attempt. `result` is what a face session gives: a JWS,
    RS256, whose key is at `/api/.well-known/jwks.json`. Without a match it is signed only after
    the last attempt, and only with `returnDataForIncompleteSession`.
    """
    wanted = SessionId(read_id(session_id))
    options, selfie = await _read_selfie(request)
    if options.insert and not options.enable_one_to_n_verification:
        raise BadRequestError("INVALID_INPUT", "insert needs enableOneToNVerification")
    terms = SelfieTerms(
        minimum_match_level=options.minimum_match_level,
        max_attempts=options.max_attempts,
        return_incomplete=options.return_data_for_incomplete_session,
        one_to_n=options.enable_one_to_n_verification,
        insert=options.insert,
    )

    def describe(told: ComparedSelfie) -> dict[str, object]:
        data: dict[str, object] = msgspec.to_builtins(_session_data(told, options.nonce))
        return data

    picture = as_picture(selfie, liveness=True)
    outcome = await caller.verbs.run_face_sessions.take_selfie(
        caller.principal, wanted, picture, terms, describe
    )
    if outcome.state is SelfieState.OVER:
        raise BadRequestError("SESSION_OVER", "the session takes no further selfie", status=409)
    return SelfieReply(
        session_id=wanted,
        match=outcome.state is SelfieState.MATCH,
        match_level=outcome.match_level,
        attempts_left=outcome.attempts_left,
        result=outcome.result,
    )


def read_id(text: str) -> UUID:
    """A session's id, or that of its result, in the form that the vendor documents.

    Raises:
        BadRequestError: it has another form.
    """
    if _ID.fullmatch(text) is None:
        raise BadRequestError("INVALID_SESSION_ID", "the session's id must be a UUID")
    return UUID(text)


async def _read_selfie(request: Request[Any, Any, Any]) -> tuple[SelfieOptions, bytes]:
    if not is_form(request):
        asked = await read_json(request, SelfieRequest)
        return asked, decoded("selfie", asked.selfie)
    form = await request.form()
    selfie = await part_bytes("selfie", form.get("selfie"))
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    try:
        return msgspec.convert(fields, SelfieOptions, strict=False), selfie
    except msgspec.ValidationError as error:
        raise refused_input(error) from error


def _session_data(told: ComparedSelfie, nonce: str | None) -> SessionData:
    face = SessionFace(
        audit_trail_image_id=str(told.picture_id),
        audit_trail_image_id_checksum=f"sha256:{told.sha256}",
        match_level=told.match_level,
        match=told.match,
    )
    if told.one_to_n is not None:
        face.verification_id = told.one_to_n.face_id
        face.verification_match = told.one_to_n.found
    return SessionData(nonce, told.session_id, face)
