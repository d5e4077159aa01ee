"""Model packs as accurate as the default one, and useless against its templates."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from oneton.biometrics.calibration import FILE, load_calibration
from oneton.biometrics.packs import PackFiles, file_sha256

DETECTOR = "det_500m.onnx"
RECOGNISER = "w600k_turned.onnx"


def turn_pack(files: PackFiles, folder: Path, dimension: int = 512, seed: int = 1) -> Path:
    """Write a pack whose recogniser is the default one's, followed by a fixed random rotation.

    To fewer dimensions it is the rotation's first ones, which keeps cosines roughly. Its
    calibration is the default one's, for rotating changes no cosine.
    """
    folder.mkdir(parents=True)
    shutil.copyfile(files.detector, folder / DETECTOR)
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(512, 512)))[0][:, :dimension].astype(np.float32)
    model = onnx.load(str(files.recogniser))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(rotation, "turn"))
    before = graph.output[0].name
    graph.node.append(helper.make_node("MatMul", [before, "turn"], ["turned"], name="turn"))
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, ["n", dimension])
    )
    onnx.save(model, str(folder / RECOGNISER))
    digest = file_sha256(folder / RECOGNISER)
    own = load_calibration(files.recogniser_sha256)
    calibration = msgspec.structs.replace(own, recogniser_sha256=digest, source="turned")
    (folder / FILE).write_bytes(msgspec.json.encode(calibration))
    return folder
