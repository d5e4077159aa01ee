"""The codes of a segment: coarse ones that FAISS scans in registers, and finer ones on top.

Both are 4-bit product codes of D/8 bytes a face, 64 at 512 dimensions. The scan of the coarse codes
puts faces forward; the fine codes, which say what the coarse leave unsaid, are read for those only,
and spare most of the reading of templates. Measured at one million faces on one thread: the scan
takes 2.4 ms a probe, where 1-bit RaBitQ of the same size takes 7.1 ms and errs more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from oneton.index.codec import ERROR_ROWS, Codec, Scale, measure, train
from oneton.index.templates import unit_rows

SAMPLE_ROWS = 32_768
ENCODE_ROWS = 16_384
LEAST_ROWS = 64
"""Training needs some."""
_SCANNED_PROBES = 32
_SCANNED_DEPTH = 64
_WORSE = 1.1
"""Templates of which a codec's error is larger by this get one of their own."""


class Codes:
    """Codes of N rows, in order, and what is needed to read cosines out of them.

    Args:
        scanner: FAISS's IndexPQFastScan of the coarse codes.
        fine_codes: (N, bytes) uint8.
    """

    def __init__(
        self,
        codec: Codec,
        scanner: Any,  # noqa: ANN401 - FAISS's stubs describe its C++ methods
        fine_codes: NDArray[np.uint8],
        coarse: Scale,
        fine: Scale,
    ) -> None:
        self.codec = codec
        self._scanner = scanner
        self._fine_codes = fine_codes
        self.coarse = coarse
        self.fine = fine

    def __len__(self) -> int:
        return int(self._scanner.ntotal)

    @property
    def size_bytes(self) -> int:
        """Bytes in memory, the codec's left out, for others may share it."""
        return int(len(self) * self._scanner.code_size + self._fine_codes.nbytes)

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
        estimates, rows = self._scanner.search(probes @ self.codec.transforms[0], depth)
        found = (rows >= 0).sum(axis=1)
        return [
            (estimates[each, :count] / self.coarse.slope, rows[each, :count])
            for each, count in enumerate(found.tolist())
        ]

    def refine(
        self,
        estimates: NDArray[np.float32],
        rows: NDArray[np.int64],
        tables: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Better estimates of those that `search` gave; (n,) each.

        Args:
            tables: of the codec, for the probe.
        """
        where = np.take(self._fine_codes, rows, axis=0).astype(np.int32)
        where += np.arange(0, len(tables), 256, dtype=np.int32)
        added = np.take(tables, where).sum(axis=1)
        return np.asarray((estimates * self.coarse.slope + added) / self.fine.slope)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything that `from_arrays` needs."""
        scales = [self.coarse.slope, self.coarse.error, self.fine.slope, self.fine.error]
        return {
            "coarse_transform": self.codec.transforms[0],
            "fine_transform": self.codec.transforms[1],
            "coarse_centroids": self.codec.centroids[0],
            "fine_centroids": self.codec.centroids[1],
            "scanner": faiss.serialize_index(self._scanner),
            "fine_codes": self._fine_codes,
            "scales": np.array([*scales, self.codec.error], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Codes:
        """The codes of `to_arrays`, whose checksum was checked."""
        coarse_transform, fine_transform, coarse_centroids, fine_centroids = (
            arrays[name].astype(np.float32)
            for name in ("coarse_transform", "fine_transform", "coarse_centroids", "fine_centroids")
        )
        scales = arrays["scales"].astype(np.float64).tolist()
        return cls(
            Codec(
                (coarse_transform, fine_transform), (coarse_centroids, fine_centroids), scales[4]
            ),
            faiss.deserialize_index(np.ascontiguousarray(arrays["scanner"])),
            arrays["fine_codes"].astype(np.uint8),
            Scale(*scales[:2]),
            Scale(*scales[2:4]),
        )


def encode(
    templates: NDArray[np.float16],
    rng: np.random.RandomState,
    threads: int = 1,
    known: Codec | None = None,
) -> Codes:
    """Encode templates, after training on a sample of them where the known codec does not fit.

    Args:
        templates: (N, D), N at least `LEAST_ROWS`.
        rng: picks the sample; a frozen stream, so that a build can be repeated.
        known: what like templates were encoded with.
    """
    count = len(templates)
    faiss.omp_set_num_threads(threads)
    sample = unit_rows(np.take(templates, rng.permutation(count)[:SAMPLE_ROWS], axis=0))
    trial = sample[-ERROR_ROWS:]
    codec = known
    if codec is None or measure(codec, trial)[0].error > _WORSE * codec.error:
        codec = train(sample, rng)
    plain: Any = faiss.IndexPQ(
        codec.transforms[0].shape[1], len(codec.centroids[0]), 4, faiss.METRIC_INNER_PRODUCT
    )
    plain.pq = codec.coarse
    plain.is_trained = True
    fine_codes = np.empty((count, int(codec.fine.code_size)), dtype=np.uint8)
    for start in range(0, count, ENCODE_ROWS):
        rows = unit_rows(templates[start : start + ENCODE_ROWS])
        codes = codec.coarse.compute_codes(rows @ codec.transforms[0])
        plain.add_sa_codes(codes)
        unsaid = rows @ codec.transforms[1] - codec.coarse.decode(codes) @ codec.across
        fine_codes[start : start + ENCODE_ROWS] = codec.fine.compute_codes(unsaid)
    scanner = faiss.IndexPQFastScan(plain)
    rounding = _rounding(scanner, trial[:_SCANNED_PROBES] @ codec.transforms[0])
    scales = [
        Scale(scale.slope, float(np.hypot(scale.error, rounding / scale.slope)))
        for scale in measure(codec, trial)
    ]
    return Codes(codec, scanner, fine_codes, *scales)


def share_codecs(every: Iterable[Codes]) -> None:
    """See to it that equal codecs are one."""
    known: dict[bytes, Codec] = {}
    for codes in every:
        codes.codec = known.setdefault(codes.codec.digest, codes.codec)


def _rounding(scanner: Any, mapped: NDArray[np.float32]) -> float:  # noqa: ANN401
    """Standard deviation of what the scan loses of a raw estimate, for it adds 8-bit tables."""
    estimates, rows = scanner.search(mapped, min(_SCANNED_DEPTH, scanner.ntotal))
    lost = [
        estimate - np.float32(probe @ scanner.reconstruct(int(row)))
        for probe, some, theirs in zip(mapped, estimates, rows, strict=True)
        for estimate, row in zip(some, theirs, strict=True)
        if row >= 0
    ]
    return float(np.std(lost)) if lost else 0.0
