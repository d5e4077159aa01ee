"""How Trustmatic's dialect says no: in the body, with the few codes that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec
from msgspec import UNSET

from oneton.domain import errors
from oneton.edge.face_verify.wire import ErrorReply, NotJsonError, SessionIdError

log = structlog.get_logger()

INTERNAL = "INTERNAL_ERROR"
_MISSING, _NO_FACE = "MISSING_{}_IMAGE", "{}_FACE_NOT_FOUND"

ERRORS: dict[type[errors.OnetonError], tuple[int, str]] = {
    errors.NoFaceError: (200, _NO_FACE),
    errors.SeveralFacesError: (200, _NO_FACE),
    errors.LowQualityError: (200, _NO_FACE),
    errors.BadImageError: (200, _MISSING),
    errors.TooLargeError: (413, _MISSING),
    errors.UnsupportedTypeError: (200, _MISSING),
    errors.ProbeError: (200, _MISSING),
    errors.NotFoundError: (404, INTERNAL),
    errors.DimensionError: (500, INTERNAL),
    errors.ConflictError: (500, INTERNAL),
    errors.SettingError: (500, INTERNAL),
    errors.LicenceError: (500, INTERNAL),
    errors.AddressError: (500, INTERNAL),
    errors.BadTextError: (400, INTERNAL),
    errors.UnauthenticatedError: (401, "UNAUTHORIZED"),
    errors.ForbiddenError: (403, "UNAUTHORIZED"),
    errors.ExpiredKeyError: (403, "UNAUTHORIZED"),
    errors.ElsewhereError: (403, "UNAUTHORIZED"),
    errors.SuspendedError: (403, "UNAUTHORIZED"),
    errors.KeyDestroyedError: (403, "UNAUTHORIZED"),
    errors.QuotaError: (403, "UNAUTHORIZED"),
    errors.OutOfCreditError: (403, "UNAUTHORIZED"),
    errors.DeniedError: (401, "UNAUTHORIZED"),
    errors.RateLimitedError: (429, INTERNAL),
    errors.DayQuotaError: (429, INTERNAL),
    errors.BusyError: (503, INTERNAL),
    errors.IndexLoadingError: (503, INTERNAL),
    errors.SnapshotError: (503, INTERNAL),
    errors.StoreDownError: (503, INTERNAL),
    errors.UnavailableError: (503, INTERNAL),
    errors.SealBrokenError: (500, INTERNAL),
    errors.OnetonError: (500, INTERNAL),
}
"""Status and code of every error; a class not named here has its parent's. `{}` is the picture."""


class PictureError(Exception):
    """One of a call's pictures cannot be used.

    Args:
        picture: PROBE, REFERENCE, or nothing where a call has one picture.
    """

    def __init__(self, picture: str, why: errors.ProbeError) -> None:
        super().__init__(str(why))
        self.picture = picture
        self.why = why


class NoModelError(Exception):
    """There is no liveness model."""


_OTHERS: dict[type[Exception], int] = {NotJsonError: 400, SessionIdError: 200, NoModelError: 501}


def status_and_code(error: errors.OnetonError) -> tuple[int, str]:
    """The row of the nearest class in the table."""
    return next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)


def reply_error(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorReply]:
    """Put any error into the dialect's form."""
    headers: dict[str, str] = {}
    if isinstance(error, PictureError):
        status, code = status_and_code(error.why)
        code = code.format(error.picture or "PROBE")
        if code == _NO_FACE.format("PROBE") and not error.picture:
            code = "FACE_NOT_FOUND"
    elif isinstance(error, errors.OnetonError):
        status, code = status_and_code(error)
        code = code.format("PROBE")
        if isinstance(error, errors.UnavailableError):
            headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, HTTPException):
        status, code = error.status_code, INTERNAL
    else:
        status, code = _OTHERS.get(type(error), 500), INTERNAL
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="face"'
    if status == 500:
        log.error("request failed", exc_info=error)
    structlog.contextvars.bind_contextvars(error_code=code)
    said = ErrorReply(code, request.state.get("session_id", UNSET))
    return Response(said, status_code=status, headers=headers)


def make_reply(
    *, as_200: bool
) -> Callable[[Request[Any, Any, Any], Exception], Response[ErrorReply]]:
    """The same; with `as_200` for clients that read no body of a failed call."""

    def reply(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorReply]:
        said = reply_error(request, error)
        if as_200 and said.status_code == 500:
            said.status_code = 200
        return said

    return reply


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Documents what a call may be refused with, besides errors that come with 200."""
    return {
        status: ResponseSpec(ErrorReply, generate_examples=False, description=_REASONS[status])
        for status in sorted({*statuses, 400, 401, 403, 413, 415, 429, 500, 503})
    }


_REASONS = {
    400: "The body is not JSON",
    401: "Wrong credentials",
    403: "The key may not",
    413: "Too large",
    415: "Not JSON by its content type",
    429: "Too many calls",
    500: "Internal fault",
    501: "There is no liveness model",
    503: "Try again",
}
