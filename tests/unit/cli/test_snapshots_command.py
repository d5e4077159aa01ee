"""What `oneton snapshot` shows, and how it reads while servers write."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from rich.console import Console

from oneton.cli import snapshots
from oneton.cli.snapshots_table import make_row, make_tables, size_text
from oneton.domain.errors import NotFoundError, SnapshotError
from oneton.domain.model import Changes
from oneton.index import inspection
from oneton.index.inspection import find_snapshots
from oneton.index.manifest import Identity
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.store import IndexStore

TENANT = "01a1ff20-ae38-7661-baa5-57a957b9581d"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two snapshots of one gallery."""
    threads = ScanThreads(1)
    kept_by = IndexStore(tmp_path, Policy(seal_faces=64), threads, least_faces=1)
    identity = Identity(TENANT, "default", 1, "buffalo_sc", "0" * 64, 16)
    index, _ = kept_by.open(identity)
    rows = np.linalg.qr(np.random.default_rng(1).normal(size=(80, 16)))[0].astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    nobody = np.empty(0, dtype=np.int64)
    for head in (0, 80):
        numbers = np.arange(head, head + 80)
        index.catch_up(Changes(head, head + 80, numbers, rows, nobody))
        index.upkeep()
        kept_by.take(identity, index)
    kept_by.close()
    threads.close()
    return tmp_path


def test_a_table_has_a_line_for_each_snapshot_and_shows_odd_names_as_they_are(root: Path) -> None:
    odd = next(root.glob("default.*")).rename(root / f"[bold]x.{TENANT}")
    newest = max(odd.rglob("*.json"))
    newest.rename(newest.with_name(newest.name + ".set-aside"))
    console = Console(width=120, file=StringIO())
    for table in make_tables([make_row(each) for each in find_snapshots(root)]):
        console.print(table)
    lines = [line.split() for line in text(console).splitlines()]
    assert lines[0] == ["tenant", TENANT]
    assert [line[:5] for line in lines[2:]] == [
        ["[bold]x", "buffalo_sc", "80", "80", "1"],
        ["[bold]x", "buffalo_sc", "160", "160", "2"],
    ]
    assert (lines[2][-1], lines[3][-2:]) == (".", ["set", "aside"])


def test_verifying_shows_how_far_it_is_when_there_is_much_to_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Console(width=120, file=StringIO(), force_terminal=True)
    monkeypatch.setattr(snapshots, "stderr", shown)
    assert len(snapshots._verify(root, None, None).snapshots) == 2
    assert text(shown) == ""
    monkeypatch.setattr(snapshots, "WORTH_A_BAR", 1)
    assert snapshots._verify(root, None, None).damaged == 0
    assert "5.1/5.1 kB" in text(shown)


def test_a_snapshot_that_a_server_deletes_while_it_is_read_is_not_damaged(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(found: inspection.Found, _: object) -> None:
        if found.manifest is not None and found.manifest.head == 80:
            found.path.unlink()
        raise SnapshotError("its file is missing")

    monkeypatch.setattr(inspection, "check_snapshot", fail)
    (row,) = snapshots._verify(root, "default", UUID(TENANT)).snapshots
    assert (row.head, row.state, row.why) == (160, "damaged", "its file is missing")


def test_a_gallery_that_has_none_is_not_found(root: Path) -> None:
    with pytest.raises(NotFoundError):
        snapshots._verify(root, "other", None)
    with pytest.raises(NotFoundError):
        snapshots._verify(root, None, UUID(int=1))
    assert snapshots._verify(root / "none", None, None).snapshots == []


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (5 << 30, "5 GiB")],
)
def test_sizes_are_written_as_settings_are(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


def text(console: Console) -> str:
    """What was written."""
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
