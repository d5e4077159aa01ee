"""Photos in a zip, read entry by entry: nothing is unpacked to a disk, and none of it whole."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from oneton.domain.errors import SettingError, TooLargeError
from oneton.sources import MANIFESTS, Item, ItemError, Note, first_of_each_folder, is_photo
from oneton.sources.folder import at_most, missing, refused
from oneton.sources.tables import read_table

MOST_ENTRIES = 2_000_000
MOST_GROWTH = 50
"""Times its own size that an archive may unpack to, beyond `FREE_BYTES`; photos hardly shrink."""
FREE_BYTES = 64 << 20
_ENCRYPTED = 0x1
_UNIX = 3
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


class Archive:
    """The photos of a zip, as its manifest says when it has one, else in order of name.

    Raises:
        SettingError: it is no zip, or holds what none should: entries that are encrypted, links,
            named twice or named to lie outside, or far more than its size tells.
    """

    def __init__(self, path: Path, *, first_of_folder: bool = False) -> None:
        self._path = path
        self._first = first_of_folder
        try:
            self._zip = zipfile.ZipFile(path)
        except (*_BROKEN, ValueError) as error:
            raise SettingError(f"{path.name} is no zip that can be read: {error}") from error
        try:
            self._entries = self._checked()
        except BaseException:
            self._zip.close()
            raise
        self._manifest = _manifest_of(self._entries)

    def count(self) -> int | None:
        """Its photos, or the manifest's rows."""
        return sum(1 for _ in self.items())

    def items(self) -> Iterator[Item]:
        """In the manifest's order, or that of the names."""
        if self._manifest is None:
            names = iter(sorted(name for name in self._entries if is_photo(name)))
            for name in first_of_each_folder(names) if self._first else names:
                yield self._item(name, name, Note())
            return
        folder = self._manifest[: self._manifest.rfind("/") + 1]
        shown = f"{self._path.name}: {self._manifest}"
        try:
            with (
                self._zip.open(self._manifest) as file,
                io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
            ):
                for name, note in read_table(text, shown):
                    yield self._item(folder + name, name, note) if name else missing(note)
        except _BROKEN as error:
            raise SettingError(f"{shown} is damaged: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _item(self, entry: str, name: str, note: Note) -> Item:
        info = self._entries.get(entry)
        if info is None:
            return refused(name, note, "FileNotFound", "the zip has no such entry")
        stamp = f"{info.file_size}-{info.CRC:08x}"
        return Item(name, partial(self._read, info), info.file_size, stamp, note)

    def _read(self, info: zipfile.ZipInfo, limit_bytes: int) -> bytes:
        if info.file_size > limit_bytes:
            raise TooLargeError(limit_bytes=limit_bytes)
        try:
            with self._zip.open(info) as file:
                return _read_all(file, limit_bytes)
        except _BROKEN as error:
            raise ItemError("BadZip", f"the entry cannot be read: {error}") from error

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        infos = self._zip.infolist()
        if len(infos) > MOST_ENTRIES:
            raise SettingError(f"{self._path.name} has more than {MOST_ENTRIES} entries")
        for info in infos:
            why = _why_not(info)
            if why is None and info.filename in entries:
                why = "is there twice"
            if why is not None:
                raise SettingError(f"{self._path.name}: entry {info.filename[:200]!r} {why}")
            if not info.is_dir():
                entries[info.filename] = info
        size, unpacked = self._path.stat().st_size, sum(each.file_size for each in infos)
        if unpacked > FREE_BYTES + MOST_GROWTH * size:
            raise SettingError(
                f"{self._path.name} would unpack to {unpacked // max(1, size)} times its size: "
                "no photos do"
            )
        return entries


def _read_all(file: IO[bytes], limit_bytes: int) -> bytes:
    return at_most(file.read(limit_bytes + 1), limit_bytes)


def _why_not(info: zipfile.ZipInfo) -> str | None:
    """What is wrong with an entry, whatever it holds."""
    name = info.orig_filename
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if name.startswith("/") or "\\" in name or name[1:2] == ":" or "\0" in name:
        return "has no relative name"
    if ".." in name.split("/"):
        return "lies outside of the archive"
    return None


def _manifest_of(entries: dict[str, zipfile.ZipInfo]) -> str | None:
    """A manifest at the top, or at the top of the only folder."""
    tops = {name.split("/")[0] for name in entries if "/" in name and is_photo(name)}
    folders = ["", *(f"{top}/" for top in tops if len(tops) == 1)]
    names = [folder + name for folder in folders for name in MANIFESTS]
    return next((name for name in names if name in entries), None)
