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
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from oneton.domain.errors import SnapshotError
from oneton.domain.watching import NO_WATCH, Watch
from oneton.index.codes import share_codecs
from oneton.index.files import WRITING, read_checked, sync_folder, write_durably
from oneton.index.manifest import (
    SEGMENTS,
    Anchor,
    Identity,
    Manifest,
    encode_manifest,
    read_manifest,
)
from oneton.index.ranking import Part
from oneton.index.segment import CODES, TEMPLATES, Segment, open_segment
from oneton.index.segmented import View
from oneton.index.tail import Tail
from oneton.index.templates import check_rows, unit_rows

log = structlog.get_logger()

KEPT = 2
ANCHORS = 16
MANIFEST = ".json"
STATE = ".state"
SET_ASIDE = ".set-aside"


class Opened(msgspec.Struct, frozen=True):
    """A snapshot ready to search."""

    manifest: Manifest
    view: View


class State(msgspec.Struct, frozen=True):
    """What a snapshot holds beside its segments.

    Attributes:
        removed: (R,) int64, faces of the segments that are gone.
        face_nos: (T,) int64, the open tail's.
        templates: (T, D) fp16, likewise.
    """

    removed: NDArray[np.int64]
    face_nos: NDArray[np.int64]
    templates: NDArray[np.float16]


class SnapshotFolder:
    """One gallery's snapshots under one model pack; one process writes here.

    Args:
        refused: names of manifests that are not to be opened; grows with those set aside.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        refused: set[str] | None = None,
        watch: Watch = NO_WATCH,
    ) -> None:
        self.folder = folder
        self._identity = identity
        self._refused = set() if refused is None else refused
        self._watch = watch

    @property
    def segments(self) -> Path:
        """Where segments are."""
        return self.folder / SEGMENTS

    def manifests(self) -> list[Path]:
        """Manifest files, newest head first; none when nothing can be read."""
        try:
            found = [
                path for path in self.folder.glob(f"*{MANIFEST}") if path.name not in self._refused
            ]
            return sorted(found, key=lambda path: path.name, reverse=True)
        except OSError as error:
            log.warning("snapshots cannot be read", folder=str(self.folder), error=str(error))
            return []

    def manifest_path(self, manifest: Manifest) -> Path:
        """The file of a manifest of this folder."""
        return self.folder / f"{manifest.state_file.removesuffix(STATE)}{MANIFEST}"

    def open_newest(self) -> Opened | None:
        """The newest snapshot that is whole; those that are not are set aside."""
        for path in self.manifests():
            try:
                return self.open(path)
            except (SnapshotError, OSError) as error:
                self.set_aside([path], str(error))
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
        share_codecs(segment.codes for segment in segments)
        state = _read_state(read_checked(self.folder / manifest.state_file, manifest.state_sha256))
        parts = tuple(Part.whole(segment).without(state.removed) for segment in segments)
        empty = Tail.empty(self._identity.dimension)
        tail = empty.with_added(state.face_nos, unit_rows(state.templates))
        found = len(tail) + sum(len(part) for part in parts)
        if found != manifest.faces:
            raise SnapshotError(f"it has {found} faces, not {manifest.faces}")
        return Opened(manifest, View(manifest.head, parts, tail))

    def set_aside(self, paths: Sequence[Path], why: str) -> None:
        """Say once that snapshots cannot be used, and make sure that they are not tried again."""
        said = ", ".join(map(str, paths)) or str(self.folder)
        log.warning("snapshot set aside", snapshot=said, why=why)
        self._watch.count("snapshots", "set_aside")
        self._refused |= {path.name for path in paths}
        try:
            for earlier in self.folder.glob(f"*{SET_ASIDE}"):
                earlier.unlink(missing_ok=True)
            for path in paths:
                path.replace(path.with_name(path.name + SET_ASIDE))
        except OSError as error:
            log.info("it stays where it is", snapshot=said, error=str(error))

    def take(self, view: View, taken_at_s: float) -> Manifest | None:
        """Write a snapshot of a view; None when a segment of it has no files, or lost them.

        Raises:
            SnapshotError: a template is not what was written.
            OSError: no room, or no permission; what was begun is removed.
        """
        self._forget_lost_files([part.segment for part in view.parts])
        metas = [part.segment.meta for part in view.parts]
        if any(meta is None for meta in metas):
            return None
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # By head, then by time: the newest has the last name.
        name = f"{view.head:019d}-{int(taken_at_s * 1000):012x}{uuid4().hex[:4]}"
        state = _state_of(view)
        packed = _pack_state(state)
        in_segments = sum(len(part.segment) for part in view.parts)
        manifest = Manifest(
            identity=self._identity,
            head=view.head,
            faces=in_segments - len(state.removed) + len(state.face_nos),
            taken_at_s=taken_at_s,
            segments=tuple(meta for meta in metas if meta is not None),
            state_file=f"{name}{STATE}",
            state_sha256=hashlib.sha256(packed).hexdigest(),
            anchors=_anchors(view.parts, state),
        )
        try:
            write_durably(self.folder / manifest.state_file, [packed])
            write_durably(self.folder / f"{name}{MANIFEST}", [encode_manifest(manifest)])
        except OSError:
            (self.folder / manifest.state_file).unlink(missing_ok=True)
            raise
        sync_folder(self.folder)
        return manifest

    def _forget_lost_files(self, segments: Sequence[Segment]) -> None:
        """See to it that segments whose files were deleted under us are written anew."""
        for segment in segments:
            meta = segment.meta
            if meta is not None and not all(
                (self.segments / f"{meta.name}{suffix}").exists() for suffix in (TEMPLATES, CODES)
            ):
                log.warning("a segment's files are gone; they are written anew", name=segment.name)
                segment.meta = None

    def tidy(self, in_use: set[str]) -> None:
        """Keep the newest two snapshots, and the segments that these or the index use."""
        kept: set[str] = set(in_use)
        states: set[str] = set()
        for place, path in enumerate(self.manifests()):
            if place >= KEPT:
                _delete(path)
                continue
            try:
                manifest = read_manifest(path)
            except (SnapshotError, OSError) as error:
                self.set_aside([path], str(error))
                continue
            kept |= {meta.name for meta in manifest.segments}
            states.add(manifest.state_file)
        for path in self.folder.glob(f"*{STATE}"):
            if path.name not in states:
                _delete(path)
        for path in self.folder.glob(f"*{WRITING}"):
            _delete(path)
        for path in self.segments.glob("*"):
            if path.name.split(".")[0] not in kept:
                _delete(path)


def _delete(path: Path) -> None:
    """Delete what is not needed; what cannot be deleted is no reason to keep the rest."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.info("it cannot be deleted", path=str(path), error=str(error))


