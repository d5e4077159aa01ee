"""Two ways to drive a flow, and how its function becomes a method of both kinds of client."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

import anyio
import anyio.to_thread
import httpx

from oneton.client.answers import Page
from oneton.client.flows import Do, Flow, Reply, Send, Step, Wait
from oneton.client.session import Session

P = ParamSpec("P")
T = TypeVar("T")


class SyncRunner:
    """Drives flows in the caller's thread."""

    _session: Session
    _http: httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    result = self._take(step)
                except Exception as error:  # noqa: BLE001 - the flow knows what to do
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            flow.close()

    def _take(self, step: Step) -> object:
        if isinstance(step, Send):
            return _reply(self._http.send(_request(self._http, step)))
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        return step.work()


class AsyncRunner:
    """Drives flows as a task."""

    _session: Session
    _http: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    result = await self._take(step)
                except Exception as error:  # noqa: BLE001 - the flow knows what to do
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            flow.close()

    async def _take(self, step: Step) -> object:
        if isinstance(step, Send):
            return _reply(await self._http.send(_request(self._http, step)))
        if isinstance(step, Wait):
            await anyio.sleep(step.seconds)
            return None
        assert isinstance(step, Do)
        return await anyio.to_thread.run_sync(step.work)


def _request(http: httpx.Client | httpx.AsyncClient, step: Send) -> httpx.Request:
    return http.build_request(
        step.method, step.url, headers=dict(step.headers), content=step.content
    )


def _reply(response: httpx.Response) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.content)


class Method(Generic[P, T]):
    """A flow as a method: it returns what comes of it, or an awaitable of that."""

    def __init__(self, flow: Callable[Concatenate[Session, P], Flow[T]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, kind: type[object]) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: SyncRunner, kind: type[object]) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncRunner, kind: type[object]) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: SyncRunner | AsyncRunner | None, kind: type[object]) -> Any:
        if client is None:
            return _shown(self._flow, skip=1)

        @functools.wraps(self._flow)
        def call(*args: P.args, **kwargs: P.kwargs) -> object:
            return client._run(self._flow(client._session, *args, **kwargs))  # noqa: SLF001

        call.__signature__ = _signature(self._flow, skip=1)  # type: ignore[attr-defined]
        return call


class Listing(Generic[P, T]):
    """A flow of one page as a method: it returns an iterator over the items of all."""

    def __init__(self, flow: Callable[Concatenate[Session, str | None, P], Flow[Page[T]]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, kind: type[object]) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: SyncRunner, kind: type[object]) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncRunner, kind: type[object]) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: SyncRunner | AsyncRunner | None, kind: type[object]) -> Any:
        if client is None:
            return _shown(self._flow, skip=2)
        walk = self._walk if isinstance(client, SyncRunner) else self._walk_async

        @functools.wraps(self._flow)
        def call(*args: P.args, **kwargs: P.kwargs) -> object:
            return walk(client, *args, **kwargs)  # type: ignore[arg-type]

        call.__signature__ = _signature(self._flow, skip=2)  # type: ignore[attr-defined]
        return call

    def _walk(self, client: SyncRunner, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        cursor: str | None = None
        while True:
            page = client._run(self._flow(client._session, cursor, *args, **kwargs))  # noqa: SLF001
            yield from page.items
            if (cursor := page.next_cursor) is None:
                return

    async def _walk_async(
        self, client: AsyncRunner, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            flow = self._flow(client._session, cursor, *args, **kwargs)  # noqa: SLF001
            page = await client._run(flow)  # noqa: SLF001
            for each in page.items:
                yield each
            if (cursor := page.next_cursor) is None:
                return


def _signature(flow: Callable[..., Any], skip: int) -> inspect.Signature:
    """What a caller gives, and what comes of it."""
    found = inspect.signature(flow)
    returns = str(found.return_annotation).removeprefix("Flow[").removesuffix("]")
    if returns.startswith("Page["):
        returns = returns.replace("Page[", "Iterator[", 1)
    given = list(found.parameters.values())[skip:]
    return found.replace(parameters=given, return_annotation=returns)


def _shown(flow: Callable[..., Any], skip: int) -> Callable[..., Any]:
    """A method as help() shows it of the class."""

    @functools.wraps(flow)
    def method(client: object, *args: object, **kwargs: object) -> object:
        return getattr(client, flow.__name__)(*args, **kwargs)

    signature = _signature(flow, skip)
    whom = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    given = [whom, *signature.parameters.values()]
    method.__signature__ = signature.replace(parameters=given)  # type: ignore[attr-defined]
    return method
