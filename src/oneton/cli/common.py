"""What the commands share: settings, logs, errors to exit codes, output for people or machines."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec
import rich_click as click
from rich.console import Console

from oneton.cli.logs import configure_logs
from oneton.domain.acting import Actor, act_as
from oneton.domain.errors import (
    AddressError,
    ConflictError,
    NotFoundError,
    OnetonError,
    SettingError,
    UnavailableError,
)
from oneton.domain.model import Tenant
from oneton.settings import Settings, read_settings

if TYPE_CHECKING:
    from oneton.records.tenants import Tenants

T = TypeVar("T")

EXIT_NEGATIVE = 1
EXIT_USAGE = 2
EXIT_NO_SUCH = 3
EXIT_UNAVAILABLE = 4

stdout = Console()
stderr = Console(stderr=True)

as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON for machines.")
of_tenant = click.option(
    "--tenant", "tenant_name", help="The tenant's name; not needed when there is one only."
)


def example(text: str) -> str:
    """An epilog with one example."""
    return f"Example: [bold]{text}[/bold]"


def settings_or_exit() -> Settings:
    """Read the settings; a wrong one is one line and exit 2, as is a server that was named."""
    from oneton.cli.remote import refuse_remote

    refuse_remote()
    try:
        return read_settings(os.environ)
    except SettingError as error:
        fail(error)


def run(work: Callable[[Settings], Coroutine[Any, Any, T]]) -> T:
    """Run a command's work; an error of ours is one line and its exit code."""
    settings = settings_or_exit()
    configure_logs(settings, quiet=True)
    act_as(Actor(f"operator {login()}"))
    try:
        return asyncio.run(work(settings))
    except OnetonError as error:
        fail(error)


def login() -> str:
    """Who runs the command; a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def fail(error: OnetonError) -> NoReturn:
    """Say what went wrong in one line, and end."""
    line = " ".join(str(error).split())
    print(f"oneton: {line}", file=sys.stderr)
    sys.exit(exit_code(error))


def exit_code(error: OnetonError) -> int:
    """The exit code of an error."""
    if isinstance(error, SettingError | AddressError):
        return EXIT_USAGE
    if isinstance(error, NotFoundError | ConflictError):
        return EXIT_NO_SUCH
    if isinstance(error, UnavailableError):
        return EXIT_UNAVAILABLE
    return EXIT_NEGATIVE


def write_json(value: object) -> None:
    """One JSON document on stdout."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_line(*parts: str | None) -> None:
    """One line as it is, however long, for ids must not be cut off; None is left out."""
    line = "  ".join(each for each in parts if each)
    stdout.print(line, soft_wrap=True, markup=False, highlight=False)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value))


async def chosen_tenant(tenants: Tenants, name: str | None) -> Tenant:
    """The tenant of this name; without a name, the only one.

    Raises:
        NotFoundError: there is none of the name, or without a name not exactly one.
    """
    if name is not None:
        return await tenants.named(name)
    every = await tenants.list()
    if len(every) != 1:
        raise NotFoundError(
            "tenant", "none yet, see oneton tenant create" if not every else "say which: --tenant"
        )
    return every[0]
