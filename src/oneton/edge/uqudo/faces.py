"""The face calls: 1:1 match, 1:N search, insert and delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from litestar import Request, delete, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath, JSONBody

from oneton.domain import errors
from oneton.domain.model import DEFAULT_GALLERY, FaceId, Permission
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
)
from oneton.edge.uqudo.refusals import BadRequestError, refusals
from oneton.edge.uqudo.wire import (
    DEFAULT_MATCH_LEVEL,
    InsertRequest,
    MatchReply,
    MatchRequest,
    OneToNReply,
    SearchRequest,
)


@dataclass
class MatchOperation(FormOrJsonOperation):
    """Documents the two forms that the match call reads by itself."""

    def __post_init__(self) -> None:
        level = Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=5, default=3)
        self.describe(
            Schema(
                type=OpenAPIType.OBJECT,
                required=["sourceImage", "targetImage"],
                properties={
                    "sourceImage": PICTURE_SCHEMA,
                    "targetImage": PICTURE_SCHEMA,
                    "minimumMatchLevel": level,
                },
            )
        )


@post(
    "/api/v1/face/match",
    operation_id="match",
    summary="Compare two faces",
    security=BEARER,
    responses=refusals(400, 413, 415, 500, 503),
    operation_class=MatchOperation,
    status_code=200,
    tags=["uqudo"],
    permissions=(Permission.MATCH,),
    computes=True,
)
async def match_faces(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> MatchReply:
    """Compare the largest faces of two pictures; neither is kept."""
    if is_form(request):
        source, target, minimum = await _match_form(request)
    else:
        asked = await read_json(request, MatchRequest)
        source = decoded("sourceImage", asked.source_image)
        target = decoded("targetImage", asked.target_image)
        minimum = asked.minimum_match_level
    if not 1 <= minimum <= 5:
        raise BadRequestError("INVALID_MATCH_LEVEL", "minimumMatchLevel must be 1 to 5")
    found = await caller.verbs.verify(
        caller.principal.tenant_id, as_picture(source), as_picture(target)
    )
    return MatchReply(match=found.match_level >= minimum, match_level=found.match_level)


async def _match_form(request: Request[Any, Any, Any]) -> tuple[bytes, bytes, int]:
    form = await request.form()
    names = ("sourceImage", "targetImage")
    pictures = [await part_bytes(name, form.get(name)) for name in names]
    level = form.get("minimumMatchLevel", str(DEFAULT_MATCH_LEVEL))
    if not isinstance(level, str) or not level.isdecimal():
        raise BadRequestError("INVALID_MATCH_LEVEL", "minimumMatchLevel must be 1 to 5")
    return pictures[0], pictures[1], int(level)


@post(
    "/api/v1/face/one-to-n/search",
    operation_id="oneToNSearch",
    summary="Search, and insert when missing",
    security=BEARER,
    responses=refusals(400, 413, 415, 500, 503),
    status_code=200,
    tags=["uqudo"],
    permissions=(Permission.SEARCH,),
    computes=True,
)
async def search_face(
    data: JSONBody[SearchRequest], caller: NamedDependency[Caller]
) -> OneToNReply:
    """Search the tenant's faces; with `insert`, add the picture when nobody matches."""
    tenant, verbs = caller.principal.tenant_id, caller.verbs
    if data.insert:
        caller.principal.require(Permission.INSERT)
    picture = as_picture(decoded("idPhoto", data.id_photo))
    if data.insert:
        enrolment = await verbs.enroll(tenant, DEFAULT_GALLERY, picture, if_missing=True)
        return OneToNReply(enrolment.face_id, not enrolment.added)
    found = await verbs.identify(tenant, DEFAULT_GALLERY, picture, matches_only=True)
    return OneToNReply(found.candidates[0].face_id if found.match else None, found.match)


@post(
    "/api/v1/face/one-to-n/insert",
    operation_id="oneToNInsert",
    summary="Insert",
    security=BEARER,
    responses=refusals(400, 413, 415, 500, 503),
    status_code=200,
    tags=["uqudo"],
    permissions=(Permission.INSERT,),
    computes=True,
)
async def insert_face(
    data: JSONBody[InsertRequest], caller: NamedDependency[Caller]
) -> OneToNReply:
    """Add the picture without a search; every call makes a new id."""
    text = next((each for each in (data.id_photo, data.selfie, data.image) if each), None)
    if text is None:
        raise BadRequestError("MISSING_INPUT", "idPhoto is required")
    picture = as_picture(decoded("idPhoto", text))
    tenant = caller.principal.tenant_id
    enrolment = await caller.verbs.enroll(tenant, DEFAULT_GALLERY, picture, if_missing=False)
    return OneToNReply(enrolment.face_id, verification_match=False)


@delete(
    "/api/v1/face/one-to-n/search/{verification_id:str}",
    operation_id="oneToNDelete",
    summary="Erase the stored picture",
    security=BEARER,
    responses=refusals(404, 500, 503),
    status_code=204,
    tags=["uqudo"],
    permissions=(Permission.ERASE,),
)
async def delete_photo(verification_id: FromPath[str], caller: NamedDependency[Caller]) -> None:
    """Delete the stored picture; the features stay and keep answering with this id."""
    try:
        face_id = FaceId(UUID(verification_id))
    except ValueError as error:
        raise errors.NotFoundError("oneToNVerificationId", verification_id) from error
    await caller.verbs.erase(caller.principal.tenant_id, face_id)
