"""Around every request: an id, one log line with timings, and nothing of what was sent."""

from __future__ import annotations

import re
from time import perf_counter
from uuid import uuid4

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from oneton.domain.stages import collected_stages

log = structlog.get_logger()

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = {"/livez", "/readyz"}


class RequestLog:
    """ASGI middleware; takes over a sane X-Request-ID, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        method = str(scope.get("method"))
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _GIVEN_ID.fullmatch(given) else uuid4().hex
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        started_s = perf_counter()
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id, tenant=None),
            collected_stages() as stages,
        ):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                if scope["path"] not in _QUIET:
                    log.info(
                        "request",
                        method=method,
                        path=scope["path"],
                        status=status,
                        took_ms=round((perf_counter() - started_s) * 1000, 2),
                        stages_ms={name: round(took, 2) for name, took in stages.items()},
                    )
