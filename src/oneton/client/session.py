"""From a call to its answer: who asks, what is tried again, and which errors come of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

import httpx
import msgspec

from oneton import __version__
from oneton.client.answers import Page
from oneton.client.credentials import Credentials, Secret, Token
from oneton.client.errors import (
    ApiError,
    ConnectionFailedError,
    OnetonClientError,
    UnexpectedReplyError,
    error_of,
    reason_of,
)
from oneton.client.flows import Flow, Reply, Send, Wait
from oneton.client.retries import Retries, read_retry_after

T = TypeVar("T")
QueryValue = str | int | float | bool | None

TOKEN = "/api/oauth/token"  # noqa: S105 - a path
EARLY_S = 30.0
"""A token is exchanged so long before its end."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_OUR_MISTAKE = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
_NOT_DONE = {401, 429}


class Call(msgspec.Struct, frozen=True):
    """A call of the API.

    Attributes:
        path: from the root, quoted.
        body: of JSON.
        repeat_key: `Idempotency-Key`; the same in every try.
        also: statuses that are answers here, though they are errors elsewhere.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    repeat_key: str | None = None
    also: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Call({self.method} {self.path})"


def path_of(*parts: object) -> str:
    """A path under /v1; every part is quoted."""
    return "/v1/" + "/".join(quote(str(each), safe="") for each in parts)


def query_of(**values: QueryValue) -> tuple[tuple[str, str], ...]:
    """A query without what is None."""
    return tuple(
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in values.items()
        if value is not None
    )


def post_call(path: str, body: dict[str, Any], idempotency_key: str | None) -> Call:
    """A POST with its idempotency key, which is made here, once; None in a body is left out."""
    said = {name: value for name, value in body.items() if value is not None}
    key = str(uuid4()) if idempotency_key is None else idempotency_key
    return Call("POST", path, body=msgspec.json.encode(said), repeat_key=key)


class Session:
    """What the calls of one client share. Threads and tasks may use it at once."""

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        retries: Retries,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = checked_url(base_url)
        self.clock = clock
        self._credentials = credentials
        self._retries = retries
        self._token: Token | None = None

    def ask(self, call: Call, kind: type[T]) -> Flow[T]:
        """Make a call and read its answer."""
        reply = yield from self.fetch(call)
        return read(reply, kind)

    def do(self, call: Call) -> Flow[None]:
        """Make a call whose answer says nothing."""
        yield from self.fetch(call)

    def page(self, path: str, of: type[T], /, **query: QueryValue) -> Flow[Page[T]]:
        """A page of a list."""
        whole: type[Page[T]] = Page[of]  # type: ignore[valid-type]
        return (yield from self.ask(Call("GET", path, query_of(**query)), whole))

    def fetch(self, call: Call) -> Flow[Reply]:
        """Make a call, with who asks, as often as it takes."""
        renewed = False
        while True:
            token = yield from self._bearer()
            headers = {**_HEADERS, "authorization": f"Bearer {token.reveal()}"}
            if call.body is not None:
                headers["content-type"] = "application/json"
            if call.repeat_key is not None:
                headers["idempotency-key"] = call.repeat_key
            query = f"?{urlencode(call.query)}" if call.query else ""
            send = Send(call.method, f"{self.base_url}{call.path}{query}", headers, call.body)
            try:
                return (yield from self._insist(send, call.also))
            except ApiError as error:
                # A token may end early: its key was changed, or the server's clock was.
                if error.status != 401 or renewed or not self._credentials.has_tokens:
                    raise
                renewed = True
                if self._token is not None and self._token.text is token:
                    self._token = None

    def fetch_link(self, url: str) -> Flow[Reply]:
        """Get what a link is of; nobody's key is sent to it.

        Raises:
            ValueError: it is no address of http or https.
        """
        if urlsplit(url).scheme not in {"http", "https"}:
            raise ValueError("a link begins with http:// or https://")
        headers = {**_HEADERS, "accept": "*/*"}
        return (yield from self._insist(Send("GET", url, headers), ()))

    def _bearer(self) -> Flow[Secret]:
        credentials = self._credentials
        if credentials.client_id is None:
            return credentials.secret
        token = self._token
        if token is not None and self.clock() < token.until_s:
            return token.text
        asked_at_s = self.clock()
        form = {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.secret.reveal(),
        }
        headers = {**_HEADERS, "content-type": "application/x-www-form-urlencoded"}
        send = Send("POST", self.base_url + TOKEN, headers, urlencode(form).encode())
        given = read((yield from self._insist(send, ())), _TokenReply)
        # Of a short life at least half is used, else each call would ask for a token.
        used_s = max(given.expires_in - EARLY_S, given.expires_in / 2)
        token = Token(Secret("the token", given.access_token), asked_at_s + used_s)
        self._token = token
        return token.text

    def _insist(self, send: Send, also: Sequence[int]) -> Flow[Reply]:
        """Send a request until it is answered, refused, or tried often enough."""
        tried = 0
        may_be_done = False
        while True:
            tried += 1
            failed: OnetonClientError
            cause: Exception | None = None
            try:
                reply: Reply = yield send
            except httpx.RequestError as error:
                where = _shown(send)
                failed, cause = ConnectionFailedError(f"{where}: {reason_of(error)}"), error
                if isinstance(error, _OUR_MISTAKE):
                    raise failed from error
                may_be_done = may_be_done or not isinstance(error, _NEVER_SENT)
            else:
                if reply.status < 300 or reply.status in also:
                    return reply
                failed = _refusal(send, reply)
                if isinstance(failed, ApiError):
                    failed.may_be_done = may_be_done
                    may_be_done = may_be_done or failed.status not in _NOT_DONE
            wait_s = self._retries.wait_s(tried, failed)
            if wait_s is None:
                raise failed from cause
            yield Wait(wait_s)


class _TokenReply(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float

    def __repr__(self) -> str:
        return "_TokenReply(...)"


_HEADERS = {"accept": "application/json", "user-agent": f"oneton-client/{__version__}"}


def read(reply: Reply, kind: type[T]) -> T:
    """An answer's JSON.

    Raises:
        UnexpectedReplyError: it is none, or of another form.
    """
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # The message names a place and a type, never a value.
        raise UnexpectedReplyError(f"the answer is of another form: {error}") from error


def checked_url(text: str) -> str:
    """A base URL without a slash at its end.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(text.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the base URL must be http://host or https://host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the base URL must hold no credentials")
    if parts.query or parts.fragment:
        raise ValueError("the base URL must end with its path")
    return text.strip().rstrip("/")


def _refusal(send: Send, reply: Reply) -> OnetonClientError:
    if reply.status < 400:
        where = _shown(send)
        return UnexpectedReplyError(f"{where}: {reply.status}, which is no answer of this API's")
    return error_of(reply.status, reply.headers, reply.body, read_retry_after(reply.headers))


def _shown(send: Send) -> str:
    """Method and host: a path may be a link, which is good without a key."""
    parts = urlsplit(send.url)
    path = "/media/..." if parts.path.startswith("/media/") else parts.path
    return f"{send.method} {parts.scheme}://{parts.netloc}{path}"
