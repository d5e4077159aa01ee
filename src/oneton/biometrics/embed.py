"""Aligned faces to embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from oneton.biometrics import Network
from oneton.biometrics.onnx_network import Callers, OnnxNetwork
from oneton.biometrics.openvino_network import OpenvinoNetwork
from oneton.biometrics.packs import Preprocess
from oneton.biometrics.prelu import without_prelu
from oneton.domain.errors import BadImageError
from oneton.domain.model import Embedding

Runtime = Literal["onnxruntime", "openvino"]
INSIGHTFACE = Preprocess()
_LOOK_NODES = 8


class Embedder:
    """A recogniser of a model pack; safe to call from several threads at once."""

    def __init__(
        self, network: Network, preprocess: Preprocess = INSIGHTFACE, *, normalises: bool = False
    ) -> None:
        """Wrap a network that takes (1, 3, S, S) and returns (1, D).

        Args:
            normalises: the graph itself maps bytes to its own range.
        """
        self._network = network
        self._mean, self._scale = (0.0, 1.0) if normalises else (preprocess.mean, preprocess.scale)
        self._order = slice(None, None, -1 if preprocess.colour == "rgb" else 1)
        self.side = preprocess.input_size

    @classmethod
    def load(
        cls,
        recogniser: Path,
        callers: Callers,
        preprocess: Preprocess = INSIGHTFACE,
        *,
        runtime: Runtime = "onnxruntime",
        threads: int | None = None,
    ) -> Embedder:
        """Load a recogniser; `threads` as in `OnnxNetwork`."""
        model = onnx.load(str(recogniser))
        normalises = preprocess == INSIGHTFACE and _normalises(model)
        side = preprocess.input_size
        sample = np.zeros((1, 3, side, side), dtype=np.float32)
        network: Network
        if runtime == "openvino":
            network = OpenvinoNetwork(model.SerializeToString(), sample.shape, callers)
        else:
            graph = without_prelu(model).SerializeToString()
            network = OnnxNetwork(graph, sample, callers, threads)
        return cls(network, preprocess, normalises=normalises)

    def widen(self) -> None:
        """See `Analyser`."""
        self._network.widen()

    @property
    def is_wide(self) -> bool:
        """See `Network`."""
        return self._network.is_wide

    def embed(self, chip: NDArray[np.uint8]) -> Embedding:
        """Return the (D,) float32 embedding, of unit L2 norm, of a (side, side, 3) BGR chip."""
        planes = chip[:, :, self._order].transpose(2, 0, 1).astype(np.float32, order="C")
        planes -= self._mean
        planes /= self._scale
        raw = self._network.run(planes[np.newaxis])[0].reshape(-1).astype(np.float32)
        norm = float(np.linalg.norm(raw))
        if not np.isfinite(norm) or norm <= 0:
            raise BadImageError("the face has no embedding")
        embedding: Embedding = raw / np.float32(norm)
        return embedding


def _normalises(model: onnx.ModelProto) -> bool:
    """Whether a graph begins with its own normalisation, as MXNet exports do.

    Source: insightface.model_zoo.arcface_onnx.ArcFaceONNX.__init__.
    """
    names = [node.name for node in model.graph.node[:_LOOK_NODES]]
    has_sub = any(name.startswith(("Sub", "_minus")) for name in names)
    return has_sub and any(name.startswith(("Mul", "_mul")) for name in names)