def _state_of(view: View) -> State:
    """The state of a view of which faces may be removed meanwhile.

    A removal marks the face number before it clears the row, so a row that was copied first is
    whole when its face number is still there afterwards.
    """
    templates = view.tail.rows[: view.tail.size].astype("<f2")
    face_nos = view.tail.face_nos[: view.tail.size].copy()
    kept = face_nos >= 0
    gone = [part.segment.face_nos[~part.alive] for part in view.parts]
    removed = np.concatenate([*gone, np.empty(0, dtype=np.int64)])
    return State(removed, face_nos[kept], templates[kept])


def _pack_state(state: State) -> bytes:
    packed = io.BytesIO()
    arrays: dict[str, Any] = msgspec.structs.asdict(state)
    np.savez(packed, **arrays)
    return packed.getvalue()


def _read_state(data: bytes) -> State:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return State(arrays["removed"], arrays["face_nos"], arrays["templates"])
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SnapshotError(f"the state cannot be read: {error}") from error


def _anchors(parts: Sequence[Part], state: State) -> tuple[Anchor, ...]:
    """The newest faces of every part, of which the newest few count."""
    newest: dict[int, int] = {}
    for part in parts:
        rows = np.flatnonzero(part.alive)[-ANCHORS:]
        checks = check_rows(part.segment.templates(rows)) if len(rows) else ()
        newest |= dict(zip(part.segment.face_nos[rows].tolist(), map(int, checks), strict=True))
    if len(state.face_nos):
        checks = check_rows(state.templates[-ANCHORS:])
        newest |= dict(zip(state.face_nos[-ANCHORS:].tolist(), map(int, checks), strict=True))
    return tuple(Anchor(no, newest[no]) for no in sorted(newest)[-ANCHORS:])
