"""A lone caller gets the wide session, callers at once a narrow one each."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from oneton.biometrics.embed import Embedder
from oneton.biometrics.onnx_network import Callers, OnnxNetwork

_SAMPLE = np.ones((1, 3, 4, 4), dtype=np.float32)


def _graph() -> bytes:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4, 4]) for n in "xy"]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opset = [helper.make_opsetid("", 11)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


def test_session_is_narrow_only_when_callers_are_several() -> None:
    callers = Callers()
    network = OnnxNetwork(_graph(), _SAMPLE, callers, threads=2)
    with callers:
        alone = network.session
        with callers:
            assert network.session is not alone
        assert network.session is alone


def test_one_thread_means_one_session() -> None:
    assert not OnnxNetwork(_graph(), _SAMPLE, Callers(), threads=1).is_wide


def test_a_graph_too_small_to_share_is_measured_to_be_narrow() -> None:
    network = OnnxNetwork(_graph(), _SAMPLE, Callers())
    np.testing.assert_array_equal(network.run(_SAMPLE)[0], _SAMPLE * 2)


def test_embedding_is_of_unit_norm_and_planes_are_red_first() -> None:
    class FakeNetwork:
        is_wide = False

        def widen(self) -> None: ...

        def run(self, inputs: np.ndarray) -> list[np.ndarray]:
            assert inputs.shape == (1, 3, 112, 112)
            return [inputs[:, :, 0, 0]]

    chip = np.zeros((112, 112, 3), dtype=np.uint8)
    chip[:, :, 2] = 255
    embedding = Embedder(FakeNetwork()).embed(chip)
    np.testing.assert_allclose(embedding, np.array([1, -1, -1]) / np.sqrt(3), rtol=1e-6)
    assert embedding.dtype == np.float32
