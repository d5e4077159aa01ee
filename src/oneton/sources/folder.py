"""Photos in files: below a folder, or named by a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from oneton.domain.errors import SettingError, TooLargeError
from oneton.sources import MANIFESTS, Item, ItemError, Note, first_of_each_folder, is_photo
from oneton.sources.tables import read_table

Elsewhere = Callable[[str, Note], Item]
"""An item of a name that is no file's, such as `s3://...`."""
S3 = "s3://"


class Folder:
    """Every photo below a folder, as its manifest says when it has one, else in order of name."""

    def __init__(self, folder: Path, *, first_of_folder: bool = False) -> None:
        self._folder = folder
        self._first = first_of_folder
        found = next((each for each in MANIFESTS if (folder / each).is_file()), None)
        self._table = None if found is None else Table(folder / found, inside=True)

    def count(self) -> int | None:
        """The photos there are now."""
        return self._table.count() if self._table else sum(1 for _ in self._names())

    def items(self) -> Iterator[Item]:
        """In the manifest's order, or that of the names."""
        if self._table:
            yield from self._table.items()
        else:
            for name in self._names():
                yield _file_item(self._folder / name, name, Note())

    def close(self) -> None:
        """Nothing is open."""

    def _names(self) -> Iterator[str]:
        paths = (path.relative_to(self._folder).as_posix() for path in self._files())
        names = iter(sorted(name for name in paths if is_photo(name)))
        return first_of_each_folder(names) if self._first else names

    def _files(self) -> Iterator[Path]:
        return (path for path in self._folder.rglob("*") if path.is_file())


class Table:
    """The photos that a CSV or a file of JSON lines names, by paths relative to it.

    Args:
        inside: refuse what lies outside of its folder, for it came with the photos.
        elsewhere: makes items of names that begin with `s3://`.
    """

    def __init__(
        self, path: Path, *, inside: bool = False, elsewhere: Elsewhere | None = None
    ) -> None:
        self._path = path
        self._inside = inside
        self._elsewhere = elsewhere

    def count(self) -> int | None:
        """Its rows."""
        return sum(1 for _ in self.items())

    def items(self) -> Iterator[Item]:
        """In its order."""
        try:
            with self._path.open(newline="", encoding="utf-8-sig") as file:
                for name, note in read_table(file, str(self._path)):
                    yield self._item(name, note)
        except OSError as error:
            raise SettingError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Nothing is open between two walks."""

    def _item(self, name: str, note: Note) -> Item:
        if name.startswith(S3) and self._elsewhere is not None:
            return self._elsewhere(name, note)
        if not name:
            return missing(note)
        if "\0" in name:
            return refused(name, note, "BadName", "its name has a zero character")
        path = self._path.parent / name
        if self._inside and not path.resolve().is_relative_to(self._path.parent.resolve()):
            return refused(name, note, "BadName", "it lies outside of the folder")
        return _file_item(path, name, note)


def missing(note: Note) -> Item:
    """A row without a file, as of a face whose image was erased."""
    name = f"({note.face.external_id or 'no name'})"
    return refused(name, note, "NoFile", "the table names no file for it")


def refused(name: str, note: Note, reason: str, message: str) -> Item:
    """An item that is not read."""
    problem = note.problem or ItemError(reason, message)
    return Item(name, _never, 0, "", msgspec.structs.replace(note, problem=problem))


def _never(_limit_bytes: int) -> bytes:
    raise AssertionError("an item with a problem is not read")


def _file_item(path: Path, name: str, note: Note) -> Item:
    try:
        found = path.stat()
    except (OSError, ValueError):
        # The reading says what is wrong.
        return Item(name, partial(_read, path), 0, "", note)
    stamp = f"{found.st_size}-{found.st_mtime_ns}"
    return Item(name, partial(_read, path), found.st_size, stamp, note)


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        return at_most(file.read(limit_bytes + 1), limit_bytes)


def at_most(data: bytes, limit_bytes: int) -> bytes:
    """Pass on what was read with one byte more allowed than may be."""
    if len(data) > limit_bytes:
        raise TooLargeError(limit_bytes=limit_bytes)
    return data
