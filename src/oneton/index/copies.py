"""A snapshot's files on their way to another place, and back."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from oneton.domain.errors import SnapshotError
from oneton.index.files import read_checked, sync_folder
from oneton.index.manifest import SEGMENTS, Identity, Manifest, files_of, read_manifest
from oneton.index.segment import SegmentMeta, chunks, open_segment
from oneton.index.store import relative_folder

OUTGOING = ".outgoing"
"""Links to the files that are being copied, which the folder may have deleted meanwhile."""
INCOMING = ".incoming"
"""Files that come, until all that their manifest names are here."""
_FILE_NAME = re.compile(r"[0-9A-Za-z_-]{1,100}(\.[a-z]{1,20})?")
_MANIFEST_NAME = re.compile(r"(\d{1,19})-\w{1,100}\.json")


def copy_folder(identity: Identity) -> str:
    """Where copies of a gallery's snapshots under one model pack belong, a path of three parts."""
    return f"{identity.tenant_id}/{identity.gallery_id}/{relative_folder(identity).name}"


def manifest_name(manifest: Manifest) -> str:
    """The name of a manifest's own file."""
    return Path(manifest.state_file).with_suffix(".json").name


def head_of(name: str) -> int:
    """The head that a manifest's name tells; -1 when it is not the name of one."""
    found = _MANIFEST_NAME.fullmatch(name)
    return int(found[1]) if found else -1


def segment_files(manifest: Manifest, meta: SegmentMeta) -> list[str]:
    """Names of a segment's files within a gallery's folder."""
    return [name for name in files_of(manifest) if name.startswith(f"{SEGMENTS}/{meta.name}.")]


def hold(folder: Path, manifest: Manifest) -> tuple[Path, dict[str, int]]:
    """Keep a snapshot's files from being deleted, until `let_go`; for one snapshot at a time.

    Returns:
        where they are, and the bytes of each by its name, the manifest's own left out. On a disk
        without links it is the folder itself, whose files may vanish.

    Raises:
        OSError: one is gone already.
    """
    let_go(folder)
    held = folder / OUTGOING
    names = [*files_of(manifest), manifest_name(manifest)]
    _make_private(held)
    try:
        for name in names:
            os.link(folder / name, held / name)
    except FileNotFoundError:
        raise
    except OSError:
        held = folder
    return held, {name: (held / name).stat().st_size for name in names[:-1]}


def let_go(folder: Path) -> None:
    """Remove what `hold` made."""
    shutil.rmtree(folder / OUTGOING, ignore_errors=True)


def read_copied(path: Path, identity: Identity) -> Manifest:
    """Read a manifest that comes from elsewhere, by its own name.

    Raises:
        SnapshotError: it is damaged, of another format, gallery or model pack, or has names that no
            snapshot has.
        OSError: it cannot be read.
    """
    manifest = read_manifest(path)
    if manifest.identity != identity:
        raise SnapshotError("it is of another gallery or model pack")
    names = [manifest.state_file, *(meta.name for meta in manifest.segments)]
    if manifest_name(manifest) != path.name or not all(map(_FILE_NAME.fullmatch, names)):
        raise SnapshotError("it has names that no snapshot has")
    return manifest


def check_segment(segments: Path, meta: SegmentMeta) -> None:
    """Read a segment's files whole.

    Raises:
        SnapshotError: one is missing, or not what was written.
        OSError: one cannot be read.
    """
    segment = open_segment(segments, meta)
    for rows in chunks(len(segment)):
        segment.templates(rows)


def has_segment(segments: Path, meta: SegmentMeta) -> bool:
    """Whether both files are here, and whole."""
    try:
        check_segment(segments, meta)
    except SnapshotError:
        return False
    return True


def check_state(folder: Path, manifest: Manifest) -> None:
    """Read the state.

    Raises:
        SnapshotError: it is missing, or not what was written.
        OSError: it cannot be read.
    """
    read_checked(folder / manifest.state_file, manifest.state_sha256)


def make_room(folder: Path) -> Path:
    """Where files may come in, empty, until `clear_room`."""
    clear_room(folder)
    _make_private(folder / INCOMING)
    return folder / INCOMING


def clear_room(folder: Path) -> None:
    """Remove what came in and was not accepted."""
    shutil.rmtree(folder / INCOMING, ignore_errors=True)


def accept(folder: Path, manifest: Manifest) -> None:
    """Make a snapshot of what came in and what was here; its manifest goes last."""
    incoming = folder / INCOMING
    (folder / SEGMENTS).mkdir(mode=0o700, exist_ok=True)
    for name in files_of(manifest):
        if (incoming / name).exists():
            (incoming / name).replace(folder / name)
    sync_folder(folder / SEGMENTS)
    sync_folder(folder)
    name = manifest_name(manifest)
    (incoming / name).replace(folder / name)
    sync_folder(folder)


def _make_private(folder: Path) -> None:
    """Make a folder as a gallery's is, and that one when need be."""
    for each in (folder.parent.parent, folder.parent, folder, folder / SEGMENTS):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
