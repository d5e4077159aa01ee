"""Nothing here needs a machine's libGL or X11; Pillow brings its own libxcb, for screenshots."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import struct
from pathlib import Path

import pytest

_DISPLAY = ("libGL", "libX", "libxcb", "libQt", "libgtk", "libwayland")
_DYNAMIC, _NEEDED, _STRTAB, _LOAD = 2, 1, 5, 1


def _needed(path: Path) -> list[str]:
    """Names of the shared objects that a 64-bit little-endian ELF file asks for.

    Source: System V ABI, ELF-64: program headers, dynamic section.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    table, size, count = (
        struct.unpack_from("<Q", data, 0x20)[0],
        *struct.unpack_from("<HH", data, 0x36),
    )
    headers = [struct.unpack_from("<IIQQQQQQ", data, table + i * size) for i in range(count)]
    loads = [(h[3], h[2], h[5]) for h in headers if h[0] == _LOAD]
    for kind, _, offset, _, _, length, *_ in headers:
        if kind == _DYNAMIC:
            entries = [struct.unpack_from("<qQ", data, offset + i) for i in range(0, length, 16)]
            strings = next(value for tag, value in entries if tag == _STRTAB)
            base = next(strings - v + o for v, o, n in loads if v <= strings < v + n)
            return [_text(data, base + value) for tag, value in entries if tag == _NEEDED]
    return []


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()


@pytest.mark.parametrize(
    "package", ["cv2", "opencv_python_headless.libs", "PIL", "pillow.libs", "onnxruntime", "dlib"]
)
def test_no_library_needs_a_display(package: str) -> None:
    site = Path(str(importlib.util.find_spec("cv2").origin)).parents[1]  # type: ignore[union-attr]
    libraries = [path for path in (site / package).rglob("*.so*") if path.is_file()]
    libraries += list(site.glob(f"_{package}_*.so"))
    brought = {path.name for path in (site / "pillow.libs").iterdir()}
    wanted = {name for path in libraries for name in _needed(path)} - brought
    assert libraries
    assert wanted
    assert not [name for name in wanted if name.startswith(_DISPLAY)]


def test_opencv_is_the_headless_one() -> None:
    assert importlib.metadata.version("opencv-python-headless")
    for name in ("opencv-python", "opencv-contrib-python"):
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
