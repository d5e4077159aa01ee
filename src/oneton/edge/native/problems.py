"""How the native API says no: RFC 9457 problem details with stable codes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from oneton.domain import errors

log = structlog.get_logger()


class Problem(msgspec.Struct, omit_defaults=True):
    """Source: RFC 9457.

    Attributes:
        code: stable; the title and the detail are for people.
    """

    status: int
    title: str
    code: str
    detail: str
    type: str = "about:blank"


ERRORS: dict[type[errors.OnetonError], tuple[int, str]] = {
    errors.NoFaceError: (422, "no_face"),
    errors.SeveralFacesError: (422, "several_faces"),
    errors.LowQualityError: (422, "low_quality"),
    errors.BadImageError: (422, "bad_image"),
    errors.TooLargeError: (413, "too_large"),
    errors.UnsupportedTypeError: (415, "unsupported_type"),
    errors.ProbeError: (422, "bad_image"),
    errors.NotFoundError: (404, "not_found"),
    errors.DimensionError: (409, "conflict"),
    errors.ConflictError: (409, "conflict"),
    errors.SettingError: (500, "internal"),
    errors.LicenceError: (500, "internal"),
    errors.UnauthenticatedError: (401, "unauthenticated"),
    errors.ForbiddenError: (403, "forbidden"),
    errors.OutOfCreditError: (403, "out_of_credit"),
    errors.DeniedError: (401, "unauthenticated"),
    errors.RateLimitedError: (429, "rate_limited"),
    errors.BusyError: (503, "busy"),
    errors.IndexLoadingError: (503, "busy"),
    errors.SnapshotError: (503, "busy"),
    errors.StoreDownError: (503, "unavailable"),
    errors.UnavailableError: (503, "unavailable"),
    errors.OnetonError: (500, "internal"),
}
"""Status and code of every error; a class not named here has its parent's."""


def reply_problem(_: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Put any error into problem details."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.OnetonError):
        status, code = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
        detail = str(error)
        if isinstance(error, errors.UnavailableError):
            headers["Retry-After"] = str(error.retry_after_s)
        if status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, HTTPException):
        status, code, detail = error.status_code, "bad_request", error.detail
    else:
        status, code, detail = 500, "internal", "an error of ours; the log says more"
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("a request failed", exc_info=error)
        detail = "an error of ours; the log says more"
    problem = Problem(status, HTTPStatus(status).phrase, code, detail)
    return Response(
        problem, status_code=status, headers=headers, media_type="application/problem+json"
    )
