"""Where faces to import come from: one iterator of items, whatever holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from oneton.domain.model import FaceNote

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
"""Of files that count as photos where nothing names them."""
MANIFESTS = ("manifest.csv", "faces.jsonl", "metadata.jsonl")
"""Tables that say what goes with the photos beside them; the first that is there is taken."""


class ItemError(Exception):
    """One item cannot be read; others may.

    Attributes:
        reason: one word, for counting.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Note(msgspec.Struct, frozen=True):
    """What a table says of a photo.

    Attributes:
        gallery: where it goes; None is where the import goes.
        idempotency_key: the caller's own, in place of the photo's name and content.
        problem: what is wrong with its row; the photo is refused.
        nth: of the rows that name this file, from 1.
    """

    face: FaceNote = FaceNote()
    gallery: str | None = None
    idempotency_key: str | None = None
    problem: ItemError | None = None
    nth: int = 1


NOTHING = Note()


@dataclass(frozen=True)
class Item:
    """A photo to import.

    Attributes:
        name: what it is resumed and reported by; with `note.nth` unique within its source.
        read: the bytes, in a thread, given the most that are accepted; raises ItemError,
            TooLargeError, OSError, or StoreDownError when its store does not answer.
        size_bytes: None when nobody knows before it is read.
        stamp: changes when the bytes do, such as size and time; "" when nobody knows.
    """

    name: str
    read: Callable[[int], bytes]
    size_bytes: int | None = None
    stamp: str = ""
    note: Note = NOTHING


class Access(msgspec.Struct, frozen=True):
    """An S3 store, and who asks it; without a key it is asked as anybody."""

    endpoint: str
    access_key: str | None = None
    secret_key: str | None = None
    region: str | None = None


class Source(Protocol):
    """What photos lie in; each walk begins anew.

    Both methods block, and raise SettingError when it is not what it should be, in one line, or
    StoreDownError.
    """

    def count(self) -> int | None:
        """How many items there are, and whether all is well with its table; None is not known."""
        ...

    def items(self) -> Iterator[Item]:
        """Every item, in the table's order or that of the names."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


def is_photo(name: str) -> bool:
    """Whether a file counts as one by its name; hidden ones and what macOS adds do not."""
    *folders, file = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in (*folders, file))
    return not hidden and any(file.lower().endswith(suffix) for suffix in SUFFIXES)


def first_of_each_folder(names: Iterator[str]) -> Iterator[str]:
    """Of names in order, the first below each folder."""
    seen: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        if folder not in seen:
            seen.add(folder)
            yield name
