"""Tables that go with photos."""

from __future__ import annotations

import io

import pytest

from oneton.domain.errors import SettingError
from oneton.sources import Note
from oneton.sources.tables import LONGEST_LINE, read_table


def rows(text: str, name: str = "list.csv") -> list[tuple[str, Note]]:
    return list(read_table(io.StringIO(text, newline=""), name))


def test_csv_rows_carry_what_goes_with_a_face() -> None:
    ((name, note),) = rows(
        "file,external_id,metadata,metadata.team,gallery,idempotency_key\n"
        'a.jpg,A 1,"{""n"": 1}",red,staff,key-1\n'
    )
    assert (name, note.gallery, note.idempotency_key) == ("a.jpg", "staff", "key-1")
    assert note.face.external_id == "A 1"
    assert bytes(note.face.metadata or b"") == b'{"n":1,"team":"red"}'


def test_csv_of_an_earlier_version_names_its_column_image() -> None:
    assert [name for name, _ in rows("image,who\na.jpg,Ada\n")] == ["a.jpg"]


def test_json_lines_carry_the_same() -> None:
    text = '{"file": "a.jpg", "external_id": "A", "metadata": {"n": [1, null]}, "x": 3}\n\n'
    ((name, note),) = rows(text, "faces.jsonl")
    assert (name, note.face.external_id) == ("a.jpg", "A")
    assert bytes(note.face.metadata or b"") == b'{"n": [1, null]}'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('a.jpg,"{",', "BadMetadata"),
        ('a.jpg,"{""a"": ""\\u0000""}",', "BadMetadata"),
        (f'a.jpg,"""{"x" * 65_536}""",', "BadMetadata"),
        (f"a.jpg,,{'x' * 256}", "BadRow"),
        ("a.jpg", "BadRow"),
        ("a.jpg,,,,", "BadRow"),
    ],
)
def test_a_bad_row_is_refused_and_the_others_are_not(row: str, reason: str) -> None:
    found = rows(f"file,metadata,external_id\n{row}\nb.jpg,,\n")
    assert [name for name, _ in found] == ["a.jpg", "b.jpg"]
    assert found[0][1].problem is not None
    assert found[0][1].problem.reason == reason
    assert found[1][1].problem is None


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("name\na.jpg\n", "list.csv", "no column named file"),
        ("", "list.csv", "no column named file"),
        ('file\n"a.jpg\n', "list.csv", "line"),
        ("file\na\0.jpg\n", "list.csv", "line"),
        ('{"file": 3}\n', "faces.jsonl", "line 1"),
        ('{"file": "a"}\n[1]\n', "faces.jsonl", "line 2"),
        ("x" * LONGEST_LINE + "\n", "faces.jsonl", "longer"),
    ],
)
def test_what_is_no_table_ends_with_the_line_that_shows_it(text: str, name: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        rows(text, name)
