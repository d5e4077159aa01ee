"""Pictures as the dialects send them in JSON: base64 in many habits."""

from __future__ import annotations

import binascii
import re

_PREFIX = re.compile(r"data:[^,]{0,100},")
_URL_SAFE = str.maketrans("-_", "+/")


class InvalidBase64Error(ValueError):
    """The text is not base64."""


def decode_base64(text: str) -> bytes:
    """Decode base64; a data-URL prefix, the URL-safe alphabet, no padding, line breaks are fine.

    Raises:
        InvalidBase64Error: it is none of these.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    if prefix := _PREFIX.match(text):
        text = text[prefix.end() :]
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise InvalidBase64Error(str(error)) from error
