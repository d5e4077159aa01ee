"""From a picture's bytes to faces and one embedding; knows nothing of HTTP or Postgres."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Network(Protocol):
    """One network on one runtime; `run` may be called from several threads at once."""

    def run(self, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the graph's outputs, in its order, for one (N, 3, H, W) input."""
        ...
