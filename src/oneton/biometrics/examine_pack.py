"""Look at a folder of ONNX files: which is the detector, which the recogniser, and do they work?"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import onnx

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.packs import (
    CHIP_SIDE,
    FORMAT,
    PackFiles,
    PackManifest,
    Preprocess,
    file_sha256,
)
from oneton.domain.errors import BadImageError, SettingError

SUMS = "SHA256SUMS"
_DETECTORS = ("det_*.onnx", "scrfd_*.onnx")
_RECOGNISERS = ("w600k_*.onnx", "glint*.onnx", "*.onnx")
_OTHERS = ("genderage.onnx", "1k3d68.onnx", "2d106det.onnx")
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "COPYING")
_NCHW_RANK = 4
_ABOUT_LINE = re.compile(r"^([0-9a-fA-F]{64})[ *]+(\S.*)$")
# Source: the README of InsightFace's model zoo.
_INSIGHTFACE = (
    "InsightFace's pretrained models: for non-commercial research purposes only. Commercial use "
    "needs a licence of InsightFace; see https://github.com/deepinsight/insightface."
)
_INSIGHTFACE_PACKS = ("antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The TOML beside a recogniser that is not InsightFace's, of the same name.

    Attributes:
        version: of the model, for people.
    """

    preprocess: Preprocess = Preprocess()
    version: str = ""


def examine(folder: Path, name: str | None = None) -> PackManifest:
    """Tell a folder's networks apart by their names and shapes.

    Raises:
        SettingError: a network is missing, or there are two to choose from; it cannot be read; it
            takes or gives another shape than it has to; a sum of SHA256SUMS is not right.
    """
    _check_sums(folder)
    detector = _only(folder, _DETECTORS, "detector (det_*.onnx)")
    recogniser, preprocess, version = _find_recogniser(folder, detector)
    genderage = folder / "genderage.onnx"
    listed = [detector, recogniser, *([genderage] if genderage.is_file() else [])]
    pack = name or folder.name
    try:
        return msgspec.convert(
            {
                "format": FORMAT,
                "name": pack,
                "version": version,
                "detector": detector.name,
                "recogniser": recogniser.name,
                "genderage": genderage.name if genderage.is_file() else None,
                "dimension": _dimension(recogniser),
                "files": {path.name: file_sha256(path) for path in listed},
                "preprocess": msgspec.to_builtins(preprocess),
                "licence": _licence(folder, pack),
            },
            PackManifest,
        )
    except msgspec.ValidationError as error:
        raise SettingError(f"{folder}: {error}") from error


def try_out(files: PackFiles) -> None:
    """Load a pack and let it work, so that one that cannot is refused before anyone uses it.

    Raises:
        SettingError: a network does not run, or gives no vector of the dimension that it says.
    """
    try:
        Analyser(files, threads=1).try_out()
    except (BadImageError, SettingError) as error:
        raise SettingError(f"{files.recogniser}: {error}") from error
    except Exception as error:  # runtimes raise classes of their own making
        line = " ".join(str(error).split())[:200]
        raise SettingError(f"the networks in {files.folder} do not run: {line}") from error


def _check_sums(folder: Path) -> None:
    path = folder / SUMS
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        found = _ABOUT_LINE.match(line.strip())
        if found is None:
            continue
        named = folder / Path(found[2]).name
        if named.is_file() and file_sha256(named) != found[1].lower():
            raise SettingError(f"{named} is altered: {SUMS} says {found[1].lower()}")


def _only(folder: Path, patterns: tuple[str, ...], what: str) -> Path:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise SettingError(f"{folder} holds more than one {what}: {names}; keep one")
    raise SettingError(f"{folder} holds no {what}: unpack the whole InsightFace pack there")


def _find_recogniser(folder: Path, detector: Path) -> tuple[Path, Preprocess, str]:
    candidates = [
        path
        for path in sorted(folder.glob("*.onnx"))
        if path != detector and path.name not in _OTHERS
    ]
    described = [path for path in candidates if path.with_suffix(".toml").is_file()]
    if len(described) == 1:
        recipe = _read_recipe(described[0].with_suffix(".toml"))
        _check_input(described[0], recipe.preprocess.input_size)
        return described[0], recipe.preprocess, recipe.version
    for pattern in _RECOGNISERS:
        named = [path for path in candidates if path.match(pattern)]
        found = [path for path in named if _input_side(path) == CHIP_SIDE]
        if len(found) == 1:
            return found[0], Preprocess(), ""
        if found:
            names = ", ".join(path.name for path in found)
            raise SettingError(f"{folder} holds more than one recogniser: {names}; keep one")
        if len(named) == 1 and pattern != "*.onnx":
            _check_input(named[0], CHIP_SIDE)
    if len(candidates) == 1:
        _check_input(candidates[0], CHIP_SIDE)
    raise SettingError(
        f"{folder} holds no recogniser (w600k_*.onnx): unpack the whole InsightFace pack there"
    )


def _read_recipe(path: Path) -> Recipe:
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Recipe)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SettingError(f"{path}: {error}") from error


def _check_input(path: Path, side: int) -> None:
    found = _input_side(path)
    if found != side:
        said = "no (N, 3, S, S) picture" if found is None else f"pictures of {found} pixels"
        hint = f"; say so in {path.with_suffix('.toml').name}" if found else ""
        raise SettingError(f"{path} takes {said}, and {side} are expected{hint}")


def _input_side(path: Path) -> int | None:
    """The side of the square chips that a graph takes; None when it takes something else."""
    graph = _load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    sides = [size.dim_value for size in inputs[0].type.tensor_type.shape.dim] if inputs else []
    if len(sides) != _NCHW_RANK or sides[2] != sides[3] or sides[1] not in (0, 3):
        return None
    return int(sides[2]) or None


def _dimension(recogniser: Path) -> int:
    outputs = _load(recogniser).graph.output
    if len(outputs) != 1:
        raise SettingError(f"{recogniser} has {len(outputs)} outputs; a recogniser has one")
    sizes = [size.dim_value for size in outputs[0].type.tensor_type.shape.dim]
    if not sizes or sizes[-1] <= 0:
        raise SettingError(f"{recogniser} does not say the dimension of its embeddings")
    if len(sizes) > 2:
        raise SettingError(
            f"{recogniser} gives a tensor of {len(sizes)} dimensions, not one vector a face"
        )
    return int(sizes[-1])


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise classes of their own making
        raise SettingError(f"{path} is not a readable ONNX file: fetch it again") from error
    return model


def _licence(folder: Path, pack: str) -> str:
    for path in _licence_files(folder):
        return path.read_text(errors="replace")
    return _INSIGHTFACE if pack in _INSIGHTFACE_PACKS else ""


def _licence_files(folder: Path) -> Iterator[Path]:
    return (folder / name for name in _LICENCES if (folder / name).is_file())
