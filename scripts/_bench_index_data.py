"""The arrays that every engine of `scripts/bench index` gets, as files in one folder.

`_bench_index_faces.py` makes them. This side imports no native library: some peers crash in one
process with another's OpenMP, so that each engine's process loads its own only.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

DIMENSION = 512
LIST_LENGTH = 5
"""The k of every search."""


class Planted(msgspec.Struct, frozen=True):
    """The probes of one size, and what the full product makes of them.

    Attributes:
        probes: (Q, D) float32 of unit L2 norm.
        mates: (Q,) int64: the row that holds the same person's other photo.
        findable: (Q,) bool: among the full product's best, reaching the threshold.
        threshold: a cosine.
    """

    probes: NDArray[np.float32]
    mates: NDArray[np.int64]
    findable: NDArray[np.bool_]
    threshold: float


class Arrays(msgspec.Struct, frozen=True):
    """The files of one size."""

    folder: Path
    size: int

    @property
    def faces_path(self) -> Path:
        """(N, D) float16, near unit L2 norm."""
        return self.folder / f"faces-{self.size}.npy"

    @property
    def planted_path(self) -> Path:
        """The fields of `Planted`."""
        return self.folder / f"planted-{self.size}.npz"

    @property
    def newcomers_path(self) -> Path:
        """(M, D) float16: faces that are of no size, to insert while searching."""
        return self.folder / "newcomers.npy"

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows of the faces; the mapping goes with the call, so that its pages count for none."""
        faces: NDArray[np.float16] = np.load(self.faces_path, mmap_mode="r")
        return faces[start:stop].astype(np.float32)

    def gathered(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The faces of row numbers of any shape, in that shape."""
        faces: NDArray[np.float16] = np.load(self.faces_path, mmap_mode="r")
        return faces[rows].astype(np.float32)

    def newcomers(self) -> NDArray[np.float32]:
        faces: NDArray[np.float16] = np.load(self.newcomers_path)
        return faces.astype(np.float32)

    def planted(self) -> Planted:
        with np.load(self.planted_path) as file:
            return Planted(
                file["probes"], file["mates"], file["findable"], float(file["threshold"])
            )
