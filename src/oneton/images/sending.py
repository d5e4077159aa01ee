"""Sending a file over HTTP as it is read."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from threading import Event

import urllib3

from oneton.images.blocks import go_on

ANSWER_TIMEOUT_S = 30.0
"""A store may bring half a gigabyte to its disks before it answers."""


def send_file(
    http: urllib3.PoolManager, url: str, path: Path, stop: Event
) -> urllib3.BaseHTTPResponse:
    """PUT a file, sent as it is read.

    Raises:
        OSError: it cannot be opened.
        urllib3.exceptions.HTTPError: no answer, or it could not be read to its end.
    """
    with _StoppableFile(path, stop) as file:
        return http.request(
            "PUT",
            url,
            body=file,
            headers={"Content-Length": str(os.fstat(file.fileno()).st_size)},
            timeout=urllib3.Timeout(connect=10.0, read=ANSWER_TIMEOUT_S),
            redirect=False,
        )


class _StoppableFile(FileIO):
    """A file to send; reading it raises StoreDownError once it need not be sent any more."""

    def __init__(self, path: Path, stop: Event) -> None:
        super().__init__(path)
        self._stop = stop

    def read(self, size: int | None = -1, /) -> bytes:
        go_on(self._stop)
        return super().read(-1 if size is None else size)
