"""A pack's own attribute network is read as insightface reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from oneton.biometrics.align import TEMPLATE
from oneton.biometrics.attributes import PackEstimator
from oneton.biometrics.detect import Detection
from oneton.biometrics.onnx_network import Callers


@pytest.fixture
def estimator(tmp_path: Path) -> PackEstimator:
    """Its network gives the mean red, green and blue as female, male and age in centuries."""
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 96, 96])
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [taken], [given])
    path = tmp_path / "genderage.onnx"
    opset = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return PackEstimator(path, Callers())


@pytest.mark.parametrize(("red", "green", "gender"), [(200, 60, "female"), (60, 200, "male")])
def test_pack_estimator_reads_gender_and_age(
    estimator: PackEstimator, red: int, green: int, gender: str
) -> None:
    pixels = np.zeros((400, 400, 3), dtype=np.uint8)
    pixels[:] = (166, green, red)
    face = Detection((150, 150, 230, 250), (TEMPLATE + 140).astype(np.float32), 0.9)
    found = estimator.estimate(pixels, face)
    assert found.gender == gender
    assert found.gender_confidence == pytest.approx(1 / (1 + np.exp(-140 / 128)), abs=1e-4)
    assert found.age == pytest.approx(100 * 38.5 / 128, abs=0.01)
