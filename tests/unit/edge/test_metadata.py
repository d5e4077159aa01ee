"""JSON that is kept for callers: what can be kept comes back as it was, the rest is refused."""

from __future__ import annotations

import msgspec
import pytest

from oneton.domain.metadata import METADATA_LIMIT_BYTES, InvalidMetadataError, checked_metadata

KEPT = {
    "an object": b'{"flow": "login", "n": [1, 2.50, null]}',
    "a text": b'"x"',
    "a large integer": b"9" * 25,
    "many digits": b"0." + b"1" * 900,
    "a backslash before u0000": rb'"\\u0000"',
    "a surrogate pair": rb'"\ud83d\ude00"',
    "false": b"false",
    "the largest double": b"1.7e308",
}
REFUSED = {
    "U+0000": rb'"a\u0000b"',
    "U+0000 after a backslash": rb'{"a": "\\\u0000"}',
    "half a surrogate pair": rb'"\ud800"',
    "a raw surrogate": b'"\xed\xa0\x80"',
    "no UTF-8": b'"\xff"',
    "no JSON": b"{",
    "two values": b"1 2",
    "beyond numeric": b"1e400000",
    "below numeric": b"1e-400000",
    "digits without end": b"0." + b"1" * 2000,
    "an endless integer": b"1" * 9000,
    "nested too deeply": b"[" * 5000 + b"]" * 5000,
    "too large": b'"' + b"x" * METADATA_LIMIT_BYTES + b'"',
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_what_can_be_kept_stays_as_it_came(text: bytes) -> None:
    checked = checked_metadata(msgspec.Raw(text))
    assert checked is not None
    assert bytes(checked) == text


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidMetadataError):
        checked_metadata(msgspec.Raw(text))


@pytest.mark.parametrize("nothing", [None, msgspec.Raw(b""), msgspec.Raw(b" null ")])
def test_null_is_nothing(nothing: msgspec.Raw | None) -> None:
    assert checked_metadata(nothing) is None
