"""Faces in a picture: SCRFD through insightface, at as many input sizes as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.lean_import import import_alone
from oneton.biometrics.onnx_network import Callers, OnnxNetwork

SMALL_SIDE = 400
"""Pictures up to this longer side are looked at in 256 pixels first."""

_THRESHOLD = 0.5
_SMALL, _USUAL, _LARGE, _LARGEST = 256, 640, 1280, 1920
# A face this much less certain than the best one never counts as the largest.
_DOUBT = 0.2
_PEER_AREA = 0.7
_LEAST_SIDE = 16
_QUARTER_TURNS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


class Detection(msgspec.Struct, frozen=True, eq=False):
    """One face, in pixels of the picture that was looked at.

    Attributes:
        box: left, top, right, bottom, within the picture.
        landmarks: (5, 2) float32: eyes, nose, mouth corners, left first.
        confidence: of the detector, 0.5 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    confidence: float

    @property
    def side(self) -> float:
        """The box's shorter side."""
        left, top, right, bottom = self.box
        return min(right - left, bottom - top)

    @property
    def area(self) -> float:
        """The box's area."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    def offset(self, x: float, y: float) -> float:
        """How far the box's middle is from a point."""
        left, top, right, bottom = self.box
        return float(np.hypot((left + right) / 2 - x, (top + bottom) / 2 - y))

    @property
    def is_upright(self) -> bool:
        """Whether the mouth lies below the eyes, by less than 45 degrees to either side."""
        down = self.landmarks[3:].mean(axis=0) - self.landmarks[:2].mean(axis=0)
        across = self.landmarks[1] - self.landmarks[0]
        return bool(down[1] > abs(down[0]) and across[0] > abs(across[1]))


def looks(width: int, height: int) -> Iterator[tuple[int, ...]]:
    """Yield the input sizes worth trying, in order, each for want of a face in those before.

    A face that fills a picture is found at 256 and missed at 640, a small one the other way
    round: large pictures get both at once. Measured: faces of 40 pixels in 250 to 400 are found
    at 256 (61 of 61); in a 12-megapixel photo those of 120 are found at 640, of 60 at 1,280 and
    of 40 at 1,920 (10 of 10 each).
    """
    longest = max(width, height)
    if longest <= SMALL_SIDE:
        yield (_SMALL,)
        yield (_USUAL,)
        return
    yield (_SMALL, _USUAL)
    if longest > _USUAL:
        yield (_LARGE,)
    if longest > _LARGE:
        yield (_LARGEST,)


class Detector:
    """A pack's detector; safe to call from several threads at once."""

    def __init__(self, path: Path, callers: Callers, threads: int | None = None) -> None:
        """Load it; `threads` as in `OnnxNetwork`."""
        sample = np.zeros((1, 3, _SMALL, _SMALL), dtype=np.float32)
        self._network = OnnxNetwork(path.read_bytes(), sample, callers, threads)
        self._scrfd = import_alone("insightface.model_zoo.scrfd").SCRFD(
            model_file=str(path), session=_Chooser(self._network), static_shape_sessions=False
        )
        self._scrfd.prepare(0, det_thresh=_THRESHOLD)

    def widen(self) -> None:
        """See `Analyser`."""
        self._network.widen()

    @property
    def is_wide(self) -> bool:
        """See `Network`."""
        return self._network.is_wide

    def detect(self, pixels: NDArray[np.uint8]) -> list[Detection]:
        """Find the faces of a picture as it stands, in the order of `ranked`."""
        for sides in looks(pixels.shape[1], pixels.shape[0]):
            found = self._look(pixels, sides)
            if found:
                return ranked(found, pixels.shape[1], pixels.shape[0])
        return []

    def detect_turned(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[int, NDArray[np.uint8], list[Detection]]:
        """Try all four quarter turns and keep the one with the surest upright face.

        Returns:
            rotation: degrees clockwise by which the picture was turned.
            turned: the picture so turned.
            detections: its upright faces, as `detect`; in pixels of `turned`.
        """
        turns = {rotation: turn(pixels, rotation) for rotation in (0, *_QUARTER_TURNS)}
        for sides in looks(pixels.shape[1], pixels.shape[0]):
            best = {
                rotation: [face for face in self._look(turned, sides) if face.is_upright]
                for rotation, turned in turns.items()
            }
            rotation = max(best, key=lambda quarter: _surest(best[quarter]))
            if best[rotation]:
                turned = turns[rotation]
                height, width = turned.shape[:2]
                return rotation, turned, ranked(best[rotation], width, height)
        return 0, pixels, []

    def _look(self, pixels: NDArray[np.uint8], sides: tuple[int, ...]) -> list[Detection]:
        height, width = pixels.shape[:2]
        if min(width, height) * min(sides) < _LEAST_SIDE * max(width, height):
            return []  # a strip, which would be resized to nothing
        boxes, landmarks = self._scrfd.detect(pixels, [(side, side) for side in sides])
        made = (_detection(b, p, width, height) for b, p in zip(boxes, landmarks, strict=True))
        return [face for face in made if face is not None]


def ranked(faces: Sequence[Detection], width: int, height: int) -> list[Detection]:
    """Order the faces of a picture: the one that counts first, the others largest first.

    The largest counts; of those within 30 % of its area, the most central. A doubtful face
    comes after all sure ones: a false alarm can be huge, but is never as sure as a real face
    beside it. On LFW, whose photos are cut around the person named, the plain largest was
    another person in 14 of 6,922, all of them within 25 % of the area; this rule has none.
    """
    floor = max((face.confidence for face in faces), default=0.0) - _DOUBT
    ordered = sorted(faces, key=lambda face: (face.confidence < floor, -face.area))
    peers = [
        face
        for face in ordered
        if face.confidence >= floor and face.area >= _PEER_AREA * ordered[0].area
    ]
    if len(peers) > 1:
        first = min(peers, key=lambda face: face.offset(width / 2, height / 2))
        ordered.remove(first)
        ordered.insert(0, first)
    return ordered


def turn(pixels: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """Turn a picture clockwise by 0, 90, 180 or 270 degrees."""
    if rotation == 0:
        return pixels
    return cv2.rotate(pixels, _QUARTER_TURNS[rotation]).astype(np.uint8, copy=False)


def _surest(faces: Sequence[Detection]) -> float:
    return max((face.confidence for face in faces), default=0.0)


def _detection(
    box: NDArray[np.float32], landmarks: NDArray[np.float32], width: int, height: int
) -> Detection | None:
    """Clip a box to the picture; None for one whose middle lies outside."""
    middle = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    if not (0 <= middle[0] < width and 0 <= middle[1] < height):
        return None
    left, top = max(0.0, float(box[0])), max(0.0, float(box[1]))
    right, bottom = min(float(width), float(box[2])), min(float(height), float(box[3]))
    if right - left < 1 or bottom - top < 1:
        return None
    points = landmarks.astype(np.float32)
    return Detection((left, top, right, bottom), points, min(1.0, float(box[4])))


class _Chooser:
    """The part of an ONNX Runtime session that SCRFD uses, with a session chosen at each run."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network

    def get_inputs(self) -> Any:  # noqa: ANN401  ONNX Runtime is not typed
        return self._network.session.get_inputs()

    def get_outputs(self) -> Any:  # noqa: ANN401  ONNX Runtime is not typed
        return self._network.session.get_outputs()

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[np.float32]]) -> Any:  # noqa: ANN401
        return self._network.session.run(names, feeds)
