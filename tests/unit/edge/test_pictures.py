"""Base64 in the habits that clients have."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneton.edge.pictures import InvalidBase64Error, decode_base64


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_decode_reads_every_habit(
    data: bytes, url_safe: bool, padded: bool, prefixed: bool, broken: bool
) -> None:
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    text = encode(data).decode()
    if not padded:
        text = text.rstrip("=")
    if broken:
        text = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    if prefixed:
        text = "data:image/jpeg;base64," + text
    assert decode_base64(text) == data


@pytest.mark.parametrize("text", ["$$$$", "abcde", "ab=cd", "äöü", "{}", "A"])
def test_decode_refuses_what_is_not_base64(text: str) -> None:
    with pytest.raises(InvalidBase64Error):
        decode_base64(text)
