"""Cursors of the native API's lists."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneton.edge.native.cursors import decode_cursor, decode_id, decode_number, encode_cursor
from oneton.edge.native.problems import InvalidInputError


@given(st.uuids())
def test_an_id_comes_back(face_id: UUID) -> None:
    assert decode_id("faces", encode_cursor("faces", face_id)) == face_id


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_number_comes_back(number: int) -> None:
    assert decode_number("requests", encode_cursor("requests", number)) == number


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True))
def test_a_name_comes_back_and_needs_no_escapes_in_an_address(name: str) -> None:
    cursor = encode_cursor("galleries", name)
    assert cursor.replace("-", "a").replace("_", "a").isalnum()
    assert decode_cursor("galleries", cursor) == name


@given(st.text())
def test_any_text_is_a_cursor_or_is_refused(text: str) -> None:
    for decode in (decode_cursor, decode_id, decode_number):
        with suppress(InvalidInputError):
            decode("faces", text)


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="another list"):
        decode_id("jobs", encode_cursor("faces", uuid4()))


@pytest.mark.parametrize("place", ["-1", "1.5", "x", "²", "9" * 19])
def test_a_number_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(InvalidInputError):
        decode_number("requests", encode_cursor("requests", place))


def test_nothing_is_the_beginning() -> None:
    assert decode_id("faces", None) is None
    assert decode_number("requests", None) is None
