"""How the Didit dialect says no: the one table from errors to statuses."""

from __future__ import annotations

import re
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from oneton.domain import errors

log = structlog.get_logger()

BODY_LIMIT_BYTES = 12 * 1024 * 1024
NOT_ALLOWED = "You do not have permission to perform this action."
_OURS = "A server error occurred."
_MISSING = re.compile(r"missing required field `([^`]+)`")


class FieldError(Exception):
    """A field that is missing or wrong, in the form of Django REST."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class PlainError(Exception):
    """400 with `{"error": ...}`, as of a picture without a face."""


ERRORS: dict[type[errors.OnetonError], int] = {
    errors.NoFaceError: 400,
    errors.SeveralFacesError: 400,
    errors.LowQualityError: 400,
    errors.BadImageError: 400,
    errors.TooLargeError: 400,
    errors.UnsupportedTypeError: 400,
    errors.ProbeError: 400,
    errors.NotFoundError: 404,
    errors.DimensionError: 500,
    errors.ConflictError: 400,
    errors.SettingError: 500,
    errors.LicenceError: 500,
    errors.AddressError: 400,
    errors.BadTextError: 400,
    errors.UnauthenticatedError: 403,
    errors.ForbiddenError: 403,
    errors.ExpiredKeyError: 403,
    errors.ElsewhereError: 403,
    errors.SuspendedError: 403,
    errors.KeyDestroyedError: 403,
    errors.QuotaError: 403,
    errors.OutOfCreditError: 403,
    errors.DeniedError: 403,
    errors.RateLimitedError: 429,
    errors.DayQuotaError: 429,
    errors.BusyError: 503,
    errors.IndexLoadingError: 503,
    errors.SnapshotError: 503,
    errors.StoreDownError: 503,
    errors.UnavailableError: 503,
    errors.SealBrokenError: 500,
    errors.OnetonError: 500,
}
"""Status of every error; a class not named here has its parent's."""


def reply_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Put any error into the dialect's form."""
    if isinstance(error, errors.OnetonError):
        return _reply_ours(request, error)
    if isinstance(error, FieldError):
        return Response({error.field: [str(error)]}, status_code=400)
    if isinstance(error, PlainError):
        return Response({"error": str(error)}, status_code=400)
    return _reply_litestar(error)


def _reply_litestar(error: Exception) -> Response[dict[str, Any]]:
    """An error that came up before a handler was called, or that nobody thought of."""
    if isinstance(error, RecursionError):
        return _detail(400, "The JSON is nested too deeply.")
    if isinstance(error, UnicodeDecodeError):
        return _detail(400, "JSON parse error: it is not UTF-8.")
    if not isinstance(error, HTTPException):
        log.error("request failed", exc_info=error)
        return _detail(500, _OURS)
    if error.status_code == 400 and error.extra:
        return Response(_wrong_fields(error), status_code=400)
    said = "Not found." if error.status_code == 404 else error.detail
    return _detail(error.status_code, said)


def _reply_ours(
    request: Request[Any, Any, Any], error: errors.OnetonError
) -> Response[dict[str, Any]]:
    status = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    if isinstance(error, errors.ProbeError):
        return _reply_probe(status, error)
    if isinstance(error, errors.AddressError):
        return Response({"url": [str(error)]}, status_code=status)
    if isinstance(error, errors.DeniedError):
        return _reply_denied(request, status, error)
    if isinstance(error, errors.UnavailableError):
        return _reply_unavailable(status, error)
    if status == 500:
        log.error("request failed", error=str(error), kind=type(error).__name__)
        return _detail(status, _OURS)
    return _detail(status, "Not found." if status == 404 else str(error))


def _reply_probe(status: int, error: errors.ProbeError) -> Response[dict[str, Any]]:
    if isinstance(error, errors.NoFaceError):
        return Response({"error": "No face detected in the image"}, status_code=status)
    return Response({"user_image": [str(error)]}, status_code=status)


def _reply_denied(
    request: Request[Any, Any, Any], status: int, error: errors.DeniedError
) -> Response[dict[str, Any]]:
    if isinstance(error, errors.OutOfCreditError):
        return _detail(status, "You do not have enough credits.")
    if isinstance(error, errors.QuotaError):
        return _detail(status, "Your application has as many faces as it may.")
    # That a key is wrong, not that there is none, is what the newer keys' 401 says.
    strict = request.app.state.get("didit_401", False) and request.headers.get("x-api-key")
    if strict and isinstance(error, errors.UnauthenticatedError):
        return _detail(401, "The key is not valid.")
    return _detail(status, NOT_ALLOWED)


def _reply_unavailable(status: int, error: errors.UnavailableError) -> Response[dict[str, Any]]:
    said, wait_s = str(error), error.retry_after_s
    if isinstance(error, errors.RateLimitedError):
        said = f"Request was throttled. Expected available in {wait_s} seconds."
    return _detail(status, said, {"Retry-After": str(wait_s)})


def _wrong_fields(error: HTTPException) -> dict[str, Any]:
    """What Litestar says of a body or a query, in the form of Django REST."""
    found: dict[str, list[str]] = {}
    for each in error.extra if isinstance(error.extra, list) else []:
        said, field = str(each.get("message", "")), str(each.get("key", ""))
        if missing := _MISSING.search(said):
            said, field = "This field is required.", missing[1]
        if said == "'data'":
            return {"detail": "JSON parse error: the body is empty."}
        field = "non_field_errors" if field in ("", "data") else field
        found.setdefault(field, []).append(said)
    return found or {"detail": error.detail}


def _detail(
    status: int, said: str, headers: dict[str, str] | None = None
) -> Response[dict[str, Any]]:
    return Response({"detail": said}, status_code=status, headers=headers or {})
