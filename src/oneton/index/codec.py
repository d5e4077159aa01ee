"""What templates are encoded with, and how far its estimates of cosines err."""

from __future__ import annotations

import hashlib
from typing import Any

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

TRAIN_ROWS = 8192
"""More change neither slope nor error in the third digit."""
TRAIN_ROUNDS = 10
ERROR_ROWS = 2048
_ERROR_COSINES = (0.2, 0.35, 0.5)
_DISTORTION = {2: 0.12, 4: 0.33}
"""Share of a Gaussian's variance that 16 centroids leave of 2 or 4 dimensions; k-means on normal
samples gives 0.11 to 0.12 and 0.32 to 0.33. FAISS encodes 3 at a third of the speed."""


class Scale(msgspec.Struct, frozen=True):
    """How a stage's estimates are read.

    Attributes:
        slope: what a raw estimate is divided by to be a cosine on average.
        error: standard deviation of such a cosine around the true one.
    """

    slope: float
    error: float


class Codec:
    """What templates are encoded with; segments of a gallery share one while it fits them.

    Args:
        transforms: coarse and fine, (D, d) each, of orthonormal columns.
        centroids: likewise, (parts, 16, d / parts) each.
        error: of coarse estimates of the templates that it was trained on, as in `Scale`.
    """

    def __init__(
        self,
        transforms: tuple[NDArray[np.float32], NDArray[np.float32]],
        centroids: tuple[NDArray[np.float32], NDArray[np.float32]],
        error: float,
    ) -> None:
        self.error = error
        self.transforms = transforms
        self.centroids = centroids
        self.across = transforms[0].T @ transforms[1]
        self.coarse, self.fine = (
            _quantizer(transform, some)
            for transform, some in zip(transforms, centroids, strict=True)
        )

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return sum(each.nbytes for each in (*self.transforms, *self.centroids, self.across))

    @property
    def digest(self) -> bytes:
        """The same for equal codecs."""
        digest = hashlib.sha256()
        for array in (*self.transforms, *self.centroids):
            digest.update(array.tobytes())
        return digest.digest()

    def tables(self, probe: NDArray[np.float32]) -> NDArray[np.float32]:
        """(bytes * 256,) what each byte of fine codes adds to a raw estimate for a (D,) probe."""
        centroids = self.centroids[1]
        mapped = (probe @ self.transforms[1]).reshape(len(centroids), -1, 1)
        products = (centroids @ mapped)[:, :, 0]
        if len(products) % 2:
            products = np.vstack([products, np.zeros((1, 16), dtype=np.float32)])
        # Two parts a byte, the earlier one in the low half.
        return np.asarray(products[1::2, :, np.newaxis] + products[0::2, np.newaxis, :]).ravel()


def train(sample: NDArray[np.float32], rng: np.random.RandomState) -> Codec:
    """Learn a codec from (N, D) rows of unit L2 norm."""
    coarse = _fit_transform(sample, rng)
    said = _trained_centroids(sample @ coarse, coarse)
    quantizer = _quantizer(coarse, said)
    left = sample - quantizer.decode(quantizer.compute_codes(sample @ coarse)) @ coarse.T
    fine = _fit_transform(left, rng)
    codec = Codec((coarse, fine), (said, _trained_centroids(left @ fine, fine)), 0.0)
    codec.error = measure(codec, sample[-ERROR_ROWS:])[0].error
    return codec


def _quantizer(transform: NDArray[np.float32], centroids: NDArray[np.float32]) -> Any:  # noqa: ANN401
    quantizer = faiss.ProductQuantizer(transform.shape[1], len(centroids), 4)
    faiss.copy_array_to_vector(centroids.ravel(), quantizer.centroids)
    return quantizer


def _trained_centroids(
    rows: NDArray[np.float32], transform: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(parts, 16, d / parts), one part for four of the D dimensions before the transform."""
    parts = -(-transform.shape[0] // 4)
    quantizer: Any = faiss.ProductQuantizer(transform.shape[1], parts, 4)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.cp.niter = TRAIN_ROUNDS
    quantizer.train(np.ascontiguousarray(rows[:TRAIN_ROWS]))
    return np.asarray(faiss.vector_to_array(quantizer.centroids).reshape(parts, 16, -1))


def _fit_transform(sample: NDArray[np.float32], rng: np.random.RandomState) -> NDArray[np.float32]:
    """(D, d): the d strongest principal directions, mixed so that each carries as much.

    Embeddings of a face model fill fewer dimensions than they have. The bits are fixed, so leaving
    weak directions out gives the others more of them; d is the number of dimensions per code,
    2 or 4, that leaves the least of the variance unsaid.
    """
    dimension = sample.shape[1]
    variances, directions = np.linalg.eigh(sample.T @ sample / len(sample))
    variances, directions = variances[::-1], directions[:, ::-1]
    parts = -(-dimension // 4)
    left = {
        each: variances[each * parts :].sum() + share * variances[: each * parts].sum()
        for each, share in _DISTORTION.items()
    }
    width = min(left, key=lambda each: left[each]) * parts
    mixing, _ = np.linalg.qr(rng.standard_normal((width, width)))
    kept = directions[:, :width]
    return np.ascontiguousarray(kept @ mixing[: kept.shape[1]], dtype=np.float32)


def measure(codec: Codec, sample: NDArray[np.float32]) -> tuple[Scale, Scale]:
    """How estimates of known cosines come out, of the coarse codes and of both.

    A probe at cosine c of a row is that row turned towards another one.
    """
    mapped = sample @ codec.transforms[0]
    said = codec.coarse.decode(codec.coarse.compute_codes(mapped))
    left = sample @ codec.transforms[1] - said @ codec.across
    more = codec.fine.decode(codec.fine.compute_codes(left))
    slopes = [
        float(np.mean(np.vecdot(mapped, said))),
        float(np.mean(np.vecdot(mapped, said) + np.vecdot(sample @ codec.transforms[1], more))),
    ]
    other = np.roll(sample, 1, axis=0)
    aside = other - np.vecdot(other, sample)[:, np.newaxis] * sample
    norms = np.linalg.norm(aside, axis=1, keepdims=True)
    aside = np.divide(aside, norms, out=np.zeros_like(aside), where=norms > 1e-3)
    errors = [0.0, 0.0]
    for cosine in _ERROR_COSINES:
        probes = cosine * sample + np.sqrt(1 - cosine**2) * aside
        coarse = np.vecdot(probes @ codec.transforms[0], said)
        both = coarse + np.vecdot(probes @ codec.transforms[1], more)
        for stage, raw in enumerate((coarse, both)):
            error = float(np.sqrt(np.mean((raw / slopes[stage] - cosine) ** 2)))
            errors[stage] = max(errors[stage], error)
    return Scale(slopes[0], errors[0]), Scale(slopes[1], errors[1])
