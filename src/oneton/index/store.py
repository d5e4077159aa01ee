"""Where the indexes of one process come from, and where their snapshots go."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import structlog

from oneton.domain.errors import SnapshotError
from oneton.domain.watching import NO_WATCH, Watch
from oneton.index.allocator import give_back
from oneton.index.files import WRITING, sync_folder, write_durably
from oneton.index.manifest import (
    SEGMENTS,
    Identity,
    KeptGallery,
    Manifest,
    files_of,
    read_manifest,
)
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.segmented import SegmentedIndex
from oneton.index.snapshot import MANIFEST, SnapshotFolder

log = structlog.get_logger()

REPLICA = "replica-"
LOCK = ".lock"
MOST_REPLICAS = 256


class IndexStore:
    """Makes indexes, and keeps their snapshots in a folder of which this process is the writer.

    The first process takes `root`, others on the same machine `root/replica-2` and so on; each
    begins with what another has written when that is newer than its own.

    Args:
        root: ONETON_INDEX_DIR.
        least_faces: smaller galleries get no files; Postgres gives them back in no time.
    """

    def __init__(
        self,
        root: Path,
        policy: Policy,
        threads: ScanThreads,
        least_faces: int,
        *,
        watch: Watch = NO_WATCH,
    ) -> None:
        self._root = root
        self._policy = policy
        self._threads = threads
        self._least = least_faces
        self._watch = watch
        self._refused: set[str] = set()
        self._lock: int | None = None
        self.folder = self._claim()

    @property
    def is_first(self) -> bool:
        """Whether this process writes to ONETON_INDEX_DIR itself."""
        return self.folder == self._root

    def open(self, identity: Identity) -> tuple[SegmentedIndex, Manifest | None]:
        """The index of the newest snapshot that is whole, or an empty one.

        What damage there is has been said and set aside.
        """
        kept = self._snapshots(identity)
        index = SegmentedIndex(
            identity.dimension,
            folder=None if kept is None else kept.segments,
            policy=self._policy,
            threads=self._threads,
        )
        if kept is None:
            return index, None
        self._adopt(kept)
        opened = kept.open_newest()
        if opened is None:
            return index, None
        index.start_from(opened.view)
        give_back()
        return index, opened.manifest

    def take(self, identity: Identity, index: SegmentedIndex) -> Manifest | None:
        """As `take_any`, but for galleries that are small."""
        return None if len(index) < self._least else self.take_any(identity, index)

    def take_any(self, identity: Identity, index: SegmentedIndex) -> Manifest | None:
        """Take a snapshot, and delete what is not needed any more.

        Returns:
            None when it cannot be written, which is said.

        Raises:
            SnapshotError: a template of the index is not what was written.
        """
        kept = self._snapshots(identity)
        if kept is None:
            return None
        try:
            manifest = kept.take(index.view, time.time())
        except OSError as error:
            why = error.strerror or str(error)
            log.warning("a snapshot cannot be written", folder=str(kept.folder), error=why)
            self._watch.count("snapshots", "failed")
            return None
        try:
            kept.tidy(index.files())
        except OSError as error:
            log.info("old snapshots cannot be deleted", folder=str(kept.folder), error=str(error))
        return manifest

    def set_aside(self, identity: Identity, why: str) -> None:
        """Use none of a gallery's snapshots any more, nor those that others have of it now."""
        kept = self._snapshots(identity)
        if kept is not None:
            self._refused |= {path.name for path in self._theirs(kept)}
            found = kept.manifests()
            if found:
                kept.set_aside(found, why)
            else:
                log.warning("an index is loaded anew", gallery=identity.gallery_id, why=why)

    def refuse(self, identity: Identity, manifest: Manifest, why: str) -> None:
        """Use one snapshot no more."""
        kept = self._snapshots(identity)
        assert kept is not None, "it was opened here"
        kept.set_aside([kept.manifest_path(manifest)], why)

    def discard(self, identity: Identity) -> None:
        """Delete a gallery's snapshots under a model pack that it uses no more."""
        kept = self._snapshots(identity)
        if kept is not None and kept.folder.is_dir():
            shutil.rmtree(kept.folder, ignore_errors=True)
            log.info("snapshots of a former model pack deleted", folder=str(kept.folder))

    def identities(self) -> list[Identity]:
        """Whose snapshots are here, the largest first; what cannot be read is left out."""
        found: dict[Identity, int] = {}
        folder = self.folder or self._root
        for path in sorted(folder.glob(f"*/*/*{MANIFEST}")):
            with suppress(SnapshotError, OSError):
                manifest = read_manifest(path)
                found[manifest.identity] = manifest.faces
        return sorted(found, key=lambda identity: -found[identity])

    def galleries(self) -> set[KeptGallery]:
        """Of which galleries there are files here; see `discard_gallery`."""
        found: set[KeptGallery] = set()
        for folder in self._deserted():
            for path in folder.glob("*.*/*-*"):
                gallery_id, _, tenant_id = path.parent.name.partition(".")
                number = path.name.partition("-")[0]
                if _is_uuid(tenant_id) and number.isdecimal():
                    found.add(KeptGallery(tenant_id, gallery_id, int(number)))
        return found

    def discard_gallery(self, gallery: KeptGallery) -> None:
        """Delete all files of a gallery that is no more.

        The first process of a machine does so for those that ended, too.
        """
        for folder in self._deserted():
            of_name = folder / f"{gallery.gallery_id}.{gallery.tenant_id}"
            for path in of_name.glob(f"{gallery.gallery_no}-*"):
                shutil.rmtree(path, ignore_errors=True)
                log.info("snapshots of a deleted gallery deleted", folder=str(path))
            with suppress(OSError):
                # Unless there is another gallery of this name by now.
                of_name.rmdir()

    def close(self) -> None:
        """Leave the folder to another process."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _deserted(self) -> list[Path]:
        """The folders that no other process writes to: our own, and as the first all such."""
        if self.folder is None or not self.is_first:
            return [] if self.folder is None else [self.folder]
        found = [self.folder]
        for folder in replica_folders(self._root):
            with suppress(OSError):
                if folder != self.folder and not is_held(folder):
                    found.append(folder)
        return found

    def _snapshots(self, identity: Identity) -> SnapshotFolder | None:
        if self.folder is None:
            return None
        return SnapshotFolder(
            self.folder / relative_folder(identity), identity, self._refused, self._watch
        )

    def _claim(self) -> Path | None:
        """The first folder that no living process writes to."""
        for number in range(1, MOST_REPLICAS):
            folder = self._root if number == 1 else self._root / f"{REPLICA}{number}"
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = _take_lock(folder)
            except OSError as error:
                log.warning(
                    "no snapshots: the folder cannot be used",
                    folder=str(folder),
                    error=error.strerror or str(error),
                )
                return None
            if self._lock is not None:
                return folder
        return None

    def _adopt(self, own: SnapshotFolder) -> None:
        """Begin with another process's snapshot when it is newer than ours."""
        newest = next((_head(path) for path in own.manifests()), -1)
        theirs = [path for path in self._theirs(own) if _head(path) > newest]
        for path in sorted(theirs, key=_head, reverse=True):
            try:
                _link(path, own.folder)
            except (OSError, SnapshotError) as error:
                log.info("another process's snapshot is left alone", path=str(path), why=str(error))
            else:
                return

    def _theirs(self, own: SnapshotFolder) -> list[Path]:
        """Manifests that other processes have of a gallery, but for those that were refused."""
        assert self.folder is not None
        relative = own.folder.relative_to(self.folder)
        found: list[Path] = []
        for folder in replica_folders(self._root):
            with suppress(OSError):
                found += (folder / relative).glob(f"*{MANIFEST}") if folder != self.folder else ()
        return [path for path in found if path.name not in self._refused]


