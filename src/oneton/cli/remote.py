"""The command line's remote mode: what a command does over HTTP instead of on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import msgspec
import rich_click as click
from click.core import ParameterSource

from oneton.cli.common import EXIT_NEGATIVE, EXIT_NO_SUCH, EXIT_UNAVAILABLE, EXIT_USAGE
from oneton.domain.errors import SettingError

if TYPE_CHECKING:
    from oneton.client import Client, OnetonClientError

T = TypeVar("T")

KEY = "ONETON_KEY"


class Remote(msgspec.Struct, frozen=True):
    """The server that was named, and where its key is; read when a command needs it."""

    url: str
    key_file: Path | None

    def key(self) -> str:
        """The key's secret.

        Raises:
            SettingError: there is none, or its file cannot be read.
        """
        text = os.environ.get(KEY, "")
        if self.key_file is None:
            if not text:
                raise SettingError(f"{self.url} needs --key-file, {KEY}_FILE or {KEY}")
            return text
        try:
            return self.key_file.expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is no text"
            raise SettingError(f"the key's file {self.key_file}: {why}") from error


def remote_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `oneton` itself that name a server."""
    url = click.option(
        "--url",
        envvar="ONETON_URL",
        help="A server to work on over HTTP, instead of on this machine; or ONETON_URL.",
    )
    key_file = click.option(
        "--key-file",
        envvar="ONETON_KEY_FILE",
        type=click.Path(path_type=Path),
        help="A file with the secret of a key there; or ONETON_KEY_FILE, or the secret itself in "
        "ONETON_KEY.",
    )
    return url(key_file(command))


def choose_remote(context: click.Context, url: str | None, key_file: Path | None) -> None:
    """Keep what `oneton` was told for the command that follows."""
    source = context.get_parameter_source("key_file")
    if url is None:
        if source is ParameterSource.COMMANDLINE:
            raise click.UsageError("--key-file needs --url")
        return
    if source is ParameterSource.ENVIRONMENT and os.environ.get(KEY):
        raise click.UsageError(f"{KEY} and {KEY}_FILE are both set")
    context.obj = Remote(url, key_file)


def chosen_remote() -> Remote | None:
    """The server that was named, if any."""
    context = click.get_current_context(silent=True)
    found = None if context is None else context.find_root().obj
    return found if isinstance(found, Remote) else None


def is_remote(tenant_name: str | None, **not_there: object) -> bool:
    """Whether the command works on a server.

    Args:
        tenant_name: what --tenant says.
        not_there: options that the server does not offer, by name; each must be left out.
    """
    if chosen_remote() is None:
        return False
    if tenant_name is not None:
        raise click.UsageError("--tenant is not for a server: its key is one tenant's")
    for name, value in not_there.items():
        if value:
            raise click.UsageError(f"--{name.replace('_', '-')} is not offered over HTTP")
    return True


def refuse_remote() -> None:
    """End a command that works on this machine only, when a server was named."""
    context = click.get_current_context(silent=True)
    if context is not None and chosen_remote() is not None:
        _end(
            f"{context.command_path} works on the machine itself: leave out --url or ONETON_URL",
            EXIT_USAGE,
        )


def ask_server(work: Callable[[Client], T]) -> T:
    """Do a command's work with a client of the server; an error is one line and its exit code."""
    from oneton.client import Client, OnetonClientError

    remote = chosen_remote()
    assert remote is not None
    try:
        client = Client(remote.url, key=remote.key())
    except (SettingError, ValueError) as error:
        _end(str(error), EXIT_USAGE)
    with client:
        try:
            return work(client)
        except OnetonClientError as error:
            _end(_said(error), exit_code(error))


def exit_code(error: OnetonClientError) -> int:
    """The code that the same failure has on this machine; a key that is refused is a wrong one."""
    from oneton import client

    if isinstance(error, client.NotFoundError | client.ConflictError):
        return EXIT_NO_SUCH
    if isinstance(
        error,
        client.InvalidInputError
        | client.UnauthenticatedError
        | client.ForbiddenError
        | client.UnexpectedReplyError,
    ):
        return EXIT_USAGE
    if isinstance(
        error,
        client.ConnectionFailedError
        | client.RateLimitedError
        | client.UnavailableError
        | client.ServerError,
    ):
        return EXIT_UNAVAILABLE
    return EXIT_NEGATIVE


def _said(error: OnetonClientError) -> str:
    from oneton.client import ApiError, BadProbeError

    if isinstance(error, BadProbeError) and error.faults:
        return error.faults[0].detail
    if isinstance(error, ApiError):
        return error.detail or str(error)
    return str(error)


def _end(line: str, code: int) -> NoReturn:
    print(f"oneton: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)
