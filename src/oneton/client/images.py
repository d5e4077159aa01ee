"""Pictures that callers give: bytes, a path, or an open file."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import BinaryIO, TypeAlias

from oneton.client.flows import Do, Flow

Picture: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""Bytes of a JPEG, PNG, WebP, BMP or TIFF, a path to one, or one opened for reading bytes."""


def as_base64(picture: Picture) -> Flow[str]:
    """A picture as the API takes it; a file is read off the event loop.

    Raises:
        OSError: the file cannot be read.
        TypeError: it is no picture, such as a file that was opened as text.
    """
    if isinstance(picture, bytes | bytearray | memoryview):
        return base64.b64encode(picture).decode()
    text: str = yield Do(lambda: base64.b64encode(_read(picture)).decode())
    return text


def _read(picture: str | os.PathLike[str] | BinaryIO) -> bytes:
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    data = picture.read()
    if not isinstance(data, bytes):
        raise TypeError("a picture's file must be opened for reading bytes: open(path, 'rb')")
    return data
