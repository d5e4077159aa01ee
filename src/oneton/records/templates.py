"""Templates as Postgres keeps them: fp16, little-endian, in plain or sealed with a tenant's key.

A sealed one is: two fp16 NaNs, which no template has; the form, a byte; the key's number, three;
the nonce, twelve; the sealed template; its tag, sixteen. The tenant's id is authenticated with it,
and no face's number, for a face that comes back after a reindex has another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import SealBrokenError
from oneton.domain.model import Embedding, TenantId
from oneton.domain.sealing import NONCE_BYTES, TAG_BYTES, Ring, broken_seals

_STORED = np.dtype("<f2")
_MAGIC = b"\xff\x7f\xff\x7f"
_FORM = b"\x01"
_HEAD_BYTES = len(_MAGIC) + len(_FORM) + 3
SEALED_MORE_BYTES = _HEAD_BYTES + NONCE_BYTES + TAG_BYTES
_SAID = b"oneton template"


def encode_template(embedding: Embedding) -> bytes:
    """Round a (D,) embedding to 2 D bytes."""
    return embedding.astype(_STORED).tobytes()


def decode_templates(stored_bytes: bytes, dimension: int) -> NDArray[np.float32]:
    """Read templates, one after another, as (N, D) float32 of unit L2 norm after the rounding."""
    stored = np.frombuffer(stored_bytes, dtype=_STORED).reshape(-1, dimension)
    embeddings: NDArray[np.float32] = stored.astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings


def head_of_key(number: int) -> bytes:
    """What every template begins with that is sealed with a key."""
    return _MAGIC + _FORM + number.to_bytes(3, "big")


def is_sealed(stored: bytes) -> bool:
    """Whether the first of some templates is; without any, it is not."""
    return stored.startswith(_MAGIC)


def seal_template(ring: Ring, template: bytes) -> bytes:
    """Seal what `encode_template` made, with the key in force."""
    head = head_of_key(ring.number)
    return head + ring.seal(template, _said(ring.tenant_id, head))


def open_templates(
    ring: Ring, stored: bytes, sizes: Sequence[int] | None, face_nos: Sequence[int]
) -> bytes:
    """The same templates, all in plain.

    Args:
        stored: one after another.
        sizes: in bytes; None where all are alike.
        face_nos: whose they are.

    Raises:
        KeyError: a key that the ring lacks.
        SealBrokenError: one does not open; it names the face.
    """
    if not face_nos:
        return b""
    if sizes is None:
        sizes = [len(stored) // len(face_nos)] * len(face_nos)
    said: dict[bytes, bytes] = {}
    opened = []
    for face_no, size, end in zip(face_nos, sizes, accumulate(sizes), strict=True):
        at = end - size
        head = stored[at : at + _HEAD_BYTES]
        if not head.startswith(_MAGIC):
            opened.append(stored[at:end])
            continue
        if head not in said:
            _check_form(head, face_no)
            said[head] = _said(ring.tenant_id, head)
        cipher = ring.ciphers[number_of(head)]
        nonce = stored[at + _HEAD_BYTES : at + _HEAD_BYTES + NONCE_BYTES]
        with broken_seals(f"the template of face {face_no}"):
            opened.append(
                cipher.decrypt(nonce, stored[at + _HEAD_BYTES + NONCE_BYTES : end], said[head])
            )
    return b"".join(opened)


def number_of(stored: bytes) -> int:
    """The number of the key that a sealed template names; 0 for one in plain."""
    return int.from_bytes(stored[5:_HEAD_BYTES], "big") if is_sealed(stored) else 0


def _check_form(head: bytes, face_no: int) -> None:
    if head[len(_MAGIC) : -3] != _FORM:
        raise SealBrokenError(f"the template of face {face_no}, of a form that is not known,")


def _said(tenant: TenantId, head: bytes) -> bytes:
    return _SAID + tenant.bytes + head
