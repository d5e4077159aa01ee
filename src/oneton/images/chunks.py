"""Files of any size, sealed in chunks: neither whole in memory, nor shortened or reordered unseen.

A sealed file is: a head (four bytes, the form, the number of the tenant's key), a key of the file's
own sealed with the tenant's, then chunks. The nonce of a chunk is its number and whether it is the
last. The file's name is authenticated with its key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import BinaryIO

from oneton.domain.errors import SealBrokenError, SnapshotError
from oneton.domain.sealing import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Cipher, Ring, broken_seals
from oneton.images.blocks import BLOCK_BYTES, go_on

_MAGIC = b"\x8fotc\x01"
_HEAD_BYTES = len(_MAGIC) + 4
_KEY_PART_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES
_CHUNK_BYTES = BLOCK_BYTES + TAG_BYTES
_SAID = b"oneton snapshot copy"


def seal_blocks(ring: Ring, key: str, path: Path, stop: Event) -> Iterator[bytes]:
    """A file's bytes, sealed."""
    head = _MAGIC + ring.number.to_bytes(4, "big")
    file_key = os.urandom(KEY_BYTES)
    yield head + ring.seal(file_key, _said(ring, head, key))
    cipher = _cipher(file_key)
    with path.open("rb") as file:
        number, block = 0, file.read(BLOCK_BYTES)
        while True:
            go_on(stop)
            following = file.read(BLOCK_BYTES)
            yield cipher.encrypt(_nonce(number, last=not following), block, None)
            if not following:
                return
            number, block = number + 1, following


def open_blocks(ring: Ring, key: str, path: Path, stop: Event) -> Iterator[bytes]:
    """What `seal_blocks` read.

    Raises:
        KeyError: a key that the ring lacks.
        SnapshotError: these are other bytes than were sealed, or not all of them.
    """
    try:
        with path.open("rb") as file:
            cipher = _open_key(ring, key, file)
            number, block = 0, file.read(_CHUNK_BYTES)
            while True:
                go_on(stop)
                following = file.read(_CHUNK_BYTES)
                with broken_seals():
                    yield cipher.decrypt(_nonce(number, last=not following), block, None)
                if not following:
                    return
                number, block = number + 1, following
    except SealBrokenError as error:
        raise SnapshotError(f"the copy {key} does not open: damaged, or its key is gone") from error


def plain_size(sealed_bytes: int) -> int:
    """The size of the file whose sealed size is this."""
    chunks_bytes = max(0, sealed_bytes - _HEAD_BYTES - _KEY_PART_BYTES)
    count = max(1, -(-chunks_bytes // _CHUNK_BYTES))
    return max(0, chunks_bytes - count * TAG_BYTES)


def _open_key(ring: Ring, key: str, file: BinaryIO) -> Cipher:
    head = file.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
        raise SealBrokenError(key)
    number = int.from_bytes(head[len(_MAGIC) :], "big")
    return _cipher(ring.open(number, file.read(_KEY_PART_BYTES), _said(ring, head, key)))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(NONCE_BYTES - 1, "big") + bytes([last])


def _said(ring: Ring, head: bytes, key: str) -> bytes:
    return _SAID + ring.tenant_id.bytes + head + key.encode()


def _cipher(key: bytes) -> Cipher:
    # Loaded where keys are used only.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    return AESGCM(key)
