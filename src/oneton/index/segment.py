"""A sealed segment: codes in memory, fp16 templates in a file that is mapped into memory."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import SnapshotError
from oneton.index.codec import Codec
from oneton.index.codes import Codes, encode
from oneton.index.files import read_checked, sync_folder, write_durably
from oneton.index.templates import check_rows

CHUNK_ROWS = 16_384
SCATTERED_ROWS = 1024
"""More rows than this are read as one range."""
TEMPLATES = ".templates"
CODES = ".codes"
_SEED = 1729


class SegmentMeta(msgspec.Struct, frozen=True):
    """What a manifest says of a segment.

    Attributes:
        name: of its two files, without the suffix.
        sha256: hex, of the file of codes; within it is a check of every template.
        built_at_s: seconds since 1970.
    """

    name: str
    faces: int
    dimension: int
    sha256: str
    built_at_s: float


class Segment:
    """N templates that never change.

    Attributes:
        meta: None while the segment has no files, as on a full disk.
        face_nos: (N,) int64, ascending.
    """

    def __init__(
        self,
        codes: Codes,
        face_nos: NDArray[np.int64],
        checks: NDArray[np.uint32],
        templates: NDArray[np.float16],
        built_at_s: float,
        meta: SegmentMeta | None = None,
        mapping: mmap.mmap | None = None,
    ) -> None:
        self.codes = codes
        self.face_nos = face_nos
        self.built_at_s = built_at_s
        self.meta = meta
        self._checks = checks
        self._templates = templates
        self._mapping = mapping

    def __len__(self) -> int:
        return len(self.face_nos)

    @property
    def name(self) -> str:
        """Of its file of templates, for people."""
        return "a segment in memory" if self.meta is None else f"{self.meta.name}{TEMPLATES}"

    @property
    def dimension(self) -> int:
        """D."""
        return int(self._templates.shape[1])

    @property
    def size_bytes(self) -> int:
        """Bytes in memory; a mapped file counts nothing, for the system takes it back at need."""
        held = 0 if self.meta is not None else self._templates.nbytes
        return int(self.codes.size_bytes + self.face_nos.nbytes + self._checks.nbytes + held)

    def rows_of(self, face_nos: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of those of these faces that are here."""
        rows = np.searchsorted(self.face_nos, face_nos)
        rows = np.minimum(rows, len(self.face_nos) - 1)
        here: NDArray[np.int64] = rows[self.face_nos[rows] == face_nos]
        return here

    def templates(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """(len(rows), D) as they were enrolled.

        Raises:
            SnapshotError: one is not what was written.
        """
        return read_templates([(self, rows)])[0]

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Have rows that are not in memory read from the disk side by side."""
        if self._mapping is None or len(rows) < 2:
            return
        size = 2 * self.dimension
        first = rows if len(rows) <= SCATTERED_ROWS else rows.min(keepdims=True)
        after = first if len(rows) <= SCATTERED_ROWS else rows.max(keepdims=True)
        for start, end in zip((first * size).tolist(), (after * size).tolist(), strict=True):
            page = start - start % mmap.PAGESIZE
            self._mapping.madvise(mmap.MADV_WILLNEED, page, end + size - page)

    def take(
        self,
        rows: NDArray[np.int64],
        templates: NDArray[np.float16],
        checks: NDArray[np.uint32],
        face_nos: NDArray[np.int64],
    ) -> None:
        """Fill in some rows' templates, the checks these should have, and their faces."""
        np.take(self._templates, rows, axis=0, out=templates, mode="clip")
        np.take(self._checks, rows, out=checks, mode="clip")
        np.take(self.face_nos, rows, out=face_nos, mode="clip")

    def to_bytes(self) -> bytes:
        """The file of codes."""
        packed = io.BytesIO()
        arrays: dict[str, Any] = self.codes.to_arrays()
        np.savez(packed, face_nos=self.face_nos, checks=self._checks, **arrays)
        return packed.getvalue()


class Piece(msgspec.Struct, frozen=True):
    """Templates that go into a segment.

    Attributes:
        face_nos: (n,) int64.
        source: an array to read them from, or a segment, which checks what it reads.
        rows: (n,) rows of the source.
    """

    face_nos: NDArray[np.int64]
    source: NDArray[np.float16] | Segment
    rows: NDArray[np.int64]

    def read(self, which: NDArray[np.int64]) -> NDArray[np.float16]:
        """Some of them, (len(which), D)."""
        rows = self.rows[which]
        if isinstance(self.source, Segment):
            return self.source.templates(rows)
        return np.take(self.source, rows, axis=0)


def build_segment(
    pieces: Sequence[Piece],
    built_at_s: float,
    folder: Path | None,
    name: str,
    threads: int = 1,
    known: Codec | None = None,
) -> Segment:
    """Seal templates.

    Args:
        pieces: at least one face together.
        folder: where the two files go; None keeps everything in memory.
        known: a codec to use while it fits.

    Raises:
        OSError: the files cannot be written; what was begun is removed.
        SnapshotError: a piece's template is not what was written.
    """
    face_nos = np.concatenate([piece.face_nos for piece in pieces])
    order = np.argsort(face_nos, kind="stable")
    checks = np.empty(len(order), dtype=np.uint32)
    parts = _in_order(pieces, order, checks)
    if folder is None:
        templates = np.concatenate(list(parts))
        codes = encode(templates, np.random.RandomState(_SEED), threads, known)
        return Segment(codes, face_nos[order], checks, templates, built_at_s)
    try:
        dimension = write_durably(folder / f"{name}{TEMPLATES}", parts) // (2 * len(order))
        templates, mapping = _map(folder / f"{name}{TEMPLATES}", len(order), dimension)
        codes = encode(templates, np.random.RandomState(_SEED), threads, known)
        segment = Segment(codes, face_nos[order], checks, templates, built_at_s, mapping=mapping)
        data = segment.to_bytes()
        write_durably(folder / f"{name}{CODES}", [data])
        sync_folder(folder)
    except BaseException:
        remove_segment(folder, name)
        raise
    digest = hashlib.sha256(data).hexdigest()
    segment.meta = SegmentMeta(name, len(order), dimension, digest, built_at_s)
    return segment


def open_segment(folder: Path, meta: SegmentMeta) -> Segment:
    """Map a segment's files.

    Raises:
        SnapshotError: a file is missing, or not what was written.
        OSError: it cannot be read.
    """
    codes, face_nos, checks = read_codes(folder, meta)
    templates, mapping = _map(folder / f"{meta.name}{TEMPLATES}", meta.faces, meta.dimension)
    segment = Segment(codes, face_nos, checks, templates, meta.built_at_s, meta, mapping)
    segment.templates(np.unique(np.linspace(0, meta.faces - 1, 64).astype(np.int64)))
    return segment


def read_codes(
    folder: Path, meta: SegmentMeta
) -> tuple[Codes, NDArray[np.int64], NDArray[np.uint32]]:
    """Read a segment's file of codes, whole.

    Returns:
        codes; face_nos and the checks of their templates, (N,) each.

    Raises:
        SnapshotError: it is missing, or not what was written.
        OSError: it cannot be read.
    """
    data = read_checked(folder / f"{meta.name}{CODES}", meta.sha256)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            codes = Codes.from_arrays(arrays)
            face_nos, checks = arrays["face_nos"], arrays["checks"]
    except (ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise SnapshotError(f"{meta.name}{CODES} cannot be read: {error}") from error
    if not len(codes) == len(face_nos) == len(checks) == meta.faces:
        raise SnapshotError(f"{meta.name}{CODES} has other faces than its manifest says")
    return codes, face_nos, checks


def read_templates(
    wanted: Sequence[tuple[Segment, NDArray[np.int64]]],
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Templates of several segments in one array, and their faces.

    Raises:
        SnapshotError: one is not what was written.
    """
    ends = np.cumsum([len(rows) for _, rows in wanted])
    count = int(ends[-1]) if wanted else 0
    templates = np.empty((count, wanted[0][0].dimension if wanted else 0), dtype=np.float16)
    checks = np.empty(count, dtype=np.uint32)
    face_nos = np.empty(count, dtype=np.int64)
    for segment, rows in wanted:
        segment.expect(rows)
    for (segment, rows), end in zip(wanted, ends.tolist(), strict=True):
        here = slice(end - len(rows), end)
        segment.take(rows, templates[here], checks[here], face_nos[here])
    if count and not np.array_equal(found := check_rows(templates), checks):
        first = int(np.argmax(found != checks))
        segment, _ = wanted[int(np.searchsorted(ends, first, side="right"))]
        raise SnapshotError(f"{segment.name}: a template is not what was written")
    return templates, face_nos


def remove_segment(folder: Path, name: str) -> None:
    """Delete a segment's files; those that map them keep what they mapped."""
    for suffix in (TEMPLATES, CODES):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def chunks(count: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers below `count`, so many at a time."""
    for start in range(0, count, CHUNK_ROWS):
        yield np.arange(start, min(start + CHUNK_ROWS, count))


def _in_order(
    pieces: Sequence[Piece], order: NDArray[np.int64], checks: NDArray[np.uint32]
) -> Iterator[NDArray[np.float16]]:
    """The pieces' templates in another order, a chunk at a time; fills in their checks."""
    part_of = np.repeat(np.arange(len(pieces)), [len(piece.face_nos) for piece in pieces])
    row_of = np.concatenate([np.arange(len(piece.face_nos)) for piece in pieces])
    for chunk in chunks(len(order)):
        parts, rows = part_of[order[chunk]], row_of[order[chunk]]
        found = {part: pieces[part].read(rows[parts == part]) for part in np.unique(parts)}
        out = np.empty((len(chunk), next(iter(found.values())).shape[1]), dtype=np.float16)
        for part, templates in found.items():
            out[parts == part] = templates
        checks[chunk] = check_rows(out)
        yield out


def _map(path: Path, faces: int, dimension: int) -> tuple[NDArray[np.float16], mmap.mmap]:
    """(faces, D) of a file, read as they are asked for, and what they are read through."""
    size = faces * dimension * 2
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise SnapshotError(f"{path.name} is missing") from error
    try:
        found = os.fstat(descriptor).st_size
        if found != size:
            raise SnapshotError(f"{path.name} has {found} bytes, not {size}")
        mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, dtype="<f2").reshape(faces, dimension), mapped
