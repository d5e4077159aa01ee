"""How the VeriFlow dialect says no: the one table from errors to statuses and codes."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec

from oneton.domain import errors
from oneton.edge.veriflow.wire import Refusal

log = structlog.get_logger()

BODY_LIMIT_BYTES = 15 * 1024 * 1024
NO_FACE = "No face detected in the image"
_OURS = "the request failed"
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_PLACE = re.compile(r"(.*) - at `\$\.([^`]+)`", re.DOTALL)

CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "UNAVAILABLE",
}

ERRORS: dict[type[errors.OnetonError], int] = {
    errors.NoFaceError: 400,
    errors.SeveralFacesError: 400,
    errors.LowQualityError: 400,
    errors.BadImageError: 400,
    errors.TooLargeError: 413,
    errors.UnsupportedTypeError: 400,
    errors.ProbeError: 400,
    errors.NotFoundError: 404,
    errors.DimensionError: 500,
    errors.ConflictError: 500,
    errors.SettingError: 500,
    errors.LicenceError: 500,
    errors.AddressError: 400,
    errors.BadTextError: 400,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.ExpiredKeyError: 403,
    errors.ElsewhereError: 403,
    errors.SuspendedError: 403,
    errors.KeyDestroyedError: 403,
    errors.QuotaError: 403,
    errors.OutOfCreditError: 403,
    errors.DeniedError: 401,
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
"""Status of every error, whose code is its own; a class not named here has its parent's."""


class InvalidError(Exception):
    """An input that is missing or wrong."""


class PictureError(Exception):
    """A picture that cannot be used, of several."""

    def __init__(self, name: str, error: errors.ProbeError) -> None:
        super().__init__(f"{name}: {error}")
        self.error = error


class AbsentError(Exception):
    """A product of the vendor's that is not here."""


def reply_error(_: Request[Any, Any, Any], error: Exception) -> Response[Refusal]:
    """Put any error into the dialect's form."""
    if isinstance(error, PictureError):
        return _refuse(status_of(error.error), str(error))
    if isinstance(error, errors.OnetonError):
        return _reply_ours(error)
    if isinstance(error, InvalidError):
        return _refuse(400, str(error))
    if isinstance(error, AbsentError):
        return _refuse(501, str(error))
    if isinstance(error, HTTPException):
        return _refuse_plainly(error)
    log.error("request failed", exc_info=error)
    return _refuse(500, _OURS)


def status_of(error: errors.OnetonError) -> int:
    """The row of the nearest class in the table."""
    return next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)


def _reply_ours(error: errors.OnetonError) -> Response[Refusal]:
    status = status_of(error)
    headers = {}
    if isinstance(error, errors.NoFaceError):
        return _refuse(status, NO_FACE)
    if status == 500:
        log.error("request failed", error=str(error), kind=type(error).__name__)
        return _refuse(status, _OURS)
    if isinstance(error, errors.UnavailableError):
        headers["Retry-After"] = str(error.retry_after_s)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _refuse(status, str(error), headers)


def _refuse_plainly(error: HTTPException) -> Response[Refusal]:
    if error.status_code == 413:
        return _refuse(413, f"the body is larger than {BODY_LIMIT_BYTES} bytes")
    details = error.extra if isinstance(error.extra, list) else []
    said = "; ".join(f"{each.get('key')}: {each.get('message')}" for each in details if each)
    status = error.status_code if error.status_code in CODES else 400
    headers = {} if error.headers is None else dict(error.headers)
    return _refuse(status, said or error.detail, headers)


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Response[Refusal]:
    return Response(Refusal(CODES[status], message), status_code=status, headers=headers or {})


def plainly(said: str) -> str:
    """What msgspec says of a body, with the field's name before it."""
    if missing := _MISSING.match(said):
        return f"{missing[1]} is required"
    if placed := _PLACE.fullmatch(said):
        return f"{placed[2]}: {placed[1]}"
    return said


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Documents what a call may be refused with."""
    return only_refusal(*statuses, 401, 403, 500, 503)


def only_refusal(*statuses: int) -> dict[int, ResponseSpec]:
    """Documents refusals of a call that needs no token."""
    return {
        status: ResponseSpec(
            Refusal, generate_examples=False, description=HTTPStatus(status).phrase
        )
        for status in sorted(set(statuses))
    }
