"""How the native API says no: RFC 9457 problem details with stable codes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec

from oneton.domain import errors

log = structlog.get_logger()

DENIED = "denied"
"""Name in a request's state of whether it was refused for who asks, and not for what."""
PROBLEM_TYPE = "application/problem+json"
OURS = "an error of ours; the log says more"


class Fault(msgspec.Struct, frozen=True):
    """One field that cannot be used.

    Attributes:
        field: its place, such as `quality_floor.size_px`, a parameter's or a header's name.
        code: stable; `invalid_input`, or a picture's.
    """

    field: str
    code: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Source: RFC 9457.

    Attributes:
        code: stable; the title and the detail are for people.
        errors: which fields it is about, when it is about fields.
    """

    status: int
    title: str
    code: str
    detail: str
    # Made, for a default that is written down here would be left out.
    type: str = msgspec.field(default_factory=lambda: "about:blank")
    errors: tuple[Fault, ...] = ()


class InvalidInputError(Exception):
    """A field, parameter or header that is missing or of a bad form."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.faults = (Fault(field, "invalid_input", detail),) if field else ()


class PictureError(Exception):
    """Pictures that cannot be used, by the field that they came in; at least one."""

    def __init__(self, causes: Mapping[str, errors.ProbeError]) -> None:
        self.cause = next(iter(causes.values()))
        super().__init__("; ".join(f"{field}: {cause}" for field, cause in causes.items()))
        self.faults = tuple(
            Fault(field, status_and_code(cause)[1], str(cause)) for field, cause in causes.items()
        )


class ReusedKeyError(Exception):
    """An idempotency key came with another call than before."""


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
    errors.AddressError: (422, "refused_address"),
    errors.BadTextError: (400, "invalid_input"),
    errors.UnauthenticatedError: (401, "unauthenticated"),
    errors.ForbiddenError: (403, "forbidden"),
    errors.ExpiredKeyError: (403, "key_expired"),
    errors.ElsewhereError: (403, "address_not_allowed"),
    errors.SuspendedError: (403, "suspended"),
    errors.KeyDestroyedError: (403, "forbidden"),
    errors.QuotaError: (403, "quota_exceeded"),
    errors.OutOfCreditError: (403, "out_of_credit"),
    errors.DeniedError: (401, "unauthenticated"),
    errors.RateLimitedError: (429, "rate_limited"),
    errors.DayQuotaError: (429, "quota_exceeded"),
    errors.BusyError: (503, "busy"),
    errors.IndexLoadingError: (503, "busy"),
    errors.SnapshotError: (503, "busy"),
    errors.StoreDownError: (503, "unavailable"),
    errors.UnavailableError: (503, "unavailable"),
    errors.SealBrokenError: (500, "internal"),
    errors.OnetonError: (500, "internal"),
}
"""Status and code of every error; a class not named here has its parent's."""

CODES = {
    400: "invalid_input",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_type",
}
"""Of what Litestar refuses by itself."""
_ARGUMENTS = {"in_state": "state"}
"""Parameters whose own name is taken in a handler."""

_ALWAYS = (400, 401, 403, 500, 503)
_POSTED = (409, 413, 415)


def status_and_code(error: errors.OnetonError) -> tuple[int, str]:
    """The row of the nearest class in the table."""
    return next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)


def reply_problem(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Put any error into problem details."""
    headers: dict[str, str] = {}
    faults: tuple[Fault, ...] = ()
    detail = str(error)
    if isinstance(error, errors.DeniedError):
        request.state[DENIED] = True
    if isinstance(error, errors.OnetonError):
        status, code = status_and_code(error)
        if isinstance(error, errors.UnavailableError):
            headers["Retry-After"] = str(error.retry_after_s)
        if status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, PictureError):
        (status, code), faults = status_and_code(error.cause), error.faults
    elif isinstance(error, InvalidInputError):
        status, code, faults = 400, "invalid_input", error.faults
    elif isinstance(error, ReusedKeyError):
        status, code = 409, "idempotency_conflict"
    elif isinstance(error, RecursionError):
        status, code, detail = 400, "invalid_input", "the JSON is nested too deeply"
    elif isinstance(error, HTTPException):
        status, code = error.status_code, CODES.get(error.status_code, "bad_request")
        faults = _faults(error)
        detail = "; ".join(f"{each.field}: {each.detail}" for each in faults) or error.detail
    else:
        status, code = 500, "internal"
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("a request failed", exc_info=error)
        detail = OURS
    problem = Problem(status, HTTPStatus(status).phrase, code, detail, errors=faults)
    return Response(problem, status_code=status, headers=headers, media_type=PROBLEM_TYPE)


def _faults(error: HTTPException) -> tuple[Fault, ...]:
    said = error.extra if isinstance(error.extra, list) else []
    return tuple(
        Fault(_ARGUMENTS.get(each["key"], each["key"]), CODES[400], str(each["message"]))
        for each in said
        if "key" in each
    )


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Documents what a call may be refused with, beside what any may."""
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description=HTTPStatus(status).phrase,
            media_type=PROBLEM_TYPE,
        )
        for status in sorted({*statuses, *_ALWAYS})
    }


def post_refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """The same of a call with a body, and an idempotency key."""
    return refusals(*_POSTED, *statuses)
