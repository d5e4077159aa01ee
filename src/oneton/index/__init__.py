"""Search over templates: arrays in, arrays out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oneton.domain.model import Changes


class GalleryIndex(Protocol):
    """The templates of one gallery under one model pack.

    Searches may run in any number of threads while one thread catches up.
    """

    @property
    def head(self) -> int:
        """The gallery's head that a search now would answer for."""
        ...

    def __len__(self) -> int:
        """The number of faces a search now would rank."""
        ...

    def catch_up(self, changes: Changes) -> None:
        """Apply the changes since the present head, all or, when one is refused, none.

        Raises:
            DimensionError: an embedding's dimension is not the index's.
        """
        ...

    def search(
        self, probes: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Rank the gallery for each probe, best first.

        Args:
            probes: (Q, D), rows of unit L2 norm.
            k: at least 1.

        Returns:
            cosines: (Q, k) in [-1, 1], never rising along a row; -2 past the end.
            face_nos: (Q, k); -1 past the end of the gallery.

        Raises:
            DimensionError: D is not the index's.
            SnapshotError: a file of the index is damaged; it has to be loaded anew.
        """
        ...
