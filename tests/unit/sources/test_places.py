"""Folders, tables and zips that photos lie in."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from oneton.domain.errors import SettingError, TooLargeError
from oneton.sources import ItemError, Source
from oneton.sources.archive import Archive
from oneton.sources.opening import open_source

LIMIT = 1000


def make_zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def fill(folder: Path, entries: dict[str, bytes]) -> Path:
    for name, data in entries.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def place(kind: str, tmp_path: Path, entries: dict[str, bytes]) -> str:
    if kind == "zip":
        return str(make_zip(tmp_path / "photos.zip", entries))
    return str(fill(tmp_path / "photos", entries))


def read_all(source: Source) -> dict[str, bytes]:
    found = {item.name: item.read(LIMIT) for item in source.items() if item.note.problem is None}
    source.close()
    return found


PHOTOS = {"b/2.JPG": b"b2", "b/1.png": b"b1", "a.webp": b"a"}
OTHERS = {"b/notes.txt": b"", "__MACOSX/b/._1.png": b"", ".hidden.jpg": b"", "b/.x/1.jpg": b""}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_photos_are_found_in_the_order_of_their_names(kind: str, tmp_path: Path) -> None:
    source = open_source(place(kind, tmp_path, PHOTOS | OTHERS))
    assert source.count() == 3
    assert list(read_all(source).items()) == sorted(PHOTOS.items())


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_first_of_folder_takes_one_of_each(kind: str, tmp_path: Path) -> None:
    source = open_source(place(kind, tmp_path, PHOTOS), first_of_folder=True)
    assert list(read_all(source)) == ["a.webp", "b/1.png"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    "manifest",
    [
        {"manifest.csv": b"\xef\xbb\xbffile,external_id\nb/2.JPG,two\nnone.jpg,none\n,erased\n"},
        {
            "faces.jsonl": b'{"file":"b/2.JPG","external_id":"two"}\n'
            b'{"file":"none.jpg","external_id":"none"}\n{"external_id":"erased"}\n'
        },
    ],
)
def test_a_manifest_says_which_photos_and_in_which_order(
    kind: str, manifest: dict[str, bytes], tmp_path: Path
) -> None:
    source = open_source(place(kind, tmp_path, PHOTOS | manifest))
    assert source.count() == 3
    two, none, erased = source.items()
    assert (two.name, two.read(LIMIT), two.note.face.external_id) == ("b/2.JPG", b"b2", "two")
    assert erased.note.problem is not None
    assert erased.note.problem.reason == "NoFile"
    if kind == "zip":
        assert none.note.problem is not None
        assert none.note.problem.reason == "FileNotFound"
    else:
        with pytest.raises(FileNotFoundError):
            none.read(LIMIT)


def test_a_manifest_of_a_folder_names_nothing_outside_of_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", {"manifest.csv": b"file\n../secret.jpg\n/etc/passwd\n"})
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    problems = [item.note.problem for item in open_source(str(folder)).items()]
    assert [each and each.reason for each in problems] == ["BadName", "BadName"]


@pytest.mark.parametrize("inside", [True, False])
def test_a_row_whose_name_has_a_zero_character_is_refused_alone(
    inside: bool, tmp_path: Path
) -> None:
    rows = b'{"file":"a\\u0000.jpg"}\n{"file":"b.jpg"}\n'
    folder = fill(tmp_path / "photos", {"faces.jsonl": rows, "b.jpg": b"b"})
    source = open_source(str(folder if inside else folder / "faces.jsonl"))
    assert source.count() == 2
    first, second = source.items()
    assert first.note.problem is not None
    assert (first.note.problem.reason, second.read(LIMIT)) == ("BadName", b"b")


def test_a_zipped_folder_has_its_manifest_in_it(tmp_path: Path) -> None:
    entries = {"top/1.jpg": b"1", "top/2.jpg": b"2", "top/manifest.csv": b"file\n2.jpg\n"}
    source = Archive(make_zip(tmp_path / "photos.zip", entries))
    assert read_all(source) == {"2.jpg": b"2"}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_file_past_the_limit_is_not_read(kind: str, tmp_path: Path) -> None:
    source = open_source(
        place(kind, tmp_path, {"1.jpg": b"x" * (LIMIT + 1), "2.jpg": b"x" * LIMIT})
    )
    big, fits = source.items()
    with pytest.raises(TooLargeError):
        big.read(LIMIT)
    assert len(fits.read(LIMIT)) == LIMIT


def test_a_changed_file_has_another_stamp(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"1.jpg": b"one"})
    (before,) = open_source(str(folder)).items()
    (folder / "1.jpg").write_bytes(b"other")
    (after,) = open_source(str(folder)).items()
    assert before.stamp
    assert before.stamp != after.stamp


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd.jpg", "no relative name"),
        ("C:/1.jpg", "no relative name"),
        ("a\\1.jpg", "no relative name"),
        ("a/../../1.jpg", "outside"),
        ("..", "outside"),
    ],
)
def test_a_zip_with_a_name_that_leads_elsewhere_is_refused(
    name: str, said: str, tmp_path: Path
) -> None:
    path = make_zip(tmp_path / "photos.zip", {"1.jpg": b"1", name: b"2"})
    with pytest.raises(SettingError, match=said):
        Archive(path)


def test_a_zip_with_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    info = zipfile.ZipInfo("1.jpg")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(SettingError, match="is a link"):
        Archive(path)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "photos.zip", {"1.jpg": b"1"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 8
    data[at : at + 2] = struct.pack("<H", 1)
    path.write_bytes(bytes(data))
    with pytest.raises(SettingError, match="is encrypted"):
        Archive(path)


def test_a_zip_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    zeros = bytes(8 << 20)
    path = make_zip(tmp_path / "photos.zip", {f"{number}.jpg": zeros for number in range(10)})
    with pytest.raises(SettingError, match="times its size"):
        Archive(path)


def test_a_zip_with_two_entries_of_a_name_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "photos.zip", {"1.jpg": b"1"})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("1.jpg", b"2")
    with pytest.raises(SettingError, match="twice"):
        Archive(path)


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_what_is_no_zip_is_said_in_one_line(cut: int, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "photos.zip", {"1.jpg": b"photo" * 20})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SettingError, match="no zip"):
        Archive(path)


def test_a_damaged_entry_is_refused_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.jpg", b"first photo")
        archive.writestr("2.jpg", b"second photo")
    path.write_bytes(path.read_bytes().replace(b"first photo", b"FIRST photo"))
    first, second = Archive(path).items()
    with pytest.raises(ItemError, match="cannot be read") as caught:
        first.read(LIMIT)
    assert caught.value.reason == "BadZip"
    assert second.read(LIMIT) == b"second photo"


def test_an_argument_that_is_nothing_known_is_said(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("")
    for where, said in [
        (str(tmp_path / "none"), "no file or folder"),
        (str(tmp_path / "list.txt"), "no folder, .zip"),
        ("s3://bucket/photos", "needs --s3-endpoint"),
    ]:
        with pytest.raises(SettingError, match=said):
            open_source(where)


def test_a_manifest_that_is_no_text_ends_with_one_line(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "photos.zip", {"1.jpg": b"1", "manifest.csv": b"file\n\xff\xfe\n"})
    with pytest.raises(SettingError, match="UTF-8"):
        Archive(path).count()
    assert io.BytesIO(path.read_bytes()).read(2) == b"PK"
