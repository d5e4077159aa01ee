"""The uqudo dialect: token, 1:1 match, 1:N search, insert and delete."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response, Router, delete, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.spec import OpenAPIMediaType, Operation, Reference, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath, JSONBody

from oneton.domain import errors
from oneton.domain.model import DEFAULT_GALLERY, FaceId, Permission
from oneton.edge.pictures import InvalidBase64Error, decode_base64
from oneton.verbs.analyse import Picture
from oneton.verbs.authenticate import Authenticate, Principal
from oneton.verbs.cpu import Cpu
from oneton.verbs.enroll import Enroll
from oneton.verbs.erase import Erase
from oneton.verbs.identify import Identify
from oneton.verbs.verify import Verify

log = structlog.get_logger()

IMAGE_LIMIT_BYTES = 5 * 1024 * 1024
BODY_LIMIT_BYTES = 15 * 1024 * 1024
ACCEPTED = ("image/jpeg", "image/png")
DEFAULT_MATCH_LEVEL = 3


class TokenReply(msgspec.Struct):
    """Source: RFC 6749, section 5.1, and the vendor's `jti`."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    jti: UUID


class MatchRequest(msgspec.Struct):
    """Two pictures in base64; unknown fields are ignored."""

    source_image: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="sourceImage")
    target_image: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="targetImage")
    minimum_match_level: int = msgspec.field(name="minimumMatchLevel", default=DEFAULT_MATCH_LEVEL)


class MatchReply(msgspec.Struct):
    """`match` is `matchLevel` >= the minimum; level 0 is below level 1."""

    match: bool
    match_level: int = msgspec.field(name="matchLevel")


class SearchRequest(msgspec.Struct):
    """A picture in base64; with `insert` it is added when nobody matches."""

    id_photo: str = msgspec.field(name="idPhoto")
    insert: bool = False


class InsertRequest(msgspec.Struct):
    """A picture in base64, under the first of these names that is given."""

    id_photo: str | None = msgspec.field(name="idPhoto", default=None)
    selfie: str | None = None
    image: str | None = None


class OneToNReply(msgspec.Struct):
    """The face record found or added; null when none was."""

    verification_id: FaceId | None = msgspec.field(name="oneToNVerificationId")
    verification_match: bool = msgspec.field(name="oneToNVerificationMatch")


@dataclass(frozen=True)
class Uqudo:
    """The verbs that this dialect translates to."""

    authenticate: Authenticate
    cpu: Cpu
    identify: Identify
    enroll: Enroll
    erase: Erase
    verify: Verify


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and the verbs; one dependency, for Litestar resolves several in a task each."""

    principal: Principal
    verbs: Uqudo


class BadRequestError(Exception):
    """An input that is missing or of a bad format; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


ERRORS: dict[type[errors.OnetonError], tuple[int, str]] = {
    errors.NoFaceError: (400, "FACE_NOT_FOUND"),
    errors.SeveralFacesError: (400, "SEVERAL_FACES"),
    errors.LowQualityError: (400, "FACE_QUALITY"),
    errors.BadImageError: (400, "INVALID_IMAGE"),
    errors.TooLargeError: (413, "IMAGE_TOO_LARGE"),
    errors.UnsupportedTypeError: (415, "UNSUPPORTED_IMAGE_TYPE"),
    errors.ProbeError: (400, "INVALID_IMAGE"),
    errors.NotFoundError: (404, "NOT_FOUND"),
    errors.DimensionError: (500, "INTERNAL_ERROR"),
    errors.ConflictError: (500, "INTERNAL_ERROR"),
    errors.SettingError: (500, "INTERNAL_ERROR"),
    errors.UnauthenticatedError: (401, "invalid_token"),
    errors.ForbiddenError: (403, "access_denied"),
    errors.DeniedError: (401, "invalid_token"),
    errors.BusyError: (503, "BUSY"),
    errors.IndexLoadingError: (503, "BUSY"),
    errors.StoreDownError: (503, "UNAVAILABLE"),
    errors.UnavailableError: (503, "UNAVAILABLE"),
    errors.OnetonError: (500, "INTERNAL_ERROR"),
}
"""Status and code of every error; a class not named here has its parent's."""

REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Payload Too Large",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def status_and_code(error: errors.OnetonError) -> tuple[int, str]:
    """The row of the nearest class in the table."""
    return next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)


def reply_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Put any error into the dialect's form."""
    if isinstance(error, errors.OnetonError):
        return _reply_ours(request, error)
    if isinstance(error, BadRequestError):
        return _spring(request, 400, f"{error.code}: {error}")
    if isinstance(error, RecursionError):
        return _spring(request, 400, "INVALID_INPUT: the JSON is nested too deeply")
    if isinstance(error, HTTPException):
        return _spring(request, error.status_code, _litestar_message(error))
    log.error("request failed", exc_info=error)
    return _spring(request, 500, "INTERNAL_ERROR: the request failed")


