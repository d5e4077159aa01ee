"""Where an export is written: a folder or a zip, beside its name and renamed once it is whole."""

from __future__ import annotations

import os
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from oneton.domain.errors import SettingError

WRITING = ".writing"
BLOCK_BYTES = 1 << 20


class Sink(Protocol):
    """Files by name; every method blocks."""

    def add(self, name: str, data: bytes) -> None:
        """Write a file that does not get smaller, as a photo."""
        ...

    def add_file(self, name: str, path: Path) -> None:
        """Copy a file of any size."""
        ...

    def finish(self) -> None:
        """Give it its name."""
        ...

    def abandon(self) -> None:
        """Leave nothing; after `finish` this does nothing."""
        ...


def open_sink(out: Path) -> Sink:
    """A zip by its name's ending, else a folder.

    Raises:
        SettingError: there is something of that name already, or it cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SettingError(f"--out {out}: it is there already")
    beside = out.with_name(out.name + WRITING)
    try:
        return _Zip(out, beside) if out.suffix.lower() == ".zip" else _Folder(out, beside)
    except OSError as error:
        raise SettingError(f"--out {out}: {error.strerror}") from error


class _Zip:
    def __init__(self, out: Path, beside: Path) -> None:
        self._out, self._beside = out, beside
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = open(descriptor, "w+b")  # noqa: SIM115
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)

    def add(self, name: str, data: bytes) -> None:
        self._zip.writestr(name, data)

    def add_file(self, name: str, path: Path) -> None:
        self._zip.write(path, name, zipfile.ZIP_DEFLATED)

    def finish(self) -> None:
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._beside.replace(self._out)

    def abandon(self) -> None:
        with suppress(OSError, ValueError):
            self._zip.close()
        with suppress(OSError):
            self._file.close()
        self._beside.unlink(missing_ok=True)


class _Folder:
    def __init__(self, out: Path, beside: Path) -> None:
        self._out, self._beside = out, beside
        if beside.exists():
            shutil.rmtree(beside)
        beside.mkdir(mode=0o700)

    def add(self, name: str, data: bytes) -> None:
        path = self._beside / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)

    def add_file(self, name: str, path: Path) -> None:
        shutil.copyfile(path, self._beside / name)
        (self._beside / name).chmod(0o600)

    def finish(self) -> None:
        os.sync()
        self._beside.rename(self._out)

    def abandon(self) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)
