"""How the uqudo dialect says no: the one table from errors to statuses and codes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec

from oneton.domain import errors
from oneton.edge.uqudo.wire import ErrorReply, OAuthErrorReply

log = structlog.get_logger()

BODY_LIMIT_BYTES = 15 * 1024 * 1024


class BadRequestError(Exception):
    """An input that is missing or of a bad format, or that comes too late; `code` is stable."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


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
    errors.LicenceError: (500, "INTERNAL_ERROR"),
    errors.AddressError: (500, "INTERNAL_ERROR"),
    errors.BadTextError: (400, "INVALID_INPUT"),
    errors.UnauthenticatedError: (401, "invalid_token"),
    errors.ForbiddenError: (403, "access_denied"),
    errors.ExpiredKeyError: (403, "access_denied"),
    errors.ElsewhereError: (403, "access_denied"),
    errors.SuspendedError: (403, "access_denied"),
    errors.KeyDestroyedError: (403, "access_denied"),
    errors.QuotaError: (403, "access_denied"),
    errors.OutOfCreditError: (403, "access_denied"),
    errors.DeniedError: (401, "invalid_token"),
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

REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Payload Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
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
        return _spring(request, error.status, f"{error.code}: {error}")
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


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Documents what a call may be refused with."""
    said: dict[int, type[ErrorReply | OAuthErrorReply]] = {
        **dict.fromkeys((*statuses, 429), ErrorReply),
        **dict.fromkeys((401, 403), OAuthErrorReply),
    }
    return {
        status: ResponseSpec(kind, generate_examples=False, description=REASONS[status])
        for status, kind in sorted(said.items())
    }
