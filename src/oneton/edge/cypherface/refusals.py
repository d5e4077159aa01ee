"""How CypherFace's dialect says no: the tables from errors to statuses and codes."""

from __future__ import annotations

import re
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec

from oneton.domain import errors
from oneton.domain.merchants import Refusal
from oneton.edge.cypherface.wire import ErrorReply

log = structlog.get_logger()

ERRORS: dict[type[errors.OnetonError], tuple[int, str]] = {
    errors.NoFaceError: (422, "FACE_NOT_FOUND"),
    errors.SeveralFacesError: (422, "SEVERAL_FACES"),
    errors.LowQualityError: (422, "FACE_QUALITY"),
    errors.BadImageError: (400, "INVALID_IMAGE"),
    errors.TooLargeError: (413, "IMAGE_TOO_LARGE"),
    errors.UnsupportedTypeError: (400, "UNSUPPORTED_IMAGE_TYPE"),
    errors.ProbeError: (400, "INVALID_IMAGE"),
    errors.NotFoundError: (404, "NOT_FOUND"),
    errors.DimensionError: (500, "INTERNAL_ERROR"),
    errors.ConflictError: (409, "CONFLICT"),
    errors.SettingError: (500, "INTERNAL_ERROR"),
    errors.LicenceError: (500, "INTERNAL_ERROR"),
    errors.AddressError: (500, "INTERNAL_ERROR"),
    errors.BadTextError: (400, "BAD_REQUEST"),
    errors.UnauthenticatedError: (401, "UNAUTHORIZED"),
    errors.ForbiddenError: (403, "FORBIDDEN"),
    errors.ExpiredKeyError: (403, "FORBIDDEN"),
    errors.ElsewhereError: (403, "FORBIDDEN"),
    errors.SuspendedError: (403, "FORBIDDEN"),
    errors.KeyDestroyedError: (403, "FORBIDDEN"),
    errors.QuotaError: (403, "FORBIDDEN"),
    errors.OutOfCreditError: (403, "FORBIDDEN"),
    errors.DeniedError: (401, "UNAUTHORIZED"),
    errors.RateLimitedError: (429, "RATE_LIMITED"),
    errors.DayQuotaError: (429, "RATE_LIMITED"),
    errors.BusyError: (503, "BUSY"),
    errors.IndexLoadingError: (503, "BUSY"),
    errors.SnapshotError: (503, "BUSY"),
    errors.StoreDownError: (503, "UNAVAILABLE"),
    errors.UnavailableError: (503, "UNAVAILABLE"),
    errors.SealBrokenError: (500, "INTERNAL_ERROR"),
    errors.OnetonError: (500, "INTERNAL_ERROR"),
}
"""Status and code of every error; a class not named here has its parent's."""

REFUSALS: dict[Refusal, int] = {
    Refusal.ALREADY_PROCESSED: 409,
    Refusal.SOURCE_IMAGE_MISSING: 422,
    Refusal.TARGET_IMAGE_MISSING: 422,
    Refusal.FRAME_MISSING: 422,
    Refusal.LINK_INVALID: 403,
    Refusal.LINK_EXPIRED: 403,
    Refusal.LINK_USED: 403,
}
"""Status of every step out of order; the code is its name."""

_KNOWN = {"user": "USER_NOT_FOUND", "session": "SESSION_NOT_FOUND", "merchant": "NOT_FOUND"}
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "TOO_LARGE",
    422: "UNPROCESSABLE",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "UNAVAILABLE",
}
_MISSING = re.compile(r"Object missing required field `(\w+)`.*")


class RefusedError(Exception):
    """A refusal that no verb raises."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def refused(why: Refusal) -> RefusedError:
    """A verb's refusal, to be raised."""
    return RefusedError(REFUSALS[why], why.name, str(why))


def reply_error(_: Request[Any, Any, Any], error: Exception) -> Response[ErrorReply]:
    """Put any error into the dialect's form."""
    headers: dict[str, str] = {}
    said = str(error)
    if isinstance(error, errors.OnetonError):
        status, code = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
        if isinstance(error, errors.NotFoundError):
            code = _KNOWN.get(error.kind, code)
            said = f"{error.kind} not found"
        if isinstance(error, errors.UnavailableError):
            headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, RefusedError):
        status, code = error.status, error.code
    elif isinstance(error, RecursionError):
        status, code, said = 400, "BAD_REQUEST", "the JSON is nested too deeply"
    elif isinstance(error, HTTPException):
        status, said = error.status_code, _litestar_message(error)
        code = _CODES.get(status, "BAD_REQUEST")
    else:
        status, code = 500, "INTERNAL_ERROR"
    if status == 500:
        log.error("request failed", exc_info=error)
        said = "the request failed"
    return Response(ErrorReply(said, code), status_code=status, headers=headers)


def _litestar_message(error: HTTPException) -> str:
    details = error.extra if isinstance(error.extra, list) else []
    said = "; ".join(str(detail.get("message", "")) for detail in details if detail)
    said = said or error.detail
    missing = _MISSING.search(said)
    return f"{missing[1]} is required" if missing else said


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Documents what a call may be refused with."""
    return {
        status: ResponseSpec(ErrorReply, generate_examples=False, description=_CODES[status])
        for status in sorted({*statuses, 400, 413, 429, 500, 503})
    }
