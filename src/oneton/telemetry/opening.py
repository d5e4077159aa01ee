"""Wire what watches over a process: counters, traces, and an own listener."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Self

import structlog
import uvicorn
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from oneton import __version__
from oneton.domain.errors import SettingError
from oneton.edge.metrics import Page
from oneton.indexing import Indexes
from oneton.parts import Parts
from oneton.settings import Settings
from oneton.telemetry.measures import Measures
from oneton.telemetry.state import State
from oneton.verbs.cpu import Cpu

log = structlog.get_logger()

SHUTDOWN_S = 5.0


class Telemetry:
    """Of one process, from before its parts start.

    Attributes:
        watch: what the parts tell.
    """

    def __init__(self, settings: Settings, role: str) -> None:
        self._tracer = None
        if settings.otlp_endpoint is not None:
            # Half a second of imports.
            from oneton.telemetry.tracing import Tracer  # noqa: PLC0415

            self._tracer = Tracer(settings.otlp_endpoint, role, __version__)
        self.watch = Measures(self._tracer)
        self._settings = settings
        self._state: State | None = None
        self._listener = _bind(settings)

    async def show(self, parts: Parts, indexes: Indexes) -> None:
        """Show the state of these, too."""
        settings = self._settings
        folders = {"index": settings.index_dir, "data": settings.data_dir}
        self._state = State(
            parts.database,
            indexes.catch_up,
            [indexes.cpu, indexes.follow, indexes.upkeep],
            folders,
            await indexes.packs.named(indexes.packs.own_no),
            __version__,
        )
        self.watch.registry.register(self._state)

    def show_budget(self, cpu: Cpu | None) -> None:
        """Show threads that were started later."""
        if cpu is not None and self._state is not None:
            self._state.budgets.append(cpu)

    async def render(self) -> Page:
        """Everything, as `/metrics` shows it."""
        if self._state is not None:
            await self._state.refresh()
        # In a thread, for a thousand galleries are tens of milliseconds.
        body = await asyncio.to_thread(generate_latest, self.watch.registry)
        return Page(body, CONTENT_TYPE_LATEST)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serve `/metrics` at ONETON_METRICS_PORT, where that is set."""
        if self._listener is None:
            yield
            return
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            loop="none",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        host, port = self._listener.getsockname()[:2]
        log.info("metrics are served", host=host, port=port)
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Send the traces that are left."""
        if self._listener is not None:
            self._listener.close()
        if self._tracer is not None:
            # A thread that is left behind when the collector takes its time.
            closing = threading.Thread(target=self._tracer.close, daemon=True)
            closing.start()
            await asyncio.to_thread(closing.join, SHUTDOWN_S)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG002
        """An ASGI application of one page."""
        if scope["type"] != "http":
            return
        found = scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
        page = await self.render() if found else Page(b"only GET /metrics\n", "text/plain")
        headers = [
            (b"content-type", page.content_type.encode()),
            (b"content-length", str(len(page.body)).encode()),
        ]
        status = 200 if found else 404
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else page.body
        await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """Leaves the signals to the process that it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(settings: Settings) -> socket.socket | None:
    if settings.metrics_port is None:
        return None
    try:
        found = socket.getaddrinfo(
            settings.host, settings.metrics_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise SettingError(
            f"cannot listen on ONETON_HOST={settings.host} "
            f"ONETON_METRICS_PORT={settings.metrics_port}: {error}"
        ) from error
    listener.set_inheritable(False)
    return listener
