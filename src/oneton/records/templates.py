"""Templates as Postgres keeps them: fp16, little-endian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oneton.domain.model import Embedding

_STORED = np.dtype("<f2")


def encode_template(embedding: Embedding) -> bytes:
    """Round a (D,) embedding to 2 D bytes."""
    return embedding.astype(_STORED).tobytes()


def decode_templates(stored_bytes: bytes, dimension: int) -> NDArray[np.float32]:
    """Read templates, one after another, as (N, D) float32 of unit L2 norm after the rounding."""
    stored = np.frombuffer(stored_bytes, dtype=_STORED).reshape(-1, dimension)
    embeddings: NDArray[np.float32] = stored.astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings
