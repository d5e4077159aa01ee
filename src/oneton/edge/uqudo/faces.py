"""The face calls: 1:1 match, 1:N search, insert and delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, delete, post
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, Operation, Reference, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath, JSONBody

from oneton.domain import errors
from oneton.domain.model import DEFAULT_GALLERY, FaceId, Permission
from oneton.edge.pictures import InvalidBase64Error, decode_base64
from oneton.edge.platform import Platform
from oneton.edge.uqudo.refusals import BadRequestError, refusals
from oneton.edge.uqudo.wire import (
    DEFAULT_MATCH_LEVEL,
    InsertRequest,
    MatchReply,
    MatchRequest,
    OneToNReply,
    SearchRequest,
)
from oneton.verbs.analyse import Picture
from oneton.verbs.authenticate import Principal

IMAGE_LIMIT_BYTES = 5 * 1024 * 1024
ACCEPTED = ("image/jpeg", "image/png")
BEARER = [{"token": list[str]()}]


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and the verbs; one dependency, for Litestar resolves several in a task each."""

    principal: Principal
    verbs: Platform


@dataclass
class MatchOperation(Operation):
    """Documents the two forms that the match call reads by itself."""

    def __post_init__(self) -> None:
        picture = Schema(type=OpenAPIType.STRING, content_encoding="base64")
        level = Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=5, default=3)
        schema: Schema | Reference = Schema(
            type=OpenAPIType.OBJECT,
            required=["sourceImage", "targetImage"],
            properties={
                "sourceImage": picture,
                "targetImage": picture,
                "minimumMatchLevel": level,
            },
        )
        media = OpenAPIMediaType(schema=schema)
        self.request_body = RequestBody(
            required=True, content={"application/json": media, "multipart/form-data": media}
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
    if request.content_type[0] == "multipart/form-data":
        source, target, minimum = await _match_form(request)
    else:
        try:
            asked = msgspec.json.decode(await request.body(), type=MatchRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            code = "MISSING_INPUT" if "missing required field" in str(error) else "INVALID_INPUT"
            raise BadRequestError(code, str(error)) from error
        source = _decoded("sourceImage", asked.source_image)
        target = _decoded("targetImage", asked.target_image)
        minimum = asked.minimum_match_level
    if not 1 <= minimum <= 5:
        raise BadRequestError("INVALID_MATCH_LEVEL", "minimumMatchLevel must be 1 to 5")
    found = await caller.verbs.verify(_picture(source), _picture(target))
    return MatchReply(match=found.match_level >= minimum, match_level=found.match_level)


async def _match_form(request: Request[Any, Any, Any]) -> tuple[bytes, bytes, int]:
    form = await request.form()
    pictures = []
    for name in ("sourceImage", "targetImage"):
        part = form.get(name)
        if part is None:
            raise BadRequestError("MISSING_INPUT", f"{name} is required")
        pictures.append(_decoded(name, part) if isinstance(part, str) else await part.read())
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
    picture = _picture(_decoded("idPhoto", data.id_photo))
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
    picture = _picture(_decoded("idPhoto", text))
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


def _decoded(name: str, text: str) -> bytes:
    if not text:
        raise BadRequestError("MISSING_INPUT", f"{name} is empty")
    if len(text) > 2 * IMAGE_LIMIT_BYTES:
        raise errors.TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES)
    try:
        return decode_base64(text)
    except InvalidBase64Error as error:
        raise BadRequestError("INVALID_BASE64", f"{name}: {error}") from error


def _picture(data: bytes) -> Picture:
    if len(data) > IMAGE_LIMIT_BYTES:
        raise errors.TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES)
    return Picture(data, accepted=ACCEPTED)
