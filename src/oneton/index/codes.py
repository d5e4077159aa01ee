"""The first stage of a search: 4-bit product codes that FAISS scans in registers.

A face costs D/8 bytes (64 at 512 dimensions). Measured at one million faces on one thread: 2.4 ms a
probe, where 1-bit RaBitQ of the same size takes 7.1 ms and finds less (`scripts/bench index`).
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from oneton.index.templates import unit_rows

SAMPLE_ROWS = 32_768
TRAIN_ROWS = 8192
"""More change neither slope nor error in the third digit."""
TRAIN_ROUNDS = 10
ENCODE_ROWS = 16_384
LEAST_ROWS = 64
"""Training needs some."""
_ERROR_ROWS = 2048
_ERROR_COSINES = (0.2, 0.35, 0.5)
_DISTORTION = {2: 0.12, 3: 0.23, 4: 0.33}
"""Share of a Gaussian's variance that 16 centroids leave of 2, 3 or 4 dimensions; k-means on normal
samples gives 0.11 to 0.12, 0.22 to 0.23 and 0.32 to 0.33."""


class Codes:
    """Codes of N rows, in order, and what is needed to read cosines out of them.

    Attributes:
        slope: what an estimate has to be divided by to be a cosine on average.
        error: standard deviation of such a cosine around the true one.
    """

    def __init__(
        self,
        transform: NDArray[np.float32],
        scanner: Any,  # noqa: ANN401 - FAISS's stubs describe its C++ methods
        slope: float,
        error: float,
    ) -> None:
        self._transform = transform
        self._scanner = scanner
        self.slope = slope
        self.error = error

    def __len__(self) -> int:
        return int(self._scanner.ntotal)

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return len(self) * int(self._scanner.code_size) + int(self._transform.nbytes)

    def search(
        self, probes: NDArray[np.float32], depth: int
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """The best rows by estimate.

        Args:
            probes: (Q, D) of unit L2 norm.
            depth: at most the number of rows.

        Returns:
            for each probe its estimated cosines, never rising, and their rows: `depth` of them,
            less those of the lowest estimate there can be, which FAISS leaves out.
        """
        estimates, rows = self._scanner.search(probes @ self._transform, depth)
        found = (rows >= 0).sum(axis=1)
        return [
            (estimates[each, :count] / self.slope, rows[each, :count])
            for each, count in enumerate(found.tolist())
        ]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything that `from_arrays` needs."""
        return {
            "transform": self._transform,
            "scanner": faiss.serialize_index(self._scanner),
            "scale": np.array([self.slope, self.error], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Codes:
        """The codes of `to_arrays`, whose checksum was checked."""
        scale = arrays["scale"].astype(np.float64)
        scanner = faiss.deserialize_index(np.ascontiguousarray(arrays["scanner"]))
        transform = np.ascontiguousarray(arrays["transform"], dtype=np.float32)
        return cls(transform, scanner, float(scale[0]), float(scale[1]))


def encode(templates: NDArray[np.float16], rng: np.random.RandomState) -> Codes:
    """Train on a sample of the templates, then encode them all, on one thread.

    Args:
        templates: (N, D), N at least 16.
        rng: picks the sample; a frozen stream, so that a build can be repeated.
    """
    count, dimension = templates.shape
    faiss.omp_set_num_threads(1)
    sample = unit_rows(np.take(templates, rng.permutation(count)[:SAMPLE_ROWS], axis=0))
    transform = _fit_transform(sample, rng)
    parts = -(-dimension // 4)
    scanner = faiss.IndexPQFastScan(transform.shape[1], parts, 4, faiss.METRIC_INNER_PRODUCT)
    scanner.pq.cp.min_points_per_centroid = 1
    scanner.pq.cp.niter = TRAIN_ROUNDS
    scanner.train(sample[:TRAIN_ROWS] @ transform)
    for start in range(0, count, ENCODE_ROWS):
        scanner.add(unit_rows(templates[start : start + ENCODE_ROWS]) @ transform)
    slope, error = _measure(scanner.pq, sample[-_ERROR_ROWS:], transform)
    return Codes(transform, scanner, slope, error)


def _fit_transform(sample: NDArray[np.float32], rng: np.random.RandomState) -> NDArray[np.float32]:
    """(D, d): the d strongest principal directions, mixed so that each carries as much.

    Embeddings of a face model fill fewer dimensions than they have. The bits are fixed, so leaving
    weak directions out gives the others more of them; d is the number of dimensions per code,
    2 to 4, that leaves the least of the variance unsaid.
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
    transform = np.zeros((dimension, width), dtype=np.float32)
    kept = directions[:, :width]
    transform[:, :] = kept @ mixing[: kept.shape[1]]
    return transform


def _measure(
    quantizer: Any,  # noqa: ANN401 - as above
    sample: NDArray[np.float32],
    transform: NDArray[np.float32],
) -> tuple[float, float]:
    """How estimates of known cosines come out: their slope, and their standard deviation.

    A probe at cosine c of a row is that row turned towards another one.
    """
    mapped = sample @ transform
    coded = quantizer.decode(quantizer.compute_codes(mapped))
    slope = float(np.mean(np.vecdot(mapped, coded)))
    other = np.roll(sample, 1, axis=0)
    aside = other - np.vecdot(other, sample)[:, np.newaxis] * sample
    norms = np.linalg.norm(aside, axis=1, keepdims=True)
    aside = np.divide(aside, norms, out=np.zeros_like(aside), where=norms > 1e-3)
    errors = []
    for cosine in _ERROR_COSINES:
        probes = cosine * sample + np.sqrt(1 - cosine**2) * aside
        estimates = np.vecdot(probes @ transform, coded) / slope
        errors.append(float(np.sqrt(np.mean((estimates - cosine) ** 2))))
    return slope, max(errors)
