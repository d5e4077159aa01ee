"""Tables that say what goes with photos: CSV, or one JSON object a line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import msgspec

from oneton.domain.errors import SettingError
from oneton.domain.metadata import InvalidMetadataError, checked_metadata
from oneton.domain.model import FaceNote
from oneton.sources import ItemError, Note

FILE_COLUMNS = ("file", "image")
METADATA_PREFIX = "metadata."
LONGEST_ID = 255
LONGEST_LINE = 200_000
"""Characters of a line of JSON: the longest metadata, and what may stand beside it."""

Row = tuple[str, Note]
"""A file's name as the table has it, and what goes with it."""


class _JsonRow(msgspec.Struct):
    file: str | None = None
    image: str | None = None
    external_id: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"")
    gallery: str | None = None
    idempotency_key: str | None = None


def read_table(file: TextIO, name: str) -> Iterator[Row]:
    """The rows of a table, by its name's ending.

    Raises:
        SettingError: it is not such a table, with the line where it ceases to be one.
    """
    rows = _json_rows(file, name) if _is_jsonl(name) else _csv_rows(file, name)
    # Hashes, for a table may have millions of names.
    seen: dict[int, int] = {}
    try:
        for found, note in rows:
            nth = seen[hash(found)] = seen.get(hash(found), 0) + 1
            yield found, note if nth == 1 else msgspec.structs.replace(note, nth=nth)
    except UnicodeDecodeError as error:
        raise SettingError(f"{name} is not UTF-8: {error.reason}") from error


def is_table(name: str) -> bool:
    """Whether a file is taken for a table by its name."""
    return name.lower().endswith(".csv") or _is_jsonl(name)


def _is_jsonl(name: str) -> bool:
    return name.lower().endswith((".jsonl", ".ndjson"))


def _csv_rows(file: TextIO, name: str) -> Iterator[Row]:
    reader = csv.DictReader(_without_nul(file), strict=True)
    try:
        columns = reader.fieldnames or []
        column = next((each for each in FILE_COLUMNS if each in columns), None)
        if column is None:
            raise SettingError(f"{name} has no column named file")
        for row in reader:
            if None in row or any(value is None for value in row.values()):
                problem = ItemError("BadRow", f"line {reader.line_num} has not one field a column")
                yield row.get(column) or f"line {reader.line_num}", Note(problem=problem)
                continue
            yield row[column], _note_of_row(row)
    except csv.Error as error:
        raise SettingError(f"{name} is not a CSV: line {reader.line_num}: {error}") from error


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if "\0" in line:
            raise csv.Error("a zero character")
        yield line


def _note_of_row(row: dict[str, str]) -> Note:
    texts = {
        key.removeprefix(METADATA_PREFIX): value
        for key, value in row.items()
        if key.startswith(METADATA_PREFIX) and value
    }
    try:
        metadata = _merge(row.get("metadata") or "", texts)
    except ItemError as problem:
        return Note(problem=problem)
    return _note(row.get("external_id"), metadata, row.get("gallery"), row.get("idempotency_key"))


def _merge(metadata: str, texts: dict[str, str]) -> bytes:
    if not texts:
        return metadata.encode()
    try:
        known: Any = msgspec.json.decode(metadata) if metadata else {}
    except msgspec.DecodeError as error:
        raise ItemError("BadMetadata", f"metadata: {error}") from error
    if not isinstance(known, dict):
        raise ItemError("BadMetadata", "metadata is no object that its columns could go with")
    return msgspec.json.encode(known | texts)


def _json_rows(file: TextIO, name: str) -> Iterator[Row]:
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) >= LONGEST_LINE:
            raise SettingError(f"{name}: line {number} is longer than {LONGEST_LINE} characters")
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=_JsonRow)
        except (msgspec.DecodeError, RecursionError) as error:
            raise SettingError(f"{name}: line {number}: {error}") from error
        note = _note(row.external_id, bytes(row.metadata), row.gallery, row.idempotency_key)
        yield row.file or row.image or "", note


def _note(external_id: str | None, metadata: bytes, gallery: str | None, key: str | None) -> Note:
    for word, text in (("external_id", external_id), ("idempotency_key", key)):
        if text and (len(text) > LONGEST_ID or "\0" in text):
            return Note(problem=ItemError("BadRow", f"{word} is longer than {LONGEST_ID}"))
    try:
        kept = checked_metadata(msgspec.Raw(metadata) if metadata else None)
    except InvalidMetadataError as error:
        return Note(problem=ItemError("BadMetadata", f"metadata: {error}"))
    face = FaceNote(external_id=external_id or None, metadata=kept)
    return Note(face=face, gallery=gallery or None, idempotency_key=key or None)
