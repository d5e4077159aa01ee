"""The rewritten graph gives what PRelu gave."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from oneton.biometrics.prelu import without_prelu

_CHANNELS = 16


def _model(slopes: NDArray[np.float32]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("PRelu", ["minus", "slopes"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, _CHANNELS, 5, 7])
        for name in ("x", "y")
    ]
    weights = [numpy_helper.from_array(slopes, "slopes")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    opset = [helper.make_opsetid("", 11)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def _run(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {"x": inputs})[0]
    return output


def test_without_prelu_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(11)
    slopes = rng.uniform(-0.9, 1.0, (_CHANNELS, 1, 1)).astype(np.float32)
    inputs = rng.normal(0, 3, (1, _CHANNELS, 5, 7)).astype(np.float32)
    rewritten = without_prelu(_model(slopes))
    assert "PRelu" not in {node.op_type for node in rewritten.graph.node}
    np.testing.assert_allclose(_run(rewritten, inputs), _run(_model(slopes), inputs), atol=1e-5)


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), (_CHANNELS, 5, 7)])
def test_without_prelu_leaves_slopes_that_are_not_per_channel(shape: tuple[int, ...]) -> None:
    rewritten = without_prelu(_model(np.full(shape, 0.25, dtype=np.float32)))
    assert [node.op_type for node in rewritten.graph.node] == ["Neg", "PRelu"]


def test_without_prelu_leaves_slopes_above_one() -> None:
    slopes = np.full((_CHANNELS, 1, 1), 0.5, dtype=np.float32)
    slopes[3] = 1.5
    rewritten = without_prelu(_model(slopes))
    assert [node.op_type for node in rewritten.graph.node] == ["Neg", "PRelu"]
