"""The server process: from settings to the last request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import anyio.to_thread
import structlog
import uvicorn
import uvloop

from oneton.app import Verbs, make_app, open_verbs, sweep_forever
from oneton.biometrics.analyse import Analyser
from oneton.biometrics.packs import PackFiles
from oneton.cli.wire import Wire
from oneton.domain.errors import SettingError
from oneton.domain.model import Permission
from oneton.edge.metrics import make_metrics
from oneton.models import make_analyser
from oneton.parts import (
    Parts,
    find_pack,
    load_pack_calibration,
    make_key_maker,
    make_tenant_maker,
    open_parts,
)
from oneton.settings import Settings
from oneton.telemetry.opening import Telemetry

log = structlog.get_logger()

DEMO_TENANT = "demo"
AFTER_THE_START_S = 2.0
WIDEN_AGAIN_S = (*(15.0,) * 8, 600.0)
LOAD_WITHIN_S = 10.0
"""A caller waits so long for a gallery's index; then the answer is 503 with Retry-After."""


Loading = Future[tuple[PackFiles, Analyser]]


def serve_until_stopped(settings: Settings, loading: Loading) -> None:
    """Check what can be checked before anything starts, then serve.

    Args:
        loading: the model pack that settings name.

    Raises:
        SettingError: a setting is wrong; nothing was started.
        UnavailableError: a part that settings name does not answer.
    """
    telemetry = Telemetry(settings, "serve")
    listener = _bind(settings)
    _check_folders(settings)
    load_pack_calibration(find_pack(settings))
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(_serve(settings, listener, loading, telemetry))


def _bind(settings: Settings) -> socket.socket:
    """Take the address first, so that a wrong one costs nothing."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise SettingError(
            f"cannot listen on ONETON_HOST={settings.host} ONETON_PORT={settings.port}: {error}"
        ) from error
    listener.set_inheritable(False)
    return listener


def _check_folders(settings: Settings) -> None:
    for name, folder in (
        ("ONETON_DATA_DIR", settings.data_dir),
        ("ONETON_INDEX_DIR", settings.index_dir),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(f"{name}={folder}: {error.strerror}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SettingError(f"{name}={folder}: not writable")


class _Server(uvicorn.Server):
    """Leaves the signals to `_serve`, which also has to end a start that is under way."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    settings: Settings, listener: socket.socket, loading: Loading, telemetry: Telemetry
) -> None:
    def make(files: PackFiles) -> Analyser:
        own, analyser = loading.result()
        return analyser if files == own else make_analyser(settings, files)

    stopping = _Stopping()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.stop, number)
    async with (
        telemetry,
        open_parts(settings, telemetry.watch) as parts,
        open_verbs(settings, parts, load_within_s=LOAD_WITHIN_S, make=make) as verbs,
    ):
        demo = await _demo_credentials(settings, parts) if settings.database_url is None else None
        # In a thread, for indexes begin to load meanwhile.
        metrics = make_metrics(telemetry.render, settings.metrics_token)
        app = await asyncio.to_thread(make_app, verbs, telemetry.watch, metrics)
        config = uvicorn.Config(
            app,
            http=Wire,
            loop="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # ONETON_TRUSTED_PROXIES says who is believed; by itself this would believe 127.0.0.1.
            proxy_headers=False,
            date_header=True,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        )
        await verbs.load_model(verbs.load_model.own_no)
        await telemetry.show(parts, verbs.indexes)
        gc.freeze()
        gc.enable()
        server = _Server(config)
        stopping.server = server
        behind = [
            asyncio.create_task(sweep_forever(verbs, settings)),
            asyncio.create_task(_after_the_start(settings, parts, verbs, telemetry)),
        ]
        try:
            _greet(listener, demo)
            async with telemetry.listening():
                await server.serve(sockets=[listener])
        finally:
            for task in behind:
                task.cancel()
            await asyncio.gather(*behind, return_exceptions=True)
    log.info("stopped")


async def _after_the_start(
    settings: Settings, parts: Parts, verbs: Verbs, telemetry: Telemetry
) -> None:
    """Do a worker's work while there is none; nothing of it is needed to answer."""
    await asyncio.sleep(AFTER_THE_START_S)
    await verbs.load_model.widen()
    widening = asyncio.create_task(_widen_again(verbs))
    # A third of a second of imports, which answers need not wait for.
    await asyncio.to_thread(importlib.import_module, "oneton.working")
    from oneton.working import open_worker

    try:
        async with open_worker(settings, parts, verbs.indexes, alone=False) as worker:
            telemetry.show_budget(worker.cpu)
            await worker.stand_in()
    finally:
        widening.cancel()


async def _widen_again(verbs: Verbs) -> None:
    """Measure again what was measured while the machine was busy, as it is at a start."""
    for wait_s in WIDEN_AGAIN_S:
        await asyncio.sleep(wait_s)
        await verbs.load_model.widen()


class _Stopping:
    """Before the server runs, a signal cancels the start; afterwards it drains."""

    def __init__(self) -> None:
        self.server: _Server | None = None
        self._task = asyncio.current_task()

    def stop(self, number: int) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        if self.server is None:
            assert self._task is not None
            self._task.cancel()
        else:
            self.server.handle_exit(number, None)


async def _demo_credentials(settings: Settings, parts: Parts) -> dict[str, str] | None:
    """Make the demo tenant at the first start; later starts read its credentials back."""
    kept = settings.data_dir / "demo-credentials.json"
    tenants = await parts.tenants.list()
    if not any(each.name == DEMO_TENANT for each in tenants):
        if tenants:
            return None
        create = await make_tenant_maker(settings, parts)
        demo = await create(DEMO_TENANT)
        key, secret = await make_key_maker(parts)(
            demo.tenant_id,
            label="made at the first start",
            permissions=[each for each in Permission if each is not Permission.PURGE],
        )
        credentials = {"client_id": str(key.key_id), "client_secret": secret}
        await anyio.to_thread.run_sync(_write_private, kept, json.dumps(credentials))
    try:
        read: dict[str, str] = json.loads(await anyio.to_thread.run_sync(kept.read_text))
    except (OSError, ValueError):
        return None
    return read


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _greet(listener: socket.socket, demo: dict[str, str] | None) -> None:
    host, port = listener.getsockname()[:2]
    lines = [f"oneton listens on http://{host}:{port}  (API page: /schema)"]
    if demo is not None:
        lines += [
            f"demo tenant     {DEMO_TENANT}",
            f"client_id       {demo['client_id']}",
            f"client_secret   {demo['client_secret']}",
        ]
    print("\n".join(lines), flush=True)
