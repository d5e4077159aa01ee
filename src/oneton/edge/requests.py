"""Around every request: an id, a log line, metrics and a trace, and nothing of what was sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from time import perf_counter
from typing import Any
from uuid import uuid4

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from oneton.domain.stages import Stages, collected_stages
from oneton.domain.watching import NO_WATCH, Trace, Watch, tell_stages

log = structlog.get_logger()

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = {"/livez", "/readyz", "/metrics"}
_EDGE = "oneton.edge."
_TRACE_HEADERS = ("traceparent", "tracestate")
CLOSED = 499
"""Noted as the status of a request whose caller went away before its answer began."""


class RequestLog:
    """ASGI middleware; takes over a sane X-Request-ID, and sends it back."""

    def __init__(self, app: ASGIApp, watch: Watch = NO_WATCH) -> None:
        self._app = app
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _GIVEN_ID.fullmatch(given) else uuid4().hex
        answer = _Answer(send, request_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id, tenant=None):
            if scope["path"] in _QUIET:
                await self._app(scope, receive, answer.send)
                return
            self._watch.count("in_flight")
            try:
                await self._watched(scope, receive, answer)
            finally:
                self._watch.count("in_flight", by=-1)

    async def _watched(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        dialect, operation = _called(scope.get("route_handler"))
        trace = self._watch.trace(f"{dialect} {operation}", "request", _parent(scope))
        traced = {} if trace is None else {"trace_id": trace.trace_id}
        started_s = perf_counter()
        with structlog.contextvars.bound_contextvars(**traced), collected_stages() as stages:
            try:
                await self._app(scope, receive, answer.send)
            except asyncio.CancelledError:
                answer.status = answer.status or CLOSED
                raise
            finally:
                took_s, status = perf_counter() - started_s, answer.status or 500
                _say(scope, status, took_s, stages)
                self._watch.count("requests", dialect, operation, outcome_of(status))
                self._watch.took("request", took_s, dialect, operation)
                tell_stages(self._watch, "request", stages)
                if trace is not None:
                    _end(trace, scope, (dialect, operation), status, stages)


class _Answer:
    """Sends an answer with its request's id.

    Attributes:
        status: None until it begins.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self.status: int | None = None
        self._send = send
        self._header = (b"x-request-id", request_id.encode())

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], self._header]}
        await self._send(message)


def outcome_of(status: int) -> str:
    """What became of a request: ok, refused, limited, unavailable, failed or closed."""
    if status < 400:
        return "ok"
    named = {429: "limited", 503: "unavailable", CLOSED: "closed"}
    return named.get(status, "refused" if status < 500 else "failed")


def _say(scope: Scope, status: int, took_s: float, stages: Stages) -> None:
    log.info(
        "request",
        method=str(scope.get("method")),
        path=scope["path"],
        status=status,
        took_ms=round(took_s * 1000, 2),
        stages_ms={name: round(took, 2) for name, took in dict(stages).items()},
    )


def _end(trace: Trace, scope: Scope, called: tuple[str, str], status: int, stages: Stages) -> None:
    said = structlog.contextvars.get_contextvars()
    attributes: dict[str, str | int] = {
        "http.request.method": str(scope.get("method")),
        "http.response.status_code": status,
        "oneton.dialect": called[0],
        "oneton.operation": called[1],
        "oneton.request_id": str(said.get("request_id")),
    }
    if said.get("tenant"):
        attributes["oneton.tenant"] = str(said["tenant"])
    trace.end(stages, attributes, failed=status >= 500)


def _parent(scope: Scope) -> Mapping[str, str]:
    """The headers that may name a trace."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name.decode("latin-1") in _TRACE_HEADERS
    }


def _called(handler: Any) -> tuple[str, str]:  # noqa: ANN401 - of any of Litestar's kinds
    """The dialect and the operation of a handler, by where it stands in the code."""
    function = getattr(handler, "fn", None)
    module = str(getattr(function, "__module__", ""))
    if not module.startswith(_EDGE):
        return "pages", "page"
    operation = getattr(handler, "operation_id", None)
    name = operation if isinstance(operation, str) else str(getattr(function, "__name__", "call"))
    return module.removeprefix(_EDGE).split(".")[0], name
