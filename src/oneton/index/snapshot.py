"""Snapshots: a manifest that names immutable segment files, and the rest of an index's state.

In a gallery's folder:

    segments/<name>.codes .templates    see `segment.py`
    <head>-<name>.state                 removed faces and the open tail, at that head
    <head>-<name>.json                  the manifest, written last
    *.set-aside                         manifests that could not be used

A file is written beside and renamed, so it is whole or not there.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from oneton.domain.errors import SnapshotError
from oneton.index.files import read_checked, sync_folder, write_durably
from oneton.index.ranking import Part
from oneton.index.segment import CODES, TEMPLATES, SegmentMeta, open_segment
from oneton.index.segmented import View
from oneton.index.tail import Tail
from oneton.index.templates import check_rows, unit_rows

log = structlog.get_logger()

FORMAT = 1
KEPT = 2
ANCHORS = 16
SEGMENTS = "segments"
SET_ASIDE = ".set-aside"


class Identity(msgspec.Struct, frozen=True):
    """Whose faces these are; another's snapshot is never opened."""

    tenant_id: str
    gallery_id: str
    gallery_no: int
    model_pack: str
    model_sha256: str
    dimension: int


class Anchor(msgspec.Struct, frozen=True):
    """A face by which Postgres is known to be the one that the snapshot was taken of."""

    face_no: int
    check: int


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot consists of.

    Attributes:
        head: the gallery's, that it answers for.
        faces: that it ranks.
        anchors: its newest faces.
    """

    identity: Identity
    head: int
    faces: int
    taken_at_s: float
    segments: tuple[SegmentMeta, ...]
    state_file: str
    state_sha256: str
    anchors: tuple[Anchor, ...]


class Envelope(msgspec.Struct, frozen=True):
    """The manifest file: the format comes first, whatever follows it."""

    format: int
    sha256: str
    manifest: msgspec.Raw


class Opened(msgspec.Struct, frozen=True):
    """A snapshot ready to search."""

    manifest: Manifest
    view: View


class SnapshotFolder:
    """One gallery's snapshots under one model pack; one process writes here."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self._identity = identity

    @property
    def segments(self) -> Path:
        """Where segments are."""
        return self.folder / SEGMENTS

    def manifests(self) -> list[Path]:
        """Manifest files, newest head first; none when nothing can be read."""
        try:
            return sorted(self.folder.glob("*.json"), key=lambda path: path.name, reverse=True)
        except OSError as error:
            log.warning("snapshots cannot be read", folder=str(self.folder), error=str(error))
            return []

    def open_newest(self) -> Opened | None:
        """The newest snapshot that is whole; those that are not are set aside."""
        for path in self.manifests():
            try:
                return self.open(path)
            except (SnapshotError, OSError) as error:
                self.set_aside(path, str(error))
        return None

    def open(self, path: Path) -> Opened:
        """Map a snapshot's segments and read the rest.

        Raises:
            SnapshotError: a file is missing or damaged, or the snapshot is of another gallery,
                model pack or format.
            OSError: a file cannot be read.
        """
        manifest = read_manifest(path)
        if manifest.identity != self._identity:
            raise SnapshotError("it is of another gallery or model pack")
        segments = [open_segment(self.segments, meta) for meta in manifest.segments]
        removed, tail = _read_state(
            read_checked(self.folder / manifest.state_file, manifest.state_sha256),
            self._identity.dimension,
        )
        parts = tuple(Part.whole(segment).without(removed) for segment in segments)
        found = len(tail) + sum(len(part) for part in parts)
        if found != manifest.faces:
            raise SnapshotError(f"it has {found} faces, not {manifest.faces}")
        return Opened(manifest, View(manifest.head, parts, tail))

    def set_aside(self, path: Path, why: str) -> None:
        """Say once that a snapshot cannot be used, and make sure that it is not tried again."""
        log.warning("snapshot set aside", snapshot=str(path), why=why)
        try:
            for earlier in self.folder.glob(f"*{SET_ASIDE}"):
                earlier.unlink(missing_ok=True)
            path.replace(path.with_name(path.name + SET_ASIDE))
        except OSError as error:
            log.warning("it stays where it is", snapshot=str(path), error=str(error))

    def take(self, view: View, taken_at_s: float) -> Manifest | None:
        """Write a snapshot of a view; None when a segment of it has no files.

        Raises:
            OSError: no room, or no permission; what was begun is removed.
        """
        metas = [part.segment.meta for part in view.parts]
        if any(meta is None for meta in metas):
            return None
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{view.head:019d}-{uuid4().hex[:8]}"
        state = _write_state(view)
        manifest = Manifest(
            identity=self._identity,
            head=view.head,
            faces=len(view.tail) + sum(len(part) for part in view.parts),
            taken_at_s=taken_at_s,
            segments=tuple(meta for meta in metas if meta is not None),
            state_file=f"{name}.state",
            state_sha256=hashlib.sha256(state).hexdigest(),
            anchors=_anchors(view),
        )
        try:
            write_durably(self.folder / manifest.state_file, [state])
            write_durably(self.folder / f"{name}.json", [encode_manifest(manifest)])
        except OSError:
            (self.folder / manifest.state_file).unlink(missing_ok=True)
            raise
        sync_folder(self.folder)
        return manifest

    def tidy(self, in_use: set[str]) -> None:
        """Keep the newest two snapshots, and the segments that these or the index use."""
        kept: set[str] = set(in_use)
        states: set[str] = set()
        for place, path in enumerate(self.manifests()):
            if place >= KEPT:
                path.unlink(missing_ok=True)
                continue
            try:
                manifest = read_manifest(path)
            except (SnapshotError, OSError) as error:
                self.set_aside(path, str(error))
                continue
            kept |= {meta.name for meta in manifest.segments}
            states.add(manifest.state_file)
        for path in self.folder.glob("*.state"):
            if path.name not in states:
                path.unlink(missing_ok=True)
        for path in self.segments.glob("*"):
            if path.name.split(".")[0] not in kept:
                path.unlink(missing_ok=True)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file.

    Raises:
        SnapshotError: it is damaged, or of a newer format.
        OSError: it cannot be read.
    """
    try:
        envelope = msgspec.json.decode(path.read_bytes(), type=Envelope)
        if envelope.format != FORMAT:
            raise SnapshotError(f"format {envelope.format}; this version reads {FORMAT}")
        if hashlib.sha256(bytes(envelope.manifest)).hexdigest() != envelope.sha256:
            raise SnapshotError("the manifest is not what was written")
        return msgspec.json.decode(envelope.manifest, type=Manifest)
    except FileNotFoundError as error:
        raise SnapshotError("the manifest is missing") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SnapshotError(f"the manifest cannot be read: {error}") from error


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest file."""
    body = msgspec.json.encode(manifest)
    return msgspec.json.encode(
        Envelope(FORMAT, hashlib.sha256(body).hexdigest(), msgspec.Raw(body))
    )


