"""What an import has done so far, and the report that is made of it.

The journal lies beside the report until the import is through: one JSON line an item, after a first
one that says which import it is of. A last line that a crash cut short is cut off.
"""

from __future__ import annotations

import csv
import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec

from oneton.domain.errors import SettingError
from oneton.domain.model import FaceId, TenantId
from oneton.index.files import WRITING
from oneton.sources import Item
from oneton.verbs.import_lines import Came, Line

PARTIAL = ".partial"
COLUMNS = ("file", "outcome", "oneToNVerificationId", "score", "reason", "message")
FORMAT = 1


class Task(msgspec.Struct, frozen=True):
    """Which import a journal is of."""

    source: str
    tenant_id: TenantId
    gallery_no: int
    if_missing: bool
    dry_run: bool
    format: int = FORMAT


class Refused(msgspec.Struct, frozen=True):
    """A photo that was not enrolled, and why."""

    file: str
    reason: str
    message: str


class Counts(msgspec.Struct, frozen=True):
    """How many items came to what, and why."""

    by: dict[tuple[Came, str], int]

    def of(self, outcome: Came, reason: str | None = None) -> int:
        """Those of an outcome, and of one reason."""
        return sum(
            count
            for (came, why), count in self.by.items()
            if came is outcome and reason in {None, why}
        )


class Journal:
    """Held against other runs until it is closed.

    Args:
        report: where the report will be.
        restart: forget what an earlier run did.

    Raises:
        SettingError: it cannot be written, is of another import, or another run is at work.
    """

    def __init__(self, report: Path, task: Task, *, restart: bool = False) -> None:
        self._report = report
        self._path = report.with_name(report.name + PARTIAL)
        self._newest: dict[bytes, int] = {}
        self._done: set[bytes] = set()
        self._lines = 0
        try:
            self._file = open(self._path, "a+b", opener=_open_private)  # noqa: SIM115
            try:
                self._open(task, restart=restart)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise self._failed(error) from error

    def _open(self, task: Task, *, restart: bool) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingError(f"another import is at work with {self._path}") from error
        if restart:
            self._file.truncate(0)
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):
            self._file.truncate(0)
            self._write(msgspec.json.encode(task) + b"\n")
            return
        try:
            same = msgspec.json.decode(first, type=Task) == task
        except msgspec.DecodeError:
            same = False
        if not same:
            raise SettingError(
                f"{self._path} is of another import: choose another --report, or forget it with "
                "--restart"
            )
        end = len(first)
        for line, text in self._read():
            end += len(text)
            self._remember(line)
        self._file.truncate(end)
        self._file.seek(0, os.SEEK_END)

    def has(self, item: Item) -> bool:
        """Whether an earlier run did this very item."""
        return bool(item.stamp) and _of_item(item) in self._done

    def append(self, lines: list[Line]) -> None:
        """Keep what was done, on the disk."""
        for line in lines:
            self._remember(line)
        self._write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def lines(self) -> Iterator[Line]:
        """What became of every item, as the last run that met it says."""
        self._file.seek(0)
        self._file.readline()
        for number, (line, _) in enumerate(self._read(), start=1):
            if self._newest[_digest(line.file, str(line.nth))] == number:
                yield line

    def counts(self) -> Counts:
        """How many came to what."""
        return Counts(dict(Counter((line.outcome, line.reason) for line in self.lines())))

    def finish(self) -> None:
        """Write the report in place of the journal."""
        beside = self._report.with_name(self._report.name + WRITING)
        try:
            with open(beside, "w", newline="", encoding="utf-8", opener=_open_private) as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                writer.writerows(_row(line) for line in self.lines())
            beside.replace(self._report)
            self._path.unlink()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let another run at it."""
        self._file.close()

    def _read(self) -> Iterator[tuple[Line, bytes]]:
        """Whole lines from here on."""
        while (text := self._file.readline()).endswith(b"\n"):
            try:
                yield msgspec.json.decode(text, type=Line), text
            except msgspec.DecodeError:
                return

    def _remember(self, line: Line) -> None:
        self._lines += 1
        self._newest[_digest(line.file, str(line.nth))] = self._lines
        self._done.add(_digest(line.file, str(line.nth), line.stamp))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SettingError:
        return SettingError(f"--report {self._report}: {error.strerror}")


class ImportReport(msgspec.Struct, frozen=True):
    """What an import came to, with what earlier runs of it did.

    Attributes:
        already: known by its key, as from an earlier import.
        matched: the person was there, or came before in this import.
        enrolled_as: the `oneToNVerificationId` of each file that was not refused.
    """

    enrolled: int
    already: int
    matched: int
    refused: list[Refused]
    enrolled_as: dict[str, FaceId]


def _row(line: Line) -> tuple[object, ...]:
    score = "" if line.score is None else f"{line.score:.2f}"
    return (line.file, line.outcome, line.face_id or "", score, line.reason, line.message)


def _of_item(item: Item) -> bytes:
    return _digest(item.name, str(item.note.nth), item.stamp)


def _digest(*texts: str) -> bytes:
    return blake2b("\0".join(texts).encode(errors="surrogateescape"), digest_size=12).digest()


def _open_private(path: str | Path, flags: int) -> int:
    return os.open(path, flags, 0o600)
