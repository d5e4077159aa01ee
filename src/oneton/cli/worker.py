"""`oneton worker`."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import rich_click as click
import structlog

from oneton.cli.common import example, fail, settings_or_exit
from oneton.cli.logs import configure_logs
from oneton.domain.errors import OnetonError
from oneton.settings import Settings


@click.command(epilog=example("ONETON_DATABASE_URL=postgresql://... oneton worker"))
def worker() -> None:
    """Do the work that is no question: deliver webhooks, re-embed images for `oneton reindex`.

    Any number of workers, on any number of machines, share it. They need the same database and
    object store as the servers, and the model packs. SIGTERM finishes what is at work.
    """
    settings = settings_or_exit()
    configure_logs(settings)
    try:
        asyncio.run(_work(settings))
    except OnetonError as error:
        fail(error)


async def _work(settings: Settings) -> None:
    from oneton.indexing import open_indexes
    from oneton.parts import open_parts
    from oneton.telemetry.opening import Telemetry
    from oneton.working import open_worker

    log = structlog.get_logger()
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    telemetry = Telemetry(settings, "worker")
    with contextlib.suppress(asyncio.CancelledError):
        async with (
            telemetry,
            open_parts(settings, telemetry.watch) as parts,
            open_indexes(settings, parts) as indexes,
            open_worker(settings, parts, indexes) as made,
            telemetry.listening(),
        ):
            await telemetry.show(parts, indexes)
            telemetry.show_budget(made.cpu)
            log.info("worker started", threads=settings.cpu_threads)
            print("oneton worker works", flush=True)
            await made.run()
    log.info("stopped")