def _reply_ours(
    request: Request[Any, Any, Any], error: errors.OnetonError
) -> Response[dict[str, Any]]:
    status, code = status_and_code(error)
    if isinstance(error, errors.DeniedError):
        return _denied(status, code, str(error))
    if status == 500:
        log.error("request failed", error=str(error), kind=type(error).__name__)
        return _spring(request, status, f"{code}: the request failed")
    headers = {}
    if isinstance(error, errors.UnavailableError):
        headers = {"Retry-After": str(error.retry_after_s)}
    return _spring(request, status, f"{code}: {error}", headers)


def _litestar_message(error: HTTPException) -> str:
    if error.status_code == 413:
        return f"BODY_TOO_LARGE: the body is larger than {BODY_LIMIT_BYTES} bytes"
    details = error.extra if isinstance(error.extra, list) else []
    said = "; ".join(str(detail.get("message", "")) for detail in details if detail)
    said = said or error.detail
    if error.status_code == 400:
        code = "MISSING_INPUT" if "missing required field" in said else "INVALID_INPUT"
        return f"{code}: {said}"
    return said


def _spring(
    request: Request[Any, Any, Any],
    status: int,
    message: str,
    headers: dict[str, str] | None = None,
) -> Response[dict[str, Any]]:
    body = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "status": status,
        "error": REASONS.get(status, "Error"),
        "message": message,
        "path": request.url.path,
    }
    return Response(body, status_code=status, headers=headers or {})


def _denied(status: int, code: str, description: str) -> Response[dict[str, Any]]:
    headers = {"WWW-Authenticate": f'Bearer error="{code}"'} if status == 401 else {}
    body = {"error": code, "error_description": description}
    return Response(body, status_code=status, headers=headers)


def make_guard(
    authenticate: Authenticate, cpu: Cpu
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Any]:
    """A guard: it runs before the body is read, so that a stranger's body never is."""

    async def admit(
        connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise errors.UnauthenticatedError("a bearer token is needed")
        principal = await authenticate.check(token.strip())
        structlog.contextvars.bind_contextvars(tenant=str(principal.tenant_id))
        principal.require(*handler.opt["permissions"])
        if handler.opt.get("computes"):
            cpu.check_room()
        connection.state.principal = principal

    return admit


@post("/api/oauth/token", operation_id="token", status_code=200, tags=["uqudo"])
async def issue_token(
    request: Request[Any, Any, Any], verbs: NamedDependency[Uqudo]
) -> Response[Any]:
    """Exchange client credentials for a token that lives 30 minutes.

    Form fields `grant_type=client_credentials`, `client_id` and `client_secret`; the last two may
    come as HTTP Basic authentication instead.
    """
    form = parse_qs((await request.body()).decode("latin-1"), max_num_fields=20)
    fields = {name: values[-1] for name, values in form.items()}
    client = _basic_client(request.headers.get("authorization", ""))
    client_id, secret = client or (fields.get("client_id"), fields.get("client_secret"))
    grant_type = fields.get("grant_type")
    if grant_type is None or client_id is None or secret is None:
        return _oauth_error(400, "invalid_request", "grant_type, client_id, client_secret needed")
    if grant_type != "client_credentials":
        return _oauth_error(400, "unsupported_grant_type", "only client_credentials")
    try:
        token = await verbs.authenticate.issue(client_id, secret)
    except errors.UnauthenticatedError as error:
        return _oauth_error(401, "invalid_client", str(error))
    reply = TokenReply(
        access_token=token.text,
        token_type="bearer",  # noqa: S106 - the kind of token
        expires_in=token.expires_in_s,
        scope=" ".join(token.permissions),
        jti=token.jti,
    )
    return Response(reply, headers={"Cache-Control": "no-store"})


def _basic_client(header: str) -> tuple[str, str] | None:
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(credentials).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return client_id, secret


def _oauth_error(status: int, code: str, description: str) -> Response[dict[str, str]]:
    headers = {"WWW-Authenticate": "Basic"} if status == 401 else {}
    body = {"error": code, "error_description": description}
    return Response(body, status_code=status, headers={**headers, "Cache-Control": "no-store"})


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


def make_router(verbs: Uqudo) -> Router:
    """The dialect's routes."""

    def provide_verbs() -> Uqudo:
        return verbs

    def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return Caller(request.state.principal, verbs)

    return Router(
        "/",
        route_handlers=[
            Router(
                "/",
                route_handlers=[issue_token],
                dependencies={"verbs": Provide(provide_verbs, sync_to_thread=False)},
                request_max_body_size=16 * 1024,
            ),
            Router(
                "/",
                route_handlers=[match_faces, search_face, insert_face, delete_photo],
                guards=[make_guard(verbs.authenticate, verbs.cpu)],
                dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
            ),
        ],
        exception_handlers={Exception: reply_error},
        request_max_body_size=BODY_LIMIT_BYTES,
    )
