"""Users: register, compare at a payment, delete."""

from __future__ import annotations

from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import UNSET

from oneton.domain.merchants import NewUser, Refusal
from oneton.domain.model import Permission
from oneton.edge.aliases import aliased
from oneton.edge.cypherface.calls import TOKEN, Caller
from oneton.edge.cypherface.refusals import refusals, refused
from oneton.edge.cypherface.wire import (
    MatchReply,
    RegisterReply,
    RegisterRequest,
    UserRequest,
)

MATCH = ("/api/face/match", "/api/face-match")


@post(
    "/api/user/register",
    operation_id="cypherfaceRegister",
    summary="Register a user",
    security=TOKEN,
    responses=refusals(400, 401, 403, 409),
    status_code=201,
    permissions=(Permission.INSERT,),
)
async def register_user(
    data: JSONBody[RegisterRequest], caller: NamedDependency[Caller]
) -> RegisterReply:
    """Register a user; 409 where the merchant has one with this email or external id."""
    new = NewUser(
        name=data.name or None,
        email=data.email or None,
        phone=data.phone or None,
        external_id=data.external_id or None,
    )
    return RegisterReply(await caller.merchants.users.register(caller.tenant, new))


@delete(
    "/api/user/{user_id:str}",
    operation_id="cypherfaceDeleteUser",
    summary="Delete a user",
    security=TOKEN,
    responses=refusals(401, 403, 404),
    status_code=204,
    permissions=(Permission.ERASE,),
)
async def delete_user(user_id: FromPath[str], caller: NamedDependency[Caller]) -> None:
    """Delete a user with all pictures."""
    actor = f"key {caller.principal.key_id}"
    await caller.merchants.forget_user(caller.tenant, user_id, actor=actor)


@post(
    list(MATCH),
    operation_id=aliased("cypherfaceMatch", *MATCH),
    summary="Compare a user's source and target pictures",
    security=TOKEN,
    responses={
        **refusals(400, 401, 403, 404),
        422: ResponseSpec(
            MatchReply, generate_examples=False, description="Mismatch, or a picture is missing"
        ),
    },
    status_code=200,
    permissions=(Permission.MATCH,),
    computes=True,
)
async def match_face(
    data: JSONBody[UserRequest], caller: NamedDependency[Caller]
) -> Response[MatchReply]:
    """Compare the target that was uploaded last with the source, and erase it."""
    found = await caller.merchants.users.match(caller.tenant, data.user_id)
    if isinstance(found, Refusal):
        raise refused(found)
    verification, match = found
    reply = MatchReply(
        success=match,
        message="Face matched successfully" if match else "Face mismatch",
        error=UNSET if match else "FACE_MISMATCH",
        match=match,
        similarity=verification.score,
    )
    is_good = match or caller.platform.settings.cypherface_mismatch_200
    return Response(reply, status_code=200 if is_good else 422)