def relative_folder(identity: Identity) -> Path:
    """A gallery's folder under one model pack: names for people, made unique."""
    pack = re.sub(r"[^A-Za-z0-9_.-]", "_", identity.model_pack).strip(".") or "pack"
    fill = f"-{identity.fill}" if identity.fill else ""
    return Path(
        f"{identity.gallery_id}.{identity.tenant_id}",
        # A gallery may be deleted, and another made of its name, while files of it are here.
        f"{identity.gallery_no}-{pack}-{identity.model_sha256[:12]}{fill}",
    )


def replica_folders(root: Path) -> Iterator[Path]:
    """The folders in which processes of this machine keep snapshots."""
    yield root
    try:
        yield from sorted(path for path in root.glob(f"{REPLICA}*") if path.is_dir())
    except OSError:
        return


def is_held(root: Path) -> bool:
    """Whether a living process of this machine writes to ONETON_INDEX_DIR itself.

    Raises:
        OSError: the folder cannot be used.
    """
    try:
        lock = _take_lock(root)
    except FileNotFoundError:
        return False
    if lock is not None:
        os.close(lock)
    return lock is None


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _take_lock(folder: Path) -> int | None:
    """A descriptor that holds a folder's lock while it is open; None when another has it."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise
    return lock


def _head(path: Path) -> int:
    head = path.name.partition("-")[0]
    return int(head) if head.isdigit() else -1


def _link(path: Path, folder: Path) -> None:
    """Take over a snapshot's files; its manifest comes last."""
    manifest = read_manifest(path)
    (folder / SEGMENTS).mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in files_of(manifest):
        target = folder / name
        if target.exists():
            continue
        try:
            os.link(path.parent / name, target)
        except FileNotFoundError:
            raise
        except OSError:
            beside = target.with_name(target.name + WRITING)
            shutil.copyfile(path.parent / name, beside)
            beside.replace(target)
    sync_folder(folder / SEGMENTS)
    write_durably(folder / path.name, [path.read_bytes()])
    sync_folder(folder)
