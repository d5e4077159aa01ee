"""Every error that the client raises on purpose, branched by what the caller does next.

OnetonClientError
├── ConnectionFailedError       no answer came; the server, the network or a timeout
├── UnexpectedReplyError        an answer came that is none of this API's
├── JobFailedError              a job that was waited for failed
├── JobTimeoutError             it goes on, but the wait is over
└── ApiError                    the server said no, and why
    ├── InvalidInputError       a field is missing or of a bad form
    ├── UnauthenticatedError    the key is unknown, revoked or over
    ├── ForbiddenError          the key may not, or not from here
    ├── NotFoundError           no such gallery, face record, request or job
    ├── ConflictError           already there, or in use
    ├── BadProbeError           send another picture
    │   ├── NoFaceError
    │   └── SeveralFacesError
    ├── RateLimitedError        too many calls; `retry_after_s` says when again
    ├── UnavailableError        try again; `retry_after_s` says when
    └── ServerError             an error of the server's; its log says more
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from oneton.client.answers import Fault, Job


class OnetonClientError(Exception):
    """The root."""


class ConnectionFailedError(OnetonClientError):
    """No answer came, after every try; a change may have been made all the same."""


class UnexpectedReplyError(OnetonClientError):
    """An answer came that is none of this API's, such as a proxy's page."""


class JobFailedError(OnetonClientError):
    """A job that was waited for failed."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.job_id} ({job.kind} {job.subject}) failed: {job.why}")
        self.job = job


class JobTimeoutError(OnetonClientError):
    """A job is not over in the time that was waited; it goes on."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.job_id} is {job.state}, {job.done} of {job.total}")
        self.job = job


class ApiError(OnetonClientError):
    """The server said no.

    Attributes:
        status: of HTTP.
        code: stable; `title` and `detail` are for people.
        faults: the fields that it is about.
        request_id: by which the server's log knows the call.
        retry_after_s: when to try again; None where the server does not say.
        may_be_done: an earlier try of this very call may have been carried out.
    """

    def __init__(
        self,
        *,
        status: int,
        title: str = "",
        detail: str = "",
        code: str = "",
        faults: tuple[Fault, ...] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        said = f": {detail}" if detail else ""
        about = ", ".join(filter(None, (code, request_id and f"request {request_id}")))
        super().__init__(f"{status} {title}{said}" + (f" ({about})" if about else ""))
        self.status = status
        self.title = title
        self.detail = detail
        self.code = code
        self.faults = faults
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.may_be_done = False


class InvalidInputError(ApiError):
    """A field, parameter or header is missing or of a bad form."""


class UnauthenticatedError(ApiError):
    """The key is unknown, revoked or over."""


class ForbiddenError(ApiError):
    """The key may not do this."""


class NotFoundError(ApiError):
    """No such gallery, face record, request or job."""


class ConflictError(ApiError):
    """Already there, or in use."""


class BadProbeError(ApiError):
    """The picture cannot be used; another one may."""


class NoFaceError(BadProbeError):
    """No face was found."""


class SeveralFacesError(BadProbeError):
    """More faces than the call allows."""


class RateLimitedError(ApiError):
    """Too many calls."""


class UnavailableError(ApiError):
    """The server is busy, or a part of it does not answer."""


class ServerError(ApiError):
    """An error of the server's."""


BY_CODE: dict[str, type[ApiError]] = {
    "no_face": NoFaceError,
    "several_faces": SeveralFacesError,
    "low_quality": BadProbeError,
    "bad_image": BadProbeError,
    "too_large": BadProbeError,
    "unsupported_type": BadProbeError,
    "invalid_client": UnauthenticatedError,
}
BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidInputError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: BadProbeError,
    422: InvalidInputError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}


class _Said(msgspec.Struct, frozen=True):
    """Problem details, or what the token call answers."""

    title: str = ""
    detail: str = ""
    code: str = ""
    errors: tuple[Fault, ...] = ()
    error: str = ""
    error_description: str = ""


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, retry_after_s: float | None
) -> ApiError:
    """The error of an answer, whatever its body is."""
    try:
        said = msgspec.json.decode(body, type=_Said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Said()
    code = said.code or said.error
    kind = BY_CODE.get(code) or BY_STATUS.get(status)
    if kind is None:
        kind = ServerError if status >= 500 else ApiError
    return kind(
        status=status,
        title=said.title or _phrase(status),
        detail=said.detail or said.error_description,
        code=code,
        faults=said.errors,
        request_id=headers.get("x-request-id"),
        retry_after_s=retry_after_s,
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def reason_of(error: Exception) -> str:
    """What a failure of the network says of itself, for some say nothing."""
    said: Any = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
