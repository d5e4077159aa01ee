"""A damaged snapshot is refused when it is opened or when it is read, and never answers wrong."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from oneton.domain.errors import SnapshotError
from oneton.index.inspection import check_snapshot, find_leftovers, find_snapshots
from oneton.index.scan import ScanThreads
from oneton.index.segmented import SegmentedIndex
from oneton.index.snapshot import SnapshotFolder
from oneton.index.store import IndexStore, relative_folder
from tests.fixtures.damage import DAMAGES, KINDS, MANIFESTS, Damage, flip
from tests.unit.index.conftest import IDENTITY, POLICY, Kept, MakeStore, add, check, fill, remove


class Written:
    """A snapshot on the disk, and the faces that it has to answer for."""

    def __init__(self, root: Path, kept: Kept) -> None:
        self.root = root
        self.kept = kept
        self.folder = SnapshotFolder(root / relative_folder(IDENTITY), IDENTITY)

    def file(self, kind: str) -> Path:
        """The first file of a kind, such as `.codes`."""
        return min(self.folder.folder.rglob(f"*{kind}"))

    def why_refused(self, rng: np.random.Generator) -> str | None:
        """Open it and read every face; None when all of it is right."""
        path = next(self.folder.folder.glob("*.json"), None)
        if path is None:
            return "there is none"
        index = SegmentedIndex(IDENTITY.dimension)
        try:
            index.start_from(self.folder.open(path).view)
        except (SnapshotError, OSError) as error:
            return str(error)
        try:
            check(index, self.kept, rng)
        except SnapshotError:
            return index.damage
        return None

    def why_damaged(self) -> str | None:
        """As `oneton snapshot verify` finds it."""
        (found,) = find_snapshots(self.root)
        try:
            assert sum(check_snapshot(found, set())) > 0
        except (SnapshotError, OSError) as error:
            return str(error)
        return None


def write(kept_by: IndexStore, rng: np.random.Generator) -> Written:
    """Two segments, a tail and removed faces, and the store closed."""
    index, _ = kept_by.open(IDENTITY)
    kept = fill(index, rng)
    kept_by.take(IDENTITY, index)
    kept_by.close()
    return Written(index_root(kept_by), kept)


@pytest.fixture
def written(make_store: MakeStore, rng: np.random.Generator) -> Written:
    return write(make_store(), rng)


def test_a_whole_snapshot_is_found_whole(written: Written, rng: np.random.Generator) -> None:
    assert (written.why_refused(rng), written.why_damaged()) == (None, None)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_of_every_file_is_found(
    written: Written, rng: np.random.Generator, kind: str, damage: Damage
) -> None:
    damaged = damage(written.file(kind))
    why = written.why_refused(rng)
    assert why is not None
    if kind != ".json":
        assert damaged.name in why
    if (kind, damage) != (".json", DAMAGES["missing"]):
        assert written.why_damaged() is not None


@pytest.mark.parametrize("damage", MANIFESTS.values(), ids=MANIFESTS)
def test_a_whole_manifest_of_something_else_is_refused(
    written: Written, rng: np.random.Generator, damage: Damage
) -> None:
    damage(written.file(".json"))
    assert written.why_refused(rng) is not None
    assert written.why_damaged() is not None


@pytest.fixture(scope="module")
def written_once(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """One for all examples, each of which mends what it broke."""
    threads = ScanThreads(1)
    kept_by = IndexStore(tmp_path_factory.mktemp("snapshots"), POLICY, threads, least_faces=1)
    made = write(kept_by, np.random.default_rng(1))
    threads.close()
    return made


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_one_flipped_bit_anywhere_is_found(
    written_once: Written, kind: str, place: float, bit: int
) -> None:
    path = written_once.file(kind)
    data = path.read_bytes()
    at = int(len(data) * place)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
    try:
        assert written_once.why_refused(np.random.default_rng(1)) is not None
    finally:
        path.write_bytes(data)


def test_a_template_that_is_damaged_after_it_was_opened_is_never_read_nor_written(
    make_store: MakeStore, rng: np.random.Generator
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    kept = fill(index, rng)
    kept_by.take(IDENTITY, index)
    assert kept_by.folder is not None
    here = Written(kept_by.folder, kept)
    flip(0.999)(here.file(".templates"))
    with pytest.raises(SnapshotError, match=r"\.templates: a template is not what was written"):
        check(index, kept, rng)
    assert index.damage is not None
    with pytest.raises(SnapshotError):
        kept_by.take(IDENTITY, index)
    add(index, kept, rng, 40)
    remove(index, kept, *range(10, 100))
    with pytest.raises(SnapshotError):
        # Both segments are due to become one, which reads every template.
        while index.upkeep():
            pass


@pytest.mark.parametrize("damage", ["missing", "empty", "flipped in its middle", "a folder"])
@pytest.mark.parametrize("kind", [".state", ".codes"])
def test_a_damaged_snapshot_is_set_aside_once_and_the_one_before_it_is_opened(
    make_store: MakeStore, rng: np.random.Generator, kind: str, damage: str
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    kept = fill(index, rng)
    before = kept_by.take(IDENTITY, index)
    later = dict(kept)
    add(index, later, rng, 70)
    after = kept_by.take(IDENTITY, index)
    assert before is not None and after is not None and kept_by.folder is not None
    here = Written(kept_by.folder, kept)
    named = {meta.name for meta in after.segments} - {meta.name for meta in before.segments}
    files = [after.state_file] if kind == ".state" else [f"{name}.codes" for name in named]
    (path,) = here.folder.folder.rglob(files[0])
    DAMAGES[damage](path)
    kept_by.close()
    again = make_store()
    with capture_logs() as logs:
        opened, manifest = again.open(IDENTITY)
    (said,) = logs
    assert (said["event"], said["log_level"]) == ("snapshot set aside", "warning")
    assert (path.name in said["why"], after.state_file[:-6] in said["snapshot"]) == (True, True)
    assert manifest == before
    check(opened, kept, rng)
    (aside,) = here.folder.folder.glob("*.set-aside")
    assert aside.name == after.state_file.replace(".state", ".json.set-aside")
    with capture_logs() as logs:
        again.open(IDENTITY)
    assert logs == []
    add(opened, kept, rng, 5)
    again.take(IDENTITY, opened)
    assert [each.why for each in find_snapshots(here.root)] == [""] * 3
    left = find_leftovers(find_snapshots(here.root), here.root)
    assert left.files == 0


@pytest.mark.parametrize("left", ["segment", "state", "manifest"])
def test_what_a_crash_left_half_written_is_no_snapshot_and_is_deleted(
    make_store: MakeStore, rng: np.random.Generator, left: str
) -> None:
    kept_by = make_store()
    index, _ = kept_by.open(IDENTITY)
    kept = fill(index, rng)
    folder = Written(index_root(kept_by), kept).folder.folder
    begun = {
        "segment": folder / "segments" / "0123.templates.writing",
        "state": folder / "0000000000000000900-0123.state",
        "manifest": folder / "0000000000000000900-0123.json.writing",
    }[left]
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.write_bytes(b"half")
    with capture_logs() as logs:
        assert kept_by.open(IDENTITY)[1] is None
    assert logs == []
    manifest = kept_by.take(IDENTITY, index)
    assert manifest is not None
    assert not begun.exists()


def test_a_folder_that_cannot_be_used_is_one_line_and_indexes_stay_in_memory(
    make_store: MakeStore, tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with capture_logs() as logs:
        kept_by = make_store(tmp_path / "file" / "snapshots")
        index, manifest = kept_by.open(IDENTITY)
        kept = fill(index, rng)
        assert (manifest, kept_by.take(IDENTITY, index)) == (None, None)
        kept_by.set_aside(IDENTITY, "for a test")
    assert [(line["event"], line["error"]) for line in logs] == [
        ("no snapshots: the folder cannot be used", "Not a directory")
    ]
    check(index, kept, rng)


def test_a_file_system_without_locks_is_one_line_and_no_replica_folders(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    with capture_logs() as logs:
        assert make_store(tmp_path).folder is None
    assert [line["error"] for line in logs] == [os.strerror(errno.ENOLCK)]
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_listed_or_a_file_that_cannot_be_read_is_loaded_anew(
    make_store: MakeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write(make_store(), rng)
    first, second = make_store(), make_store()
    for function, owner in (("scandir", os), ("read_bytes", Path)):
        for kept_by in (first, second):
            monkeypatch.setattr(owner, function, refuse(number))
            index, manifest = kept_by.open(IDENTITY)
            assert (len(index), manifest) == (0, None)
            monkeypatch.undo()


def index_root(kept_by: IndexStore) -> Path:
    assert kept_by.folder is not None
    return kept_by.folder


def refuse(number: int) -> Callable[..., object]:
    """What fails with an error number whatever it is asked."""

    def fail(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return fail
