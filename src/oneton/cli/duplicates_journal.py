"""The folder of a duplicates report: what was found so far, and how to go on from there.

`state.json` says how far the work is and how many pairs of `found.bin` count; what a crash left
after them is cut off. The rest of the folder is written anew by every run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from oneton.domain.errors import SettingError
from oneton.domain.model import FaceId, FaceNo, GalleryId, Score, TenantId
from oneton.index.files import WRITING, sync_folder, write_durably
from oneton.verbs.duplicates import Batch, Pairs

STATE, FOUND = "state.json", "found.bin"
TABLE, PAGE, PHOTOS = "pairs.csv", "index.html", "photos"
FORMAT = 1
_RECORD = np.dtype([("earlier", "<i8"), ("later", "<i8"), ("cosine", "<f4")])


class Task(msgspec.Struct, frozen=True):
    """What a folder's report is of.

    Attributes:
        gallery_no: not reused, where the name may be.
        cosine: that the score stands for.
    """

    tenant_id: TenantId
    gallery: GalleryId
    gallery_no: int
    model_pack_no: int
    score: Score
    cosine: float


class State(msgspec.Struct, frozen=True):
    """How far the work is.

    Attributes:
        head: every pair whose later face was added up to here is known.
        pairs: records of `found.bin` that count.
        last: face_no and public name of the last probe; None before the first.
    """

    task: Task
    head: int = 0
    pairs: int = 0
    last: tuple[FaceNo, FaceId] | None = None
    format: int = FORMAT


class Journal:
    """The folder, held against other runs until it is closed.

    Args:
        folder: made when it is not there; private to the user from then on.
        restart: forget what an earlier run found.

    Raises:
        SettingError: the folder cannot be written, holds something else, another report or a
            damaged one, or another run is at work in it.
    """

    def __init__(self, folder: Path, task: Task, *, restart: bool = False) -> None:
        self.folder = folder
        try:
            self._open(task, restart=restart)
        except OSError as error:
            raise SettingError(f"--out {folder}: {error.strerror}") from error

    def _open(self, task: Task, *, restart: bool) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_ours(self.folder)
        self.folder.chmod(0o700)
        self._found = open(self.folder / FOUND, "a+b", opener=open_private)  # noqa: SIM115
        try:
            _lock(self._found.fileno(), self.folder)
            if restart:
                self._clear()
            self.state = self._read_state(task)
            self._found.truncate(self.state.pairs * _RECORD.itemsize)
            self._write_state()
        except BaseException:
            self.close()
            raise

    def append(self, batch: Batch) -> None:
        """Keep what a batch found, on the disk, before its head.

        Raises:
            SettingError: the disk is full, or the like; the run can be taken up again.
        """
        records = np.empty(len(batch.pairs), dtype=_RECORD)
        records["earlier"] = batch.pairs.earlier
        records["later"] = batch.pairs.later
        records["cosine"] = batch.pairs.cosines
        try:
            self._found.write(records.tobytes())
            self._found.flush()
            os.fsync(self._found.fileno())
            self.state = msgspec.structs.replace(
                self.state,
                head=batch.head,
                pairs=self.state.pairs + len(records),
                last=batch.last or self.state.last,
            )
            self._write_state()
        except OSError as error:
            raise SettingError(f"--out {self.folder}: {error.strerror}") from error

    def pairs(self) -> Pairs:
        """Everything that was found so far, by this run and those before, each pair once."""
        self._found.seek(0)
        data = self._found.read(self.state.pairs * _RECORD.itemsize)
        records = np.frombuffer(data, dtype=_RECORD)
        return Pairs(
            records["earlier"].astype(np.int64),
            records["later"].astype(np.int64),
            records["cosine"].astype(np.float32),
        ).once()

    def settled(self) -> int:
        """How many pairs are known that no batch to come will bring again."""
        last = self.state.last
        return 0 if last is None else int((self.pairs().later <= last[0]).sum())

    def close(self) -> None:
        """Let other runs at the folder."""
        # What could not be written is not counted, and need not be now.
        with suppress(OSError):
            self._found.close()

    def _clear(self) -> None:
        if (self.folder / PHOTOS).exists():
            shutil.rmtree(self.folder / PHOTOS)
        # The state goes last, for it says that the others are ours.
        for name in (PAGE, TABLE, STATE):
            (self.folder / name).unlink(missing_ok=True)

    def _read_state(self, task: Task) -> State:
        path = self.folder / STATE
        if not path.exists():
            return State(task)
        try:
            state = msgspec.json.decode(path.read_bytes(), type=State)
        except msgspec.DecodeError as error:
            raise SettingError(f"{path} is damaged: {error}; begin anew with --restart") from error
        differences = _differences(state, task)
        if differences:
            raise SettingError(
                f"{self.folder} holds a report of {' and '.join(differences)}: "
                "choose another --out, or begin anew with --restart"
            )
        if (self.folder / FOUND).stat().st_size < state.pairs * _RECORD.itemsize:
            raise SettingError(
                f"{self.folder / FOUND} is shorter than it was; begin anew with --restart"
            )
        return state

    def _write_state(self) -> None:
        write_durably(self.folder / STATE, [msgspec.json.encode(self.state)])
        sync_folder(self.folder)


def open_private(path: str | Path, flags: int) -> int:
    """An opener of files that only this user may read."""
    return os.open(path, flags, 0o600)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingError(f"another run is at work in {folder}") from error


def _check_ours(folder: Path) -> None:
    """Raise SettingError for a folder that has other things in it."""
    begun = (folder / STATE).exists() and (folder / FOUND).exists()
    names = (STATE, FOUND, TABLE, PAGE, PHOTOS) if begun else (FOUND,)
    ours = {STATE + WRITING, *names, *(name + WRITING for name in names)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others:
        raise SettingError(
            f"--out {folder} holds other things ({others[0]}): name a folder of the report's own"
        )


def _differences(state: State, task: Task) -> list[str]:
    """What the report of a folder is of, that this task is not."""
    other, found = state.task, []
    if state.format != FORMAT:
        found.append(f"format {state.format}")
    if (other.tenant_id, other.gallery_no) != (task.tenant_id, task.gallery_no):
        found.append(f"another gallery ({other.gallery} of tenant {other.tenant_id})")
    elif other.model_pack_no != task.model_pack_no:
        found.append("another model pack")
    if other.score != task.score:
        found.append(f"score {other.score:g}, not {task.score:g}")
    elif other.cosine != task.cosine:
        found.append("another calibration")
    return found
