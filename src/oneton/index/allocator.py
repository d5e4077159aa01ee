"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Return to the system what glibc keeps of freed memory; with another C library, nothing.

    Opening or merging segments of a million faces leaves 50 MB of it, beside an index of 145.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:  # noqa: ANN401 - a foreign function
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
