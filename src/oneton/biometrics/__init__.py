"""From a picture's bytes to faces and one embedding; knows nothing of HTTP or Postgres."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# ONNX Runtime writes a device id to the home folder, and may report it, unless this is set before
# it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class Network(Protocol):
    """One network on one runtime; `run` may be called from several threads at once."""

    @property
    def is_wide(self) -> bool:
        """Whether a lone caller gets several threads."""
        ...

    def widen(self) -> None:
        """Measure how many threads are best for a lone caller."""
        ...

    def run(self, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the graph's outputs, in its order, for one (N, 3, H, W) input."""
        ...
