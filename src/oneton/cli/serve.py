"""`oneton serve`."""

from __future__ import annotations

import gc

import rich_click as click

from oneton.cli.common import example, fail, settings_or_exit
from oneton.cli.logs import configure_logs
from oneton.domain.errors import OnetonError


@click.command(epilog=example("ONETON_PORT=9000 oneton serve"))
def serve() -> None:
    """Start the API and whatever the settings do not name.

    Without settings that is PostgreSQL, images as files and the model pack, all under ./.oneton,
    and a demo tenant whose credentials are printed. SIGTERM and Ctrl-C finish running requests,
    then stop what was started.
    """
    # What a start makes stays: looking it over for garbage again and again costs a tenth of it.
    gc.disable()
    settings = settings_or_exit()
    configure_logs(settings)
    from oneton.models import start_loading

    loading = start_loading(settings)
    from oneton.cli.serving import serve_until_stopped

    try:
        serve_until_stopped(settings, loading)
    except OnetonError as error:
        fail(error)
