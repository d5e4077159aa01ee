"""The codes of a segment: coarse ones that FAISS scans in registers, and finer ones on top.

Both are 4-bit product codes of D/8 bytes a face, 64 at 512 dimensions. The scan of the coarse codes
puts faces forward; the fine codes, which say what the coarse leave unsaid, are read for those only,
and spare most of the reading of templates. Measured at one million faces on one thread: the scan
takes 2.4 ms a probe, where 1-bit RaBitQ of the same size takes 7.1 ms and errs more.
"""

from __future__ import annotations

from typing import Any

import faiss
import msgspec
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
_SCANNED_PROBES = 32
_SCANNED_DEPTH = 64
_DISTORTION = {2: 0.12, 3: 0.23, 4: 0.33}
"""Share of a Gaussian's variance that 16 centroids leave of 2, 3 or 4 dimensions; k-means on normal
samples gives 0.11 to 0.12, 0.22 to 0.23 and 0.32 to 0.33."""


class Scale(msgspec.Struct, frozen=True):
    """How a stage's estimates are read.

    Attributes:
        slope: what a raw estimate is divided by to be a cosine on average.
        error: standard deviation of such a cosine around the true one.
    """

    slope: float
    error: float


class Codes:
    """Codes of N rows, in order, and what is needed to read cosines out of them.

    Args:
        transforms: coarse and fine, (D, d) each.
        scanner: FAISS's IndexPQFastScan of the coarse codes.
        centroids: of the fine codes, (parts, 16, d / parts).
        fine_codes: (N, bytes) uint8, two parts a byte, the earlier one in the low bits.
    """

    def __init__(
        self,
        transforms: tuple[NDArray[np.float32], NDArray[np.float32]],
        scanner: Any,  # noqa: ANN401 - FAISS's stubs describe its C++ methods
        centroids: NDArray[np.float32],
        fine_codes: NDArray[np.uint8],
        coarse: Scale,
        fine: Scale,
    ) -> None:
        self._transforms = transforms
        self._scanner = scanner
        self._centroids = centroids
        self._fine_codes = fine_codes
        self.coarse = coarse
        self.fine = fine

    def __len__(self) -> int:
        return int(self._scanner.ntotal)

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        transforms = sum(each.nbytes for each in self._transforms)
        return int(len(self) * self._scanner.code_size + self._fine_codes.nbytes + transforms)

    def search(
        self, probes: NDArray[np.float32], depth: int
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """The best rows by coarse estimate.

        Args:
            probes: (Q, D) of unit L2 norm.
            depth: at most the number of rows.

        Returns:
            for each probe its estimated cosines, never rising, and their rows: `depth` of them,
            less those of the lowest estimate there can be, which FAISS leaves out.
        """
        estimates, rows = self._scanner.search(probes @ self._transforms[0], depth)
        found = (rows >= 0).sum(axis=1)
        return [
            (estimates[each, :count] / self.coarse.slope, rows[each, :count])
            for each, count in enumerate(found.tolist())
        ]

    def refiner(self, probe: NDArray[np.float32]) -> Refiner:
        """What makes better estimates of those that `search` gave for a (D,) probe."""
        mapped = (probe @ self._transforms[1]).reshape(len(self._centroids), -1, 1)
        products = (self._centroids @ mapped)[:, :, 0]
        if len(products) % 2:
            products = np.vstack([products, np.zeros((1, 16), dtype=np.float32)])
        # One table for each byte: the high half counts first.
        tables = products[1::2, :, np.newaxis] + products[0::2, np.newaxis, :]
        return Refiner(self._fine_codes, tables.ravel(), self.coarse.slope, self.fine.slope)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything that `from_arrays` needs."""
        scales = [self.coarse.slope, self.coarse.error, self.fine.slope, self.fine.error]
        return {
            "coarse_transform": self._transforms[0],
            "fine_transform": self._transforms[1],
            "scanner": faiss.serialize_index(self._scanner),
            "centroids": self._centroids,
            "fine_codes": self._fine_codes,
            "scales": np.array(scales, dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Codes:
        """The codes of `to_arrays`, whose checksum was checked."""
        scales = arrays["scales"].astype(np.float64).tolist()
        return cls(
            (
                arrays["coarse_transform"].astype(np.float32),
                arrays["fine_transform"].astype(np.float32),
            ),
            faiss.deserialize_index(np.ascontiguousarray(arrays["scanner"])),
            arrays["centroids"].astype(np.float32),
            arrays["fine_codes"].astype(np.uint8),
            Scale(*scales[:2]),
            Scale(*scales[2:]),
        )


class Refiner(msgspec.Struct, frozen=True):
    """Adds what the fine codes say to coarse estimates for one probe.

    Attributes:
        codes: (N, bytes) uint8.
        tables: (bytes * 256,) what each byte adds.
    """

    codes: NDArray[np.uint8]
    tables: NDArray[np.float32]
    coarse_slope: float
    fine_slope: float

    def __call__(
        self, estimates: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Better estimates of some rows' cosines; (n,) each."""
        where = np.take(self.codes, rows, axis=0).astype(np.int32)
        where += np.arange(0, len(self.tables), 256, dtype=np.int32)
        added = np.take(self.tables, where).sum(axis=1)
        return np.asarray((estimates * self.coarse_slope + added) / self.fine_slope)


def encode(templates: NDArray[np.float16], rng: np.random.RandomState, threads: int = 1) -> Codes:
    """Train on a sample of the templates, then encode them all.

    Args:
        templates: (N, D), N at least `LEAST_ROWS`.
        rng: picks the sample; a frozen stream, so that a build can be repeated.
    """
    count = len(templates)
    faiss.omp_set_num_threads(threads)
    sample = unit_rows(np.take(templates, rng.permutation(count)[:SAMPLE_ROWS], axis=0))
    coarse = _fit_transform(sample, rng)
    plain: Any = faiss.IndexPQ(coarse.shape[1], _parts(coarse), 4, faiss.METRIC_INNER_PRODUCT)
    _train(plain.pq, sample @ coarse)
    plain.is_trained = True
    said = plain.pq.decode(plain.pq.compute_codes(sample @ coarse))
    unsaid = sample - said @ coarse.T
    fine = _fit_transform(unsaid, rng)
    quantizer: Any = faiss.ProductQuantizer(fine.shape[1], _parts(fine), 4)
    _train(quantizer, unsaid @ fine)
    across = coarse.T @ fine
    fine_codes = np.empty((count, int(quantizer.code_size)), dtype=np.uint8)
    for start in range(0, count, ENCODE_ROWS):
        rows = unit_rows(templates[start : start + ENCODE_ROWS])
        codes = plain.pq.compute_codes(rows @ coarse)
        plain.add_sa_codes(codes)
        left = rows @ fine - plain.pq.decode(codes) @ across
        fine_codes[start : start + ENCODE_ROWS] = quantizer.compute_codes(left)
    scanner = faiss.IndexPQFastScan(plain)
    scales = _measure(scanner, quantizer, (coarse, fine), sample[-_ERROR_ROWS:])
    centroids = faiss.vector_to_array(quantizer.centroids).reshape(_parts(fine), 16, -1)
    return Codes((coarse, fine), scanner, centroids, fine_codes, *scales)


def _parts(transform: NDArray[np.float32]) -> int:
    """Codes of a face: one for four of D dimensions."""
    return int(-(-transform.shape[0] // 4))


def _train(quantizer: Any, rows: NDArray[np.float32]) -> None:  # noqa: ANN401
    quantizer.cp.min_points_per_centroid = 1
    quantizer.cp.niter = TRAIN_ROUNDS
    quantizer.train(np.ascontiguousarray(rows[:TRAIN_ROWS]))


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
    kept = directions[:, :width]
    return np.ascontiguousarray(kept @ mixing[: kept.shape[1]], dtype=np.float32)


def _measure(
    scanner: Any,  # noqa: ANN401
    quantizer: Any,  # noqa: ANN401
    transforms: tuple[NDArray[np.float32], NDArray[np.float32]],
    sample: NDArray[np.float32],
) -> tuple[Scale, Scale]:
    """How estimates of known cosines come out, of the coarse codes and of both.

    A probe at cosine c of a row is that row turned towards another one. The scan itself rounds, for
    it adds 8-bit tables; that is measured on the side.
    """
    mapped = sample @ transforms[0]
    said = scanner.pq.decode(scanner.pq.compute_codes(mapped))
    left = (sample - said @ transforms[0].T) @ transforms[1]
    more = quantizer.decode(quantizer.compute_codes(left))
    slopes = [
        float(np.mean(np.vecdot(mapped, said))),
        float(np.mean(np.vecdot(mapped, said) + np.vecdot(sample @ transforms[1], more))),
    ]
    other = np.roll(sample, 1, axis=0)
    aside = other - np.vecdot(other, sample)[:, np.newaxis] * sample
    norms = np.linalg.norm(aside, axis=1, keepdims=True)
    aside = np.divide(aside, norms, out=np.zeros_like(aside), where=norms > 1e-3)
    errors: list[list[float]] = [[], []]
    for cosine in _ERROR_COSINES:
        probes = cosine * sample + np.sqrt(1 - cosine**2) * aside
        coarse = np.vecdot(probes @ transforms[0], said)
        both = coarse + np.vecdot(probes @ transforms[1], more)
        for stage, raw in enumerate((coarse, both)):
            error = raw / slopes[stage] - cosine
            errors[stage].append(float(np.sqrt(np.mean(error**2))))
    rounding = _rounding(scanner, mapped[:_SCANNED_PROBES])
    coarse_scale, fine_scale = (
        Scale(slope, float(np.hypot(max(found), rounding / slope)))
        for slope, found in zip(slopes, errors, strict=True)
    )
    return coarse_scale, fine_scale


def _rounding(scanner: Any, mapped: NDArray[np.float32]) -> float:  # noqa: ANN401
    """Standard deviation of what the scan's tables lose of a raw estimate."""
    estimates, rows = scanner.search(mapped, min(_SCANNED_DEPTH, scanner.ntotal))
    lost = [
        estimate - np.float32(probe @ scanner.reconstruct(int(row)))
        for probe, some, theirs in zip(mapped, estimates, rows, strict=True)
        for estimate, row in zip(some, theirs, strict=True)
        if row >= 0
    ]
    return float(np.std(lost)) if lost else 0.0
