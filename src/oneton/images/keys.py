"""Keys: of pictures, and of files that lie beside them where no listing of pictures comes."""

from __future__ import annotations

COPIES = ".snapshots"
"""What the keys of snapshot copies begin with in a bucket or folder; no picture's key can."""
_PART_BYTES = 255
_KEY_BYTES = 1024
"""Source: NAME_MAX of Linux file systems; Amazon S3's longest key."""


def check_key(key: str) -> str:
    """Pass on a key of the form `<tenant>/<gallery>/<id>`.

    No part is empty, starts with a dot, is longer than 255 bytes or holds a backslash or an
    unprintable character, so a key never names a folder or leaves the store.

    Raises:
        ValueError: it is none; keys are ours, so this is our own mistake.
    """
    if key.count("/") != 2 or not _is_safe(key):
        raise ValueError(f"not a key of the form <tenant>/<gallery>/<id>: {key!r}")
    return key


def copy_key(key: str) -> str:
    """Where the store has a snapshot copy's file, or folder of such.

    Args:
        key: of one or more parts, each as in `check_key`.

    Raises:
        ValueError: it is none; keys are ours, so this is our own mistake.
    """
    if not _is_safe(key, _KEY_BYTES - len(f"{COPIES}/")):
        raise ValueError(f"not a key of a snapshot copy: {key!r}")
    return f"{COPIES}/{key}"


def _is_safe(key: str, limit_bytes: int = _KEY_BYTES) -> bool:
    parts = key.split("/")
    return (
        key.isprintable()
        and "\\" not in key
        and len(key.encode()) <= limit_bytes
        and not any(not part or part.startswith(".") for part in parts)
        and not any(len(part.encode()) > _PART_BYTES for part in parts)
    )
