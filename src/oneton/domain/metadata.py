"""JSON that callers have kept for them: anything that Postgres can keep."""

from __future__ import annotations

import re

import msgspec

METADATA_LIMIT_BYTES = 65_536
_MOST_EXPONENT = 308
_MOST_DIGITS = 1000
"""A double has less; `numeric` of Postgres would write out every digit, and ends at 16383."""
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_NULL = b"null"


class InvalidMetadataError(ValueError):
    """It is too large, no JSON, or JSON that cannot be kept."""


def checked_metadata(raw: msgspec.Raw | None) -> msgspec.Raw | None:
    """The same JSON, as it came; None for none, and for null.

    Raises:
        InvalidMetadataError: it cannot be kept.
    """
    text = b"" if raw is None else bytes(raw).strip()
    if text in (b"", _NULL):
        return None
    if len(text) > METADATA_LIMIT_BYTES:
        raise InvalidMetadataError(f"it is larger than {METADATA_LIMIT_BYTES} bytes")
    if _NUL.search(text):
        raise InvalidMetadataError("it has the character U+0000 in it")
    try:
        _DECODER.decode(text)
        text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMetadataError(str(error)) from error
    except RecursionError as error:
        raise InvalidMetadataError("it is nested too deeply") from error
    return msgspec.Raw(text)


def _checked_float(text: str) -> float:
    _, _, exponent = text.lower().partition("e")
    if len(text) > _MOST_DIGITS or abs(int(exponent or "0")) > _MOST_EXPONENT:
        raise ValueError(f"the number {text[:20]} is out of range")
    return 0.0


_DECODER = msgspec.json.Decoder(type=object, float_hook=_checked_float)
