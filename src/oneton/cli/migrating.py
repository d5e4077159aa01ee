"""`oneton migrate`."""

from __future__ import annotations

import asyncio

import rich_click as click

from oneton.cli.common import example, fail, settings_or_exit
from oneton.domain.errors import OnetonError


@click.command(epilog=example("ONETON_DATABASE_OWNER_URL=postgresql://... oneton migrate"))
def migrate() -> None:
    """Bring the database's schema to this version of oneton, and end.

    A server or worker does the same when it starts with the owner's URL; with the app's alone it
    only checks. Running replicas of the version before keep working meanwhile.
    """
    settings = settings_or_exit()
    from oneton.parts import open_database

    async def run() -> None:
        async with open_database(settings):
            pass

    try:
        asyncio.run(run())
    except OnetonError as error:
        fail(error)
    click.echo("the schema is that of this version")
