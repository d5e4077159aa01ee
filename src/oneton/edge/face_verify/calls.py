"""Trustmatic's calls: 1:1 comparison, and liveness of one picture. Nothing is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType

from oneton.domain import errors
from oneton.domain.model import Analysis, Permission
from oneton.edge.aliases import aliased
from oneton.edge.face_verify.refusals import NoModelError, PictureError, refusals
from oneton.edge.face_verify.wire import (
    VerifyReply,
    VerifyRequest,
    decoded,
    image_of,
    read_request,
    session_id_of,
)
from oneton.edge.platform import Platform
from oneton.verbs.analyse import Picture

IMAGE_LIMIT_BYTES = 10 * 1024 * 1024
LIMIT_SIDE = 8000
LEAST_FACE_PX = 40
ACCEPTED = ("image/jpeg", "image/png", "image/webp", "image/bmp")
VERIFY = ("/api/v1/face/verify", "/api/v1/id-verifications/face/verify")
BASIC = [{"basic": list[str]()}]


class Caller(msgspec.Struct, frozen=True):
    """The verbs; who asks has no further part in it, for nothing is kept."""

    verbs: Platform


_TEXT = Schema(type=OpenAPIType.STRING)
_IMAGE = Schema(type=OpenAPIType.STRING, content_encoding="base64")
_HOLDER = Schema(
    type=OpenAPIType.OBJECT, required=["imageBase64"], properties={"imageBase64": _IMAGE}
)


@dataclass
class VerifyOperation(Operation):
    """Documents the body that the call reads by itself."""

    def __post_init__(self) -> None:
        self.request_body = _body({"probe": _HOLDER, "reference": _HOLDER})


@dataclass
class LivenessOperation(Operation):
    """Likewise."""

    def __post_init__(self) -> None:
        self.request_body = _body({"faceImageBase": _IMAGE})


def _body(pictures: dict[str, Schema]) -> RequestBody:
    schema = Schema(
        type=OpenAPIType.OBJECT,
        required=list(pictures),
        properties={"sessionId": _TEXT, **pictures},
    )
    return RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=schema)})


@post(
    list(VERIFY),
    operation_id=aliased("faceVerify", *VERIFY),
    summary="Compare two faces",
    security=BASIC,
    responses=refusals(),
    operation_class=VerifyOperation,
    status_code=200,
    permissions=(Permission.MATCH,),
    computes=True,
)
async def verify_faces(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> VerifyReply:
    """Score the largest faces of two pictures, 0 to 100; what passes is the caller's to say.

    Errors come with status 200 and `hasError`, unless the call itself could not be carried out.
    """
    asked = await _read(request)
    session_id = request.state.session_id = session_id_of(asked)
    structlog.contextvars.bind_contextvars(session_id=session_id)
    probe = _picture("PROBE", image_of(asked.probe))
    reference = _picture("REFERENCE", image_of(asked.reference))
    if not probe.data:
        raise PictureError("PROBE", errors.BadImageError("there is none"))
    found = await caller.verbs.verify.outcomes(request.state.principal.tenant_id, probe, reference)
    sides = (("PROBE", found.source), ("REFERENCE", found.target))
    for name, side in sides:
        if isinstance(side, errors.ProbeError) and not isinstance(side, errors.NoFaceError):
            raise PictureError(name, side)
    for name, side in sides:
        if not _has_face(side):
            raise PictureError(name, errors.NoFaceError())
    assert found.verification is not None
    decimals = 2 if caller.verbs.settings.face_verify_decimals else 0
    return VerifyReply(session_id, round_half_up(found.verification.score, decimals))


@post(
    "/api/v1/face/liveness",
    operation_id="faceLiveness",
    summary="Assess the liveness of one picture",
    security=BASIC,
    responses=refusals(501),
    operation_class=LivenessOperation,
    status_code=200,
    permissions=(Permission.MATCH,),
    computes=True,
)
async def assess_liveness(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> VerifyReply:
    """How sure it is that the face is a living person's, 0 to 1; 501 without a liveness model."""
    asked = await _read(request)
    session_id = request.state.session_id = session_id_of(asked)
    structlog.contextvars.bind_contextvars(session_id=session_id)
    if caller.verbs.settings.liveness is None:
        raise NoModelError
    picture = _picture("", decoded(asked.face_image_base), liveness=True)
    try:
        found = await caller.verbs.verify.analyse(picture)
    except errors.ProbeError as error:
        raise PictureError("", error) from error
    if not _has_face(found):
        raise PictureError("", errors.NoFaceError())
    assert found.liveness is not None
    return VerifyReply(session_id, round_half_up(found.liveness, 7))


async def _read(request: Request[Any, Any, Any]) -> VerifyRequest:
    """Size, content type, JSON: in this order."""
    body = await request.body()
    kind, options = request.content_type
    charset = options.get("charset", "utf-8").lower()
    if kind not in ("", "application/json") or charset not in ("utf-8", "utf8"):
        raise HTTPException(status_code=415, detail="only application/json")
    return read_request(body)


def _picture(name: str, data: bytes, *, liveness: bool = False) -> Picture:
    if len(data) > IMAGE_LIMIT_BYTES:
        raise PictureError(name, errors.TooLargeError(limit_bytes=IMAGE_LIMIT_BYTES))
    return Picture(data, accepted=ACCEPTED, liveness=liveness, limit_side=LIMIT_SIDE)


def _has_face(side: Analysis | errors.ProbeError) -> bool:
    return isinstance(side, Analysis) and side.faces[0].quality.size_px >= LEAST_FACE_PX


def round_half_up(score: float, decimals: int) -> float:
    """A whole number, as an `int`, without decimals."""
    power: int = 10**decimals
    scaled = math.floor(score * power + 0.5)
    return scaled / power if decimals else scaled
