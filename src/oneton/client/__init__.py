"""A client of the native API, at once or awaited: `Client` and `AsyncClient`.

It imports nothing of the server.
"""

from __future__ import annotations

from msgspec import UNSET

from oneton.client import answers, errors
from oneton.client.clients import AsyncClient, Client
from oneton.client.errors import (
    ApiError,
    BadProbeError,
    ConflictError,
    ConnectionFailedError,
    ForbiddenError,
    InvalidInputError,
    JobFailedError,
    JobTimeoutError,
    NoFaceError,
    NotFoundError,
    OnetonClientError,
    RateLimitedError,
    ServerError,
    SeveralFacesError,
    UnauthenticatedError,
    UnavailableError,
    UnexpectedReplyError,
)
from oneton.client.images import Picture
from oneton.client.retries import Retries

__all__ = [
    "UNSET",
    "ApiError",
    "AsyncClient",
    "BadProbeError",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "ForbiddenError",
    "InvalidInputError",
    "JobFailedError",
    "JobTimeoutError",
    "NoFaceError",
    "NotFoundError",
    "OnetonClientError",
    "Picture",
    "RateLimitedError",
    "Retries",
    "ServerError",
    "SeveralFacesError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnexpectedReplyError",
    "answers",
    "errors",
]