def files_of(manifest: Manifest) -> Iterator[str]:
    """Names of a snapshot's files within its folder, the manifest's own left out."""
    for meta in manifest.segments:
        yield f"{SEGMENTS}/{meta.name}{TEMPLATES}"
        yield f"{SEGMENTS}/{meta.name}{CODES}"
    yield manifest.state_file


def _write_state(view: View) -> bytes:
    kept = np.flatnonzero(view.tail.face_nos[: view.tail.size] >= 0)
    gone = [part.segment.face_nos[~part.alive] for part in view.parts]
    packed = io.BytesIO()
    np.savez(
        packed,
        removed=np.concatenate([*gone, np.empty(0, dtype=np.int64)]),
        face_nos=view.tail.face_nos[kept],
        templates=view.tail.rows[kept].astype("<f2"),
    )
    return packed.getvalue()


def _read_state(data: bytes, dimension: int) -> tuple[NDArray[np.int64], Tail]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            removed, face_nos = arrays["removed"], arrays["face_nos"]
            rows = unit_rows(arrays["templates"])
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SnapshotError(f"the state cannot be read: {error}") from error
    return removed, Tail.empty(dimension).with_added(face_nos, rows)


def _anchors(view: View) -> tuple[Anchor, ...]:
    """The newest faces of every part, of which the newest few count."""
    newest: dict[int, int] = {}
    for part in view.parts:
        rows = np.flatnonzero(part.alive)[-ANCHORS:]
        checks = check_rows(part.segment.templates(rows)) if len(rows) else ()
        newest |= dict(zip(part.segment.face_nos[rows].tolist(), map(int, checks), strict=True))
    kept = np.flatnonzero(view.tail.face_nos[: view.tail.size] >= 0)[-ANCHORS:]
    if len(kept):
        checks = check_rows(view.tail.rows[kept].astype(np.float16))
        newest |= dict(zip(view.tail.face_nos[kept].tolist(), map(int, checks), strict=True))
    return tuple(Anchor(no, newest[no]) for no in sorted(newest)[-ANCHORS:])
