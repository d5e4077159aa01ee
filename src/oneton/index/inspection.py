"""Looking at the snapshots of a machine's processes, whoever writes there; nothing is changed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from oneton.domain.errors import SnapshotError
from oneton.index.manifest import SEGMENTS, Manifest, files_of, read_manifest
from oneton.index.segment import CODES, TEMPLATES, SegmentMeta, chunks, read_codes
from oneton.index.snapshot import MANIFEST, SET_ASIDE, SnapshotFolder
from oneton.index.store import LOCK, relative_folder, replica_folders
from oneton.index.templates import check_rows

Key = tuple[Hashable, ...]
_NO_LEFTOVERS = {LOCK, ".gitkeep"}


class Found(msgspec.Struct, frozen=True):
    """A manifest file and what it names.

    Attributes:
        writer: the folder of the process that writes it, ONETON_INDEX_DIR or a `replica-N` in it.
        gallery_id: by the folder's name, as the tenant's id.
        manifest: None when it cannot be read.
        why: why it cannot.
        size_bytes: on disk, of all files together; other snapshots may share them.
        written_at_s: when the manifest file was, in seconds since 1970.
    """

    path: Path
    writer: Path
    gallery_id: str
    tenant_id: str
    set_aside: bool
    manifest: Manifest | None
    why: str
    size_bytes: int
    written_at_s: float


class Leftovers(msgspec.Struct, frozen=True):
    """Files that no manifest names; a running server may be about to name some."""

    files: int
    size_bytes: int


def find_snapshots(root: Path) -> list[Found]:
    """Every snapshot, by gallery, the newest of each writer first.

    Raises:
        OSError: the folder is there and cannot be read.
    """
    if not root.exists():
        return []
    # A folder that cannot be read is no empty one, which `glob` makes of it.
    next(root.iterdir(), None)
    found = [
        _look(path, writer)
        for writer in replica_folders(root)
        for pattern in (f"*/*/*{MANIFEST}", f"*/*/*{MANIFEST}{SET_ASIDE}")
        for path in sorted(writer.glob(pattern), reverse=True)
    ]
    return sorted(found, key=lambda each: (each.tenant_id, each.gallery_id))


def find_leftovers(found: Iterable[Found], root: Path) -> Leftovers:
    """Files of these folders that none of these snapshots names."""
    kept = {each.path for each in found}
    for each in found:
        if each.manifest is not None and not each.set_aside:
            kept |= {each.path.parent / name for name in files_of(each.manifest)}
    left = [
        path
        for path in root.rglob("*")
        if path.is_file() and path not in kept and path.name not in _NO_LEFTOVERS
    ]
    return Leftovers(len(left), sum(map(_size_bytes, left)))


def bytes_to_read(found: Iterable[Found]) -> int:
    """What `check_snapshot` has to read of these snapshots."""
    sizes = {
        _key(each.path.parent / SEGMENTS, meta): meta.faces * meta.dimension * 2
        for each in found
        if each.manifest is not None
        for meta in each.manifest.segments
    }
    return sum(sizes.values())


def check_snapshot(found: Found, checked: set[Key]) -> Iterator[int]:
    """Read every byte of a snapshot; yields the number of bytes after each step.

    Args:
        checked: segments that were whole, which others share; grows.

    Raises:
        SnapshotError: a file is missing or damaged, or the snapshot is not of this folder.
        OSError: a file cannot be read.
    """
    manifest = found.manifest
    if manifest is None:
        raise SnapshotError(found.why)
    if found.path.parent.relative_to(found.writer) != relative_folder(manifest.identity):
        raise SnapshotError("it is of another gallery or model pack")
    folder = SnapshotFolder(found.path.parent, manifest.identity)
    for meta in manifest.segments:
        key = _key(folder.segments, meta)
        if key not in checked:
            yield from _check_segment(folder.segments, meta)
            checked.add(key)
    folder.open(found.path)


def _look(path: Path, writer: Path) -> Found:
    gallery, _, tenant = path.parent.parent.name.partition(".")
    manifest, why = None, ""
    try:
        manifest = read_manifest(path)
    except (SnapshotError, OSError) as error:
        why = str(error)
    names = [] if manifest is None else [path.parent / name for name in files_of(manifest)]
    return Found(
        path=path,
        writer=writer,
        gallery_id=gallery,
        tenant_id=tenant,
        set_aside=path.name.endswith(SET_ASIDE),
        manifest=manifest,
        why=why,
        size_bytes=sum(map(_size_bytes, [path, *names])),
        written_at_s=_written_at_s(path),
    )


def _key(segments: Path, meta: SegmentMeta) -> Key:
    """What tells a segment's files from others; replicas share theirs by links."""
    try:
        files = [(segments / f"{meta.name}{suffix}").stat() for suffix in (TEMPLATES, CODES)]
    except OSError:
        return (segments, meta.name)
    return (meta.sha256, *((file.st_dev, file.st_ino) for file in files))


def _check_segment(folder: Path, meta: SegmentMeta) -> Iterator[int]:
    """Read a segment's files; maps nothing, for a bad sector that is mapped ends the process."""
    _, _, checks = read_codes(folder, meta)
    path = folder / f"{meta.name}{TEMPLATES}"
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise SnapshotError(f"{path.name} is missing") from error
    with file:
        for rows in chunks(meta.faces):
            data = file.read(len(rows) * meta.dimension * 2)
            if len(data) < len(rows) * meta.dimension * 2:
                raise SnapshotError(f"{path.name} ends too soon")
            templates = np.frombuffer(data, dtype="<f2").reshape(-1, meta.dimension)
            if not np.array_equal(check_rows(templates), checks[rows]):
                raise SnapshotError(f"{path.name}: a template is not what was written")
            yield len(data)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _written_at_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
