"""Idempotency keys: a POST that is repeated with its key gets the first answer."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from litestar import Request
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from oneton.domain import errors
from oneton.domain.model import Permission
from oneton.edge.guards import Check, act_for
from oneton.edge.native.callers import refuse_sandbox
from oneton.edge.native.problems import (
    DENIED,
    InvalidInputError,
    ReusedKeyError,
    reply_problem,
)
from oneton.edge.native.schemas import REPEAT_KEY
from oneton.edge.platform import Platform
from oneton.verbs.answer_once import Answer

DIALECT = "native"
ENROLL_KEY = "enroll_key"
"""Name in a request's state of the key that an enrolment is carried out once under."""
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
_NOT_KEPT = {"content-length"}


class _DeniedError(Exception):
    """An answer that the next call with the key may not get, for a quota may be raised."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class AnswerRepeats:
    """ASGI middleware around a router's calls; one without the header passes through.

    Who asks is found out here already, as the guard does within, for neither a stranger nor a key
    without the permission may read another's answer. A repeat is counted and noted, too.
    """

    def __init__(self, app: ASGIApp, check: Check, verbs: Platform) -> None:
        self._app = app
        self._check = check
        self._verbs = verbs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request: Request[Any, Any, Any] = Request(scope, receive)
        given = request.headers.getall(REPEAT_KEY, [])
        if not given:
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._answer(request, given)
        except Exception as error:  # noqa: BLE001 - every error has its reply
            reply = reply_problem(request, error).to_asgi_response(app=None, request=request)
            await reply(scope, receive, send)
            return
        await _send(answer, send)

    async def _answer(self, request: Request[Any, Any, Any], given: list[str]) -> Answer:
        principal = await self._check(request)
        act_for(principal)
        handler: BaseRouteHandler = request.scope["route_handler"]
        permissions = handler.opt["permissions"]
        principal.require(*permissions)
        await self._verbs.check_open(principal.tenant_id)
        refuse_sandbox(principal, handler)
        key = given[0]
        if len(given) > 1 or not _PRINTABLE.fullmatch(key):
            raise InvalidInputError(REPEAT_KEY, "1 to 255 printable ASCII characters are expected")
        fingerprint = _fingerprint(request, await request.body())
        if Permission.READ not in principal.permissions:
            # The answer to a key that may read has links to pictures.
            fingerprint = hashlib.sha256(fingerprint).digest()
        request.state[ENROLL_KEY] = hashlib.sha256(fingerprint + key.encode()).hexdigest()
        is_first = False

        async def work() -> Answer:
            nonlocal is_first
            is_first = True
            answer = await self._collect(request)
            if request.state.get(DENIED):
                raise _DeniedError(answer)
            return answer

        once, tenant = self._verbs.answer_once, principal.tenant_id
        try:
            answer = await once(tenant, f"native {key}", fingerprint, work)
        except _DeniedError as denied:
            return denied.answer
        except errors.ConflictError as error:
            raise ReusedKeyError(str(error)) from error
        if not is_first:
            # The guard within has done neither.
            await self._verbs.count_usage(principal, DIALECT, permissions)
            once.note_repeat(tenant, handler.handler_name, answer.status)
            headers = {**answer.headers, "idempotency-replayed": "true"}
            answer = Answer(answer.status, headers, answer.body)
        return answer

    async def _collect(self, request: Request[Any, Any, Any]) -> Answer:
        """Carry the call out; errors are answers, too."""
        status, headers, body = 500, dict[str, str](), bytearray()

        async def keep(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in message["headers"]
                }
            elif message["type"] == "http.response.body":
                body.extend(message["body"])

        await self._app(request.scope, request.receive, keep)
        kept = {name: value for name, value in headers.items() if name not in _NOT_KEPT}
        return Answer(status, kept, bytes(body))


async def _send(answer: Answer, send: Send) -> None:
    headers = {**answer.headers, "content-length": str(len(answer.body))}
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
            ],
        }
    )
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _fingerprint(request: Request[Any, Any, Any], body: bytes) -> bytes:
    """SHA-256 of a call; a form's boundary is left out, for clients draw it anew each time."""
    kind, options = request.content_type
    if boundary := options.get("boundary"):
        body = body.replace(boundary.encode(), b"")
    query = request.scope["query_string"].decode("latin-1")
    said = f"{request.method} {request.url.path}?{query} {kind}\n"
    return hashlib.sha256(said.encode() + body).digest()
