"""How the Didit dialect says no: the one table from errors to statuses."""

from __future__ import annotations

from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from oneton.domain import errors

log = structlog.get_logger()

BODY_LIMIT_BYTES = 12 * 1024 * 1024
NOT_ALLOWED = "You do not have permission to perform this action."
_OURS = "A server error occurred."


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
    errors.UnauthenticatedError: 403,
    errors.ForbiddenError: 403,
    errors.OutOfCreditError: 403,
    errors.DeniedError: 403,
    errors.RateLimitedError: 429,
    errors.BusyError: 503,
    errors.IndexLoadingError: 503,
    errors.SnapshotError: 503,
    errors.StoreDownError: 503,
    errors.UnavailableError: 503,
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
    if isinstance(error, RecursionError):
        return _detail(400, "The JSON is nested too deeply.")
    if isinstance(error, HTTPException):
        said = "Not found." if error.status_code == 404 else error.detail
        return _detail(error.status_code, said)
    log.error("request failed", exc_info=error)
    return _detail(500, _OURS)


def _reply_ours(
    request: Request[Any, Any, Any], error: errors.OnetonError
) -> Response[dict[str, Any]]:
    status = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    if isinstance(error, errors.NoFaceError):
        return Response({"error": "No face detected in the image"}, status_code=status)
    if isinstance(error, errors.ProbeError):
        return Response({"user_image": [str(error)]}, status_code=status)
    if isinstance(error, errors.OutOfCreditError):
        return _detail(status, "You do not have enough credits.")
    if isinstance(error, errors.DeniedError):
        strict = request.app.state.get("didit_401", False)
        if strict and isinstance(error, errors.UnauthenticatedError):
            return _detail(401, "The key is not valid.")
        return _detail(status, NOT_ALLOWED)
    if isinstance(error, errors.RateLimitedError):
        wait_s = error.retry_after_s
        said = f"Request was throttled. Expected available in {wait_s} seconds."
        return _detail(status, said, {"Retry-After": str(wait_s)})
    if status == 404:
        return _detail(status, "Not found.")
    if status == 500:
        log.error("request failed", error=str(error), kind=type(error).__name__)
        return _detail(status, _OURS)
    headers = {}
    if isinstance(error, errors.UnavailableError):
        headers = {"Retry-After": str(error.retry_after_s)}
    return _detail(status, str(error), headers)


def _detail(
    status: int, said: str, headers: dict[str, str] | None = None
) -> Response[dict[str, Any]]:
    return Response({"detail": said}, status_code=status, headers=headers or {})
