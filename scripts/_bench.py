"""A server to measure, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

ONETON = [sys.executable, "-m", "oneton"]
SEARCH = "/api/v1/face/one-to-n/search"


class Api:
    """Requests made beforehand, over kept-alive connections, one a thread; little of a client."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._local = threading.local()

    def __call__(self, number: int) -> None:
        if not hasattr(self._local, "connection"):
            self._local.connection = socket.create_connection(("127.0.0.1", self._port))
        connection: socket.socket = self._local.connection
        connection.sendall(self._requests[number % len(self._requests)])
        reply = b""
        while b"\r\n\r\n" not in reply or not reply.endswith(b"}"):
            received = connection.recv(65536)
            if not received:
                raise RuntimeError("the server closed the connection")
            reply += received
        if not reply.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 201 ")):
            raise RuntimeError(f"the server answered {reply[:600]!r}")


def bare_environ() -> dict[str, str]:
    """The environment without any setting of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ONETON_")}


@contextmanager
def running_server(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[int]:
    """`oneton serve` in a folder of its own; yields its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [*ONETON, "serve"],
        cwd=folder,
        env={**bare_environ(), "ONETON_PORT": str(port), **(settings or {})},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "serve.log").open("w"),
    )
    try:
        for _ in range(300):
            try:
                with urlopen(f"http://127.0.0.1:{port}/readyz"):
                    break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def run(folder: Path, *arguments: str, expect: tuple[int, ...] = (0,)) -> str:
    """Run `oneton ...` in the server's folder; returns what it printed."""
    done = subprocess.run(
        [*ONETON, *arguments],
        cwd=folder,
        env=bare_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in expect:
        raise RuntimeError(f"oneton {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def token_of(
    folder: Path,
    port: int,
    tenant: str,
    threshold: float = 50,
    target_fpir: float | None = None,
    allow: Iterable[str] = (),
) -> str:
    """A token of a new tenant, with the permissions that keys have by default, or these."""
    target = () if target_fpir is None else ("--target-fpir", str(target_fpir))
    run(folder, "tenant", "create", tenant, "--threshold", str(threshold), *target)
    allowed = [word for each in allow for word in ("--allow", str(each))]
    made = json.loads(run(folder, "key", "create", "--tenant", tenant, *allowed, "--json"))
    form = f"grant_type=client_credentials&client_id={made['client_id']}"
    form += f"&client_secret={made['client_secret']}"
    with urlopen(Request(f"http://127.0.0.1:{port}/api/oauth/token", form.encode())) as reply:
        return str(json.load(reply)["access_token"])
