"""Where a new model pack comes from: a folder, a zip, one ONNX file, or InsightFace's releases."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from oneton.biometrics.calibration import FILE as CALIBRATION
from oneton.biometrics.examine_pack import SUMS
from oneton.domain.errors import SettingError, UnavailableError

_TAKEN = re.compile(
    rf"[A-Za-z0-9_][A-Za-z0-9._-]*\.(onnx|toml)|LICEN[CS]E(\.txt|\.md)?|COPYING|{SUMS}"
    rf"|{re.escape(CALIBRATION)}",
    re.IGNORECASE,
)
MOST_BYTES = 8 << 30
"""Of all networks together; a zip that unpacks to more is refused."""


@contextmanager
def gather(source: str, root: Path) -> Iterator[tuple[Path, str]]:
    """Copy a pack's files to a folder under `root`, that is gone when the block ends.

    Args:
        source: a folder, a zip or an ONNX file; or the name of a pack that InsightFace releases.

    Yields:
        the folder, and the name that the source goes by.

    Raises:
        SettingError: the source is none of these, or broken.
        UnavailableError: the pack cannot be downloaded.
    """
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root, prefix=".adding-") as made:
        folder = Path(made)
        path = Path(source).expanduser()
        if path.is_dir():
            _copy_folder(path, folder)
            yield folder, path.resolve().name
        elif path.is_file() and path.suffix.lower() == ".zip":
            _unpack(path, folder)
            yield folder, path.stem
        elif path.is_file():
            _copy_folder(path.parent, folder, path.stem)
            yield folder, path.stem
        elif path.suffix or "/" in source:
            raise SettingError(f"{source} is neither a folder nor a file")
        else:
            _download(source, folder)
            yield folder, source


def _copy_folder(source: Path, target: Path, stem: str | None = None) -> None:
    for path in sorted(source.iterdir()):
        wanted = stem is None or path.stem == stem or path.suffix.lower() not in (".onnx", ".toml")
        if wanted and path.is_file() and _TAKEN.fullmatch(path.name):
            shutil.copyfile(path, target / path.name)


def _unpack(source: Path, target: Path) -> None:
    """Take the files of a known kind by their last names, whatever folders they lie in."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = [
                (each, Path(each.filename).name)
                for each in archive.infolist()
                if not each.is_dir() and _TAKEN.fullmatch(Path(each.filename).name)
            ]
            if sum(each.file_size for each, _ in members) > MOST_BYTES:
                raise SettingError(f"{source} unpacks to more than {MOST_BYTES >> 30} GiB")
            for member, name in members:
                with archive.open(member) as packed, (target / name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise SettingError(f"{source} is not a whole zip: {error}") from error


def _download(name: str, target: Path) -> None:
    from insightface.utils.storage import download  # noqa: PLC0415 - imports much

    try:
        found = download("models", name, force=True, root=str(target / "download"))
    except Exception as error:  # whatever its HTTP library raises
        line = " ".join(str(error).split())[:200]
        raise UnavailableError(
            f"{name} is no file here, and cannot be downloaded from InsightFace: {line}"
        ) from error
    for path in Path(found).rglob("*"):
        if path.is_file() and _TAKEN.fullmatch(path.name):
            shutil.copyfile(path, target / path.name)
    shutil.rmtree(target / "download")
