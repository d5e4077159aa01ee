"""The folder of a duplicates report: resumed, refused, private."""

from __future__ import annotations

import stat
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest

from oneton.cli.duplicates_journal import FOUND, PAGE, PHOTOS, STATE, TABLE, Journal, Task
from oneton.domain.errors import SettingError
from oneton.domain.model import DEFAULT_GALLERY, FaceId, FaceNo, Score, TenantId
from oneton.verbs.duplicates import Batch, Pairs

TASK = Task(TenantId(UUID(int=1)), DEFAULT_GALLERY, 7, 3, Score(50), 0.332)
RECORD_BYTES = 20


def a_batch(head: int, *pairs: tuple[int, int, float]) -> Batch:
    columns = list(zip(*pairs, strict=True)) or [(), (), ()]
    found = Pairs(
        np.array(columns[0], dtype=np.int64),
        np.array(columns[1], dtype=np.int64),
        np.array(columns[2], dtype=np.float32),
    )
    return Batch(head, 2, (FaceNo(head), FaceId(UUID(int=head))), found)


def begin(folder: Path) -> None:
    """A run of two batches, closed as a crash would close it."""
    journal = Journal(folder, TASK)
    journal.append(a_batch(2, (1, 2, 0.5), (1, 4, 0.75)))
    journal.append(a_batch(4, (1, 4, 0.5), (3, 4, 0.625)))
    journal.close()


def pairs_of(folder: Path) -> tuple[int, list[tuple[int, int, float]]]:
    journal = Journal(folder, TASK)
    pairs = journal.pairs()
    journal.close()
    columns = pairs.earlier.tolist(), pairs.later.tolist(), pairs.cosines.tolist()
    return journal.state.head, list(zip(*columns, strict=True))


BEGUN = (4, [(1, 2, 0.5), (1, 4, 0.75), (3, 4, 0.625)])


def test_what_was_found_is_there_in_the_next_run(tmp_path: Path) -> None:
    begin(tmp_path)
    assert pairs_of(tmp_path) == BEGUN
    journal = Journal(tmp_path, TASK)
    assert journal.state.last == (4, UUID(int=4))
    assert journal.settled() == 3
    journal.append(a_batch(9, (2, 8, 0.5), (2, 12, 0.5)))
    assert journal.settled() == 4
    journal.append(msgspec.structs.replace(a_batch(11), last=None))
    assert journal.state.last == (9, UUID(int=9))
    journal.close()
    assert pairs_of(tmp_path) == (11, [*BEGUN[1], (2, 8, 0.5), (2, 12, 0.5)])


@pytest.mark.parametrize("torn", [b"\x07", b"\x01" * RECORD_BYTES, b"\xff" * 1234])
def test_what_a_crash_left_after_the_last_state_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    begin(tmp_path)
    with (tmp_path / FOUND).open("ab") as file:
        file.write(torn)
    (tmp_path / f"{STATE}.writing").write_bytes(b'{"task": {"tena')
    assert pairs_of(tmp_path) == BEGUN
    assert (tmp_path / FOUND).stat().st_size == 4 * RECORD_BYTES


def test_a_crash_before_the_first_state_is_a_new_folder(tmp_path: Path) -> None:
    (tmp_path / FOUND).write_bytes(b"12345")
    assert pairs_of(tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (msgspec.structs.replace(TASK, gallery_no=8), "another gallery .default of tenant 0000"),
        (msgspec.structs.replace(TASK, tenant_id=TenantId(UUID(int=2))), "another gallery"),
        (msgspec.structs.replace(TASK, model_pack_no=4), "another model pack"),
        (msgspec.structs.replace(TASK, score=Score(60), cosine=0.386), "score 50, not 60"),
        (msgspec.structs.replace(TASK, cosine=0.34), "another calibration"),
    ],
)
def test_another_report_s_folder_is_refused_and_left_as_it_was(
    tmp_path: Path, task: Task, says: str
) -> None:
    begin(tmp_path)
    with pytest.raises(SettingError, match=f"{says}.*--restart"):
        Journal(tmp_path, task)
    assert pairs_of(tmp_path) == BEGUN


def test_restart_begins_anew_and_removes_the_report(tmp_path: Path) -> None:
    begin(tmp_path)
    for name in (PAGE, TABLE):
        (tmp_path / name).write_text("old")
    (tmp_path / PHOTOS).mkdir()
    (tmp_path / PHOTOS / "1.jpg").write_text("old")
    task = msgspec.structs.replace(TASK, score=Score(60))
    journal = Journal(tmp_path, task, restart=True)
    assert (journal.state.head, len(journal.pairs())) == (0, 0)
    journal.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [FOUND, STATE]


@pytest.mark.parametrize("name", [STATE, FOUND])
def test_a_damaged_report_is_refused_until_it_is_restarted(tmp_path: Path, name: str) -> None:
    begin(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SettingError, match="--restart"):
        Journal(tmp_path, TASK)
    Journal(tmp_path, TASK, restart=True).close()
    assert pairs_of(tmp_path) == (0, [])


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", PAGE, PHOTOS, STATE])
def test_a_folder_with_other_things_is_refused_and_left_as_it_was(
    tmp_path: Path, name: str, restart: bool
) -> None:
    (tmp_path / name).write_text("mine")
    tmp_path.chmod(0o755)
    with pytest.raises(SettingError, match=name):
        Journal(tmp_path, TASK, restart=restart)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path, TASK)
    with pytest.raises(SettingError, match="another run"):
        Journal(tmp_path, TASK, restart=True)
    journal.close()
    Journal(tmp_path, TASK).close()


def test_the_folder_is_private_whatever_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    folder.mkdir(mode=0o755, parents=True)
    begin(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="--out"):
        Journal(tmp_path / "file" / "report", TASK)
