"""What came of a face session: its signed result, the result's selfie, and the keys."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Response, delete, get
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, HeaderParameter

from oneton.domain import errors
from oneton.domain.model import Permission
from oneton.domain.requests import PictureId
from oneton.edge.uqudo.calls import BEARER, Caller
from oneton.edge.uqudo.refusals import BadRequestError, refusals
from oneton.edge.uqudo.sessions import read_id
from oneton.edge.uqudo.wire import KeySet
from oneton.verbs.sign_results import SignResults

JWT = "application/jwt"
_JWT_REPLY = {
    200: ResponseSpec(str, generate_examples=False, media_type=JWT, description="A compact JWS.")
}
_PRIVATE = {"Cache-Control": "private, no-store"}


@get(
    "/api/v1/info/{session_id:str}",
    operation_id="uqudoSessionResult",
    summary="The result of a face session",
    security=BEARER,
    responses=_JWT_REPLY | refusals(400, 404, 500, 503),
    tags=["uqudo"],
    permissions=(Permission.MATCH,),
)
async def show_result(
    session_id: FromPath[str], caller: NamedDependency[Caller]
) -> Response[bytes]:
    """Show the signed result of a session, by the session's id or by the result's `jti`.

    404 until there is a result, and once the session's ten minutes are over.
    """
    return await _result(caller, session_id)


@get(
    "/api/v1/info",
    operation_id="uqudoSessionResultByHeader",
    summary="The result of a face session, its id in a header",
    security=BEARER,
    responses=_JWT_REPLY | refusals(400, 404, 500, 503),
    tags=["uqudo"],
    permissions=(Permission.MATCH,),
)
async def show_result_by_header(
    caller: NamedDependency[Caller],
    session_id: Annotated[str | None, HeaderParameter(name="UQ-Session-ID")] = None,
) -> Response[bytes]:
    """The same, with the id in the header `UQ-Session-ID`."""
    if session_id is None:
        raise BadRequestError("MISSING_INPUT", "the header UQ-Session-ID is required")
    return await _result(caller, session_id)


@delete(
    "/api/v1/info/{session_id:str}",
    operation_id="uqudoPurgeSession",
    summary="Erase a face session",
    security=BEARER,
    responses=refusals(400, 404, 500, 503),
    status_code=204,
    tags=["uqudo"],
    permissions=(Permission.ERASE,),
)
async def purge_session(session_id: FromPath[str], caller: NamedDependency[Caller]) -> None:
    """Erase a session, its photo, its result and the result's selfie before their time."""
    await caller.verbs.run_face_sessions.purge(caller.principal, read_id(session_id))


@get(
    "/api/v1/info/img/{image_id:str}",
    operation_id="uqudoSessionImage",
    summary="The selfie of a result",
    security=BEARER,
    responses={
        200: ResponseSpec(
            bytes, generate_examples=False, media_type="image/*", description="The picture."
        )
    }
    | refusals(404, 500, 503),
    tags=["uqudo"],
    permissions=(Permission.READ,),
)
async def show_image(image_id: FromPath[str], caller: NamedDependency[Caller]) -> Response[bytes]:
    """Show the selfie that a result names as `auditTrailImageId`, for half an hour."""
    try:
        picture_id = PictureId(UUID(image_id))
    except ValueError as error:
        raise errors.NotFoundError("image", image_id) from error
    data, content_type = await caller.verbs.run_face_sessions.image(caller.principal, picture_id)
    headers = {**_PRIVATE, "X-Content-Type-Options": "nosniff"}
    return Response(data, media_type=content_type, headers=headers)


@get(
    "/api/.well-known/jwks.json",
    operation_id="uqudoJwks",
    summary="The keys that results are signed with",
    tags=["uqudo"],
)
async def show_keys(sign_results: NamedDependency[SignResults]) -> Response[KeySet]:
    """Show the public keys; a reader asks again when a result names one that it does not have."""
    keys = KeySet(await sign_results.published())
    return Response(keys, headers={"Cache-Control": "public, max-age=60"})


async def _result(caller: Caller, name: str) -> Response[bytes]:
    result = await caller.verbs.run_face_sessions.result(caller.principal, read_id(name))
    return Response(result.encode(), media_type=JWT, headers=_PRIVATE)
