"""Snapshots: taken, opened, tidied, shared between processes."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from oneton.domain.errors import SnapshotError
from oneton.domain.model import Changes
from oneton.index.inspection import Key, check_snapshot, find_leftovers, find_snapshots
from oneton.index.manifest import Identity, files_of, read_manifest
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.segmented import SegmentedIndex
from oneton.index.snapshot import ANCHORS, SnapshotFolder
from oneton.index.store import IndexStore, relative_folder
from oneton.index.templates import check_rows
from tests.unit.index.conftest import (
    DIMENSION,
    IDENTITY,
    Kept,
    MakeStore,
    add,
    check,
    fill,
    remove,
)


def folder_of(kept_by: IndexStore, identity: Identity = IDENTITY) -> Path:
    assert kept_by.folder is not None
    return kept_by.folder / relative_folder(identity)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def opened(make_store: MakeStore, head: int) -> SegmentedIndex:
    """The index as the next process has it, which finds nothing wrong."""
    with capture_logs() as logs:
        index, manifest = make_store().open(IDENTITY)
    assert [line for line in logs if line["log_level"] == "warning"] == []
    assert manifest is not None
    assert index.head == manifest.head == head
    return index


def test_a_snapshot_opens_with_every_face_that_was_there(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    first = make_store()
    index, manifest = first.open(IDENTITY)
    assert manifest is None
    kept = fill(index, rng)
    assert len(index.view.parts) == 2
    manifest = first.take(IDENTITY, index)
    assert manifest is not None
    assert (manifest.head, manifest.faces, len(manifest.segments)) == (243, 237, 2)
    first.close()
    after = opened(make_store, 243)
    check(after, kept, rng)
    add(after, kept, rng, 90)
    remove(after, kept, 5, 200, 230)
    check(after, kept, rng)


def test_a_snapshot_of_a_tail_alone_or_of_segments_alone_opens(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    for gallery, counts in (("tail", [9]), ("segments", [64, 128])):
        identity = msgspec.structs.replace(IDENTITY, gallery_id=gallery)
        kept: Kept = {}
        writer = make_store()
        index, _ = writer.open(identity)
        for count in counts:
            add(index, kept, rng, count)
        assert bool(index.view.parts) == (len(index.view.tail) == 0)
        writer.take(identity, index)
        writer.close()
        again = make_store()
        check(again.open(identity)[0], kept, rng)
        again.close()


def test_the_anchors_are_the_newest_faces_that_are_there(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    kept = fill(index, rng)
    manifest = kept_by.take(IDENTITY, index)
    assert manifest is not None
    newest = sorted(kept)[-ANCHORS:]
    assert [anchor.face_no for anchor in manifest.anchors] == newest
    checks = check_rows(np.array([kept[no] for no in newest]).astype(np.float16))
    assert [anchor.check for anchor in manifest.anchors] == checks.tolist()


def test_a_gallery_smaller_than_the_least_is_taken_only_when_it_is_asked_for(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    kept_by = IndexStore(tmp_path, Policy(), ScanThreads(1), least_faces=10)
    index, _ = kept_by.open(IDENTITY)
    add(index, {}, rng, 9)
    assert kept_by.take(IDENTITY, index) is None
    assert names(tmp_path) == {".lock"}
    assert kept_by.take_any(IDENTITY, index) is not None
    kept_by.close()


def test_the_newest_two_stay_and_only_files_that_they_name(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    kept: Kept = {}
    manifests = []
    for _ in range(6):
        add(index, kept, rng, 80)
        manifests.append(kept_by.take(IDENTITY, index))
    folder = folder_of(kept_by)
    found = sorted(folder.glob("*.json"), reverse=True)
    assert [read_manifest(path) for path in found] == manifests[:-3:-1]
    named = {name for path in found for name in files_of(read_manifest(path))}
    assert names(folder) == named | {path.name for path in found}
    kept_by.close()
    check(opened(make_store, 480), kept, rng)


def test_of_snapshots_at_one_head_the_last_taken_stays(
    make_store: MakeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    fill(index, rng)
    for second in range(12):
        monkeypatch.setattr(time, "time", lambda second=second: 1e9 + second)
        taken = kept_by.take(IDENTITY, index)
        newest = max(folder_of(kept_by).glob("*.json"))
        assert read_manifest(newest) == taken


def test_a_removal_while_a_snapshot_is_written_does_not_spoil_it(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    kept = fill(index, rng)
    view = index.view
    remove(index, kept, 7, 160, 238)
    folder = SnapshotFolder(folder_of(kept_by), IDENTITY)
    assert folder.take(view, 1e9) is not None
    kept_by.close()
    after = opened(make_store, 243)
    # What was removed at a later head is removed again when Postgres says so.
    gone = np.array([7, 160, 238])
    nothing = np.empty((0, DIMENSION), dtype=np.float32)
    after.catch_up(Changes(243, 246, gone[:0], nothing, gone))
    check(after, kept, rng)


def test_a_row_that_is_cleared_while_a_snapshot_is_written_is_not_in_it(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    kept = fill(index, rng)

    class Rows(np.ndarray):
        def astype(self, *arguments: Any, **options: Any) -> Any:
            remove(index, kept, 230)
            return super().astype(*arguments, **options)

    view = index.view
    tail = msgspec.structs.replace(view.tail, rows=view.tail.rows.view(Rows))
    folder = SnapshotFolder(folder_of(kept_by), IDENTITY)
    folder.take(msgspec.structs.replace(view, tail=tail), 1e9)
    kept_by.close()
    after = opened(make_store, 243)
    assert np.linalg.norm(after.view.tail.rows, axis=1) == pytest.approx(1)
    check(after, kept, rng)


@pytest.mark.parametrize(
    "other",
    [
        {"tenant_id": "another"},
        {"gallery_id": "another"},
        {"gallery_no": 2},
        {"model_pack": "another"},
        {"model_sha256": "1" * 64},
        {"dimension": DIMENSION * 2},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_gallerys_or_model_packs_snapshot_is_never_opened(
    make_store: MakeStore, rng: np.random.Generator, other: dict[str, object]
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    fill(index, rng)
    kept_by.take(IDENTITY, index)
    own = folder_of(kept_by)
    identity = msgspec.structs.replace(IDENTITY, **other)
    folder = folder_of(kept_by, identity)
    assert (folder == own) == ("dimension" in other)
    if folder != own:
        assert kept_by.open(identity)[1] is None
        shutil.copytree(own, folder, dirs_exist_ok=True)
    with pytest.raises(SnapshotError, match="another gallery or model pack"):
        SnapshotFolder(folder, identity).open(next(folder.glob("*.json")))
    with capture_logs() as logs:
        index, manifest = kept_by.open(identity)
    assert (manifest, len(index)) == (None, 0)
    (said,) = logs
    assert said["why"] == "it is of another gallery or model pack"


def test_processes_of_one_machine_have_a_folder_each_and_begin_with_the_newest(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    first, second = make_store(), make_store()
    assert first.folder is not None
    assert second.folder == first.folder / "replica-2"
    index, _ = first.open(IDENTITY)
    kept = fill(index, rng)
    first.take(IDENTITY, index)
    theirs, manifest = second.open(IDENTITY)
    assert manifest is not None
    check(theirs, kept, rng)
    add(theirs, kept, rng, 70)
    second.take(IDENTITY, theirs)
    first.close()
    second.close()
    third = make_store()
    assert third.is_first
    adopted, manifest = third.open(IDENTITY)
    assert (adopted.head, manifest is not None) == (313, True)
    check(adopted, kept, rng)


def test_another_process_s_snapshot_is_copied_where_links_are_not_possible(
    make_store: MakeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_store(), make_store()
    index, _ = first.open(IDENTITY)
    kept = fill(index, rng)
    first.take(IDENTITY, index)
    monkeypatch.setattr(os, "link", refusal(errno.EXDEV))
    check(second.open(IDENTITY)[0], kept, rng)
    ours, theirs = (sorted((folder_of(each) / "segments").iterdir()) for each in (second, first))
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert not any(our.samefile(their) for our, their in zip(ours, theirs, strict=True))


def test_a_snapshot_that_cannot_be_taken_over_whole_is_left_alone(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    first, second = make_store(), make_store()
    index, _ = first.open(IDENTITY)
    fill(index, rng)
    first.take(IDENTITY, index)
    next((folder_of(first) / "segments").glob("*.codes")).unlink()
    with capture_logs() as logs:
        assert second.open(IDENTITY)[1] is None
    assert [line["event"] for line in logs] == ["another process's snapshot is left alone"]
    assert list(folder_of(second).glob("*.json")) == []


def test_what_is_refused_is_not_opened_again_even_when_it_cannot_be_renamed(
    make_store: MakeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_store(), make_store()
    for each in (first, second):
        index, _ = each.open(IDENTITY)
        add(index, {}, rng, 70)
        each.take(IDENTITY, index)
        each.take(IDENTITY, index)
    monkeypatch.setattr(Path, "replace", refusal(errno.EROFS))
    _, manifest = first.open(IDENTITY)
    with capture_logs() as logs:
        for _ in range(2):
            assert manifest is not None
            first.refuse(IDENTITY, manifest, "for a test")
            _, manifest = first.open(IDENTITY)
        first.set_aside(IDENTITY, "for a test")
        assert first.open(IDENTITY)[1] is None
    assert [line["log_level"] for line in logs].count("warning") == 3


def test_segments_whose_files_are_deleted_under_a_running_process_are_written_anew(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    kept = fill(index, rng)
    kept_by.take(IDENTITY, index)
    shutil.rmtree(folder_of(kept_by))
    with capture_logs() as logs:
        assert kept_by.take(IDENTITY, index) is None
    assert {line["event"] for line in logs} == {"a segment's files are gone; they are written anew"}
    check(index, kept, rng)
    while index.upkeep():
        pass
    assert kept_by.take(IDENTITY, index) is not None
    kept_by.close()
    check(opened(make_store, 243), kept, rng)


def test_verifying_reads_shared_files_once_and_finds_no_leftovers(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    first, second = make_store(), make_store()
    index, _ = first.open(IDENTITY)
    fill(index, rng)
    first.take(IDENTITY, index)
    second.open(IDENTITY)
    assert first.folder is not None
    found = find_snapshots(first.folder)
    assert [each.writer for each in found] == [first.folder, second.folder]
    assert (found[0].tenant_id, found[0].gallery_id) == ("tenant", "default")
    checked: set[Key] = set()
    read = [sum(check_snapshot(each, checked)) for each in found]
    assert read == [220 * DIMENSION * 2, 0]
    assert find_leftovers(found, first.folder).files == 0
    (folder_of(first) / "segments" / "of-a-crash.templates.writing").write_bytes(b"123")
    assert find_leftovers(found, first.folder).size_bytes == 3


def refusal(number: int) -> object:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse
