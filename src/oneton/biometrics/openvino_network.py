"""A network on OpenVINO, the extra `oneton[openvino]`; its embeddings agree with ONNX Runtime's.

Computed in 32-bit floats: left alone, OpenVINO takes bfloat16 where a CPU has it, and templates
of the two makes would drift apart.
"""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.onnx_network import Callers
from oneton.domain.errors import SettingError


class OpenvinoNetwork:
    """One graph, compiled for one thread a caller, and for all cores when a caller is alone."""

    def __init__(self, graph: bytes, shape: tuple[int, ...], callers: Callers) -> None:
        """Compile a graph for one input shape.

        Raises:
            SettingError: the extra is not installed.
        """
        try:
            openvino = importlib.import_module("openvino")
        except ImportError as error:
            raise SettingError("OpenVINO is not installed: pip install oneton[openvino]") from error
        core = openvino.Core()
        model = core.read_model(graph)
        model.reshape(list(shape))
        self._callers = callers
        cores = len(os.sched_getaffinity(0))
        self._wide = core.compile_model(model, "CPU", _layout(cores, streams=1))
        # A stream runs one request at a time: as many streams as cores, of one thread each.
        self._narrow = core.compile_model(model, "CPU", _layout(cores, streams=cores))
        self._requests = threading.local()

    def widen(self) -> None:
        """Nothing to measure."""

    @property
    def is_wide(self) -> bool:
        """See `Network`."""
        return True

    def run(self, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """See `Network`."""
        result = self._request("wide" if self._callers.alone else "narrow").infer([inputs])
        return [np.array(value, dtype=np.float32) for value in result.values()]

    def _request(self, kind: str) -> Any:  # noqa: ANN401  OpenVINO is an extra, its types too
        # A request holds one run's tensors, so each thread has its own.
        request = getattr(self._requests, kind, None)
        if request is None:
            compiled = self._wide if kind == "wide" else self._narrow
            request = compiled.create_infer_request()
            setattr(self._requests, kind, request)
        return request


def _layout(threads: int, *, streams: int) -> dict[str, str | int]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": "f32",
    }
