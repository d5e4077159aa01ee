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

    @property
    def work(self) -> Path:
        """A folder for files that are of no use later; it goes when the sink does."""
        ...

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
        SettingError: there is something of that name already, another export writes it, or it
            cannot be written.
    """
    beside = out.with_name(out.name + WRITING)
    try:
        beside.mkdir(mode=0o700)
        try:
            # Looked at now, for another export may have ended just before.
            if out.exists() and not (out.is_dir() and not any(out.iterdir())):
                raise SettingError(f"--out {out}: it is there already")
            return _Zip(out, beside) if out.suffix.lower() == ".zip" else _Folder(out, beside)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except FileExistsError as error:
        raise SettingError(
            f"--out {out}: another export is writing it; if none is, one was cut off: delete "
            f"{beside}"
        ) from error
    except OSError as error:
        raise SettingError(f"--out {out}: {error.strerror}") from error


class _Beside:
    """What is written lies in a folder of its own, which no other export takes."""

    def __init__(self, out: Path, beside: Path) -> None:
        self._out, self._beside = out, beside
        self._whole = beside / "whole"
        self.work = beside / "work"
        self.work.mkdir(mode=0o700)
        self._ended = False

    def _name(self) -> None:
        self._whole.replace(self._out)
        self._remove()

    def _remove(self) -> None:
        # Once: what has that name afterwards is another's.
        if self._ended:
            return
        self._ended = True
        shutil.rmtree(self._beside, ignore_errors=True)


class _Zip(_Beside):
    def __init__(self, out: Path, beside: Path) -> None:
        super().__init__(out, beside)
        descriptor = os.open(self._whole, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
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
        self._name()

    def abandon(self) -> None:
        with suppress(OSError, ValueError):
            self._zip.close()
        with suppress(OSError):
            self._file.close()
        self._remove()


class _Folder(_Beside):
    def __init__(self, out: Path, beside: Path) -> None:
        super().__init__(out, beside)
        self._whole.mkdir(mode=0o700)

    def add(self, name: str, data: bytes) -> None:
        path = self._whole / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)

    def add_file(self, name: str, path: Path) -> None:
        shutil.copyfile(path, self._whole / name)
        (self._whole / name).chmod(0o600)

    def finish(self) -> None:
        os.sync()
        self._name()

    def abandon(self) -> None:
        self._remove()
