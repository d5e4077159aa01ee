"""An export's name is one export's at a time, and a crash leaves what can be deleted."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from oneton.domain.errors import SettingError
from oneton.verbs.export_files import open_sink

NAMES = pytest.mark.parametrize("name", ["out", "out.zip"])


def read(out: Path) -> bytes:
    if out.is_dir():
        return (out / "a").read_bytes()
    with zipfile.ZipFile(out) as file:
        return file.read("a")


@NAMES
def test_an_export_that_is_under_way_is_not_disturbed_by_another(name: str, tmp_path: Path) -> None:
    sink = open_sink(tmp_path / name)
    sink.add("a", b"whole")
    with pytest.raises(SettingError, match=r"delete .*\.writing"):
        open_sink(tmp_path / name)
    sink.finish()
    sink.abandon()
    assert read(tmp_path / name) == b"whole"
    assert [each.name for each in tmp_path.iterdir()] == [name]
    with pytest.raises(SettingError, match="it is there already"):
        open_sink(tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == [name]


@NAMES
def test_all_that_an_export_wrote_goes_with_it(name: str, tmp_path: Path) -> None:
    sink = open_sink(tmp_path / name)
    (sink.work / "listing").write_bytes(b"faces")
    sink.add("a", b"half")
    assert [each.name for each in tmp_path.iterdir()] == [f"{name}.writing"]
    sink.abandon()
    assert not list(tmp_path.iterdir())


def test_an_export_that_ended_removes_nothing_of_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = open_sink(out)
    first.finish()
    out.rmdir()
    second = open_sink(out)
    first.abandon()
    second.add("a", b"second")
    second.finish()
    assert read(out) == b"second"
