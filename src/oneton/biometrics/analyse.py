"""From a picture's bytes to its faces and the embedding of the largest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import NoFaceError
from oneton.domain.model import Analysis, DetectedFace, ModelPack, QualityFloor

from . import quality
from .align import align
from .attributes import Estimator, PackageEstimator, PackEstimator
from .decode import ALL_TYPES, Picture, decode
from .detect import Detection, Detector, turn
from .embed import Embedder, Runtime
from .onnx_network import Callers
from .packs import PackFiles

LIMIT_BYTES = 10 * 1024 * 1024
LIMIT_PIXELS = 50_000_000
# The chip shows a face some 80 pixels wide: below, a reduced JPEG has lost detail that it needs.
_DETAIL_SIDE = 100

Timings = dict[str, float]


class Analyser:
    """A model pack at work; safe to call from several threads at once."""

    def __init__(
        self,
        pack: PackFiles,
        *,
        runtime: Runtime = "onnxruntime",
        threads: int | None = None,
        limit_bytes: int = LIMIT_BYTES,
        limit_pixels: int = LIMIT_PIXELS,
    ) -> None:
        """Load a pack's networks.

        Args:
            runtime: of the recogniser.
            threads: for a caller that is alone; None measures what is best, 1 is always one.
                Callers that are not alone get one each.
            limit_bytes: of a picture's bytes.
            limit_pixels: of a picture as stored.
        """
        self._pack = pack.pack
        self._limit_bytes, self._limit_pixels = limit_bytes, limit_pixels
        self._callers = Callers()
        self._detector = Detector(pack.detector, self._callers, threads)
        self._embedder = Embedder.load(
            pack.recogniser, self._callers, runtime=runtime, threads=threads
        )
        self._estimator: Estimator = (
            PackEstimator(pack.genderage, self._callers) if pack.genderage else PackageEstimator()
        )

    @property
    def pack(self) -> ModelPack:
        """The pack that the embeddings belong to."""
        return self._pack

    def analyse(
        self,
        data: bytes,
        *,
        accepted: tuple[str, ...] = ALL_TYPES,
        rotate: bool = False,
        attributes: bool = False,
        floor: QualityFloor | None = None,
        timings: Timings | None = None,
    ) -> Analysis:
        """Find the faces of a picture and embed the largest.

        Which face counts as the largest is told at `detect.ranked`. Width and height are of the
        picture as turned, so that boxes lie within them.

        Args:
            accepted: content types.
            rotate: try all quarter turns, for pictures that may lie on their side.
            attributes: estimate age and gender of every face.
            floor: the least quality of the largest face.
            timings: filled with the milliseconds of `decode`, `detect`, `embed` (alignment and
                quality included), and `attributes` when asked for.

        Raises:
            NoFaceError: no face was found.
            LowQualityError: the largest face is below the floor.
            ProbeError: as `decode`.
        """
        spent = timings if timings is not None else {}
        with self._callers:
            with _timed(spent, "decode"):
                picture = self._decode(data, accepted)
            with _timed(spent, "detect"):
                rotation, pixels, found = self._detect(picture, rotate)
            if not found:
                raise NoFaceError
            with _timed(spent, "embed"):
                pixels, found, scale = self._with_detail(
                    data, accepted, (pixels, found, picture.scale), rotation
                )
                chips = [align(pixels, face.landmarks) for face in found]
                faces = [_face(f, c, scale) for f, c in zip(found, chips, strict=True)]
                if floor is not None:
                    quality.check(faces[0].quality, floor)
                embedding = self._embedder.embed(chips[0])
            if attributes:
                with _timed(spent, "attributes"):
                    faces = self._with_attributes(pixels, found, faces)
        sideways = rotation in (90, 270)
        return Analysis(
            content_type=picture.content_type,
            width=picture.height if sideways else picture.width,
            height=picture.width if sideways else picture.height,
            rotation=rotation,
            faces=tuple(faces),
            embedding=embedding,
        )

    def _decode(
        self, data: bytes, accepted: tuple[str, ...], *, full_scale: bool = False
    ) -> Picture:
        return decode(
            data,
            accepted=accepted,
            limit_bytes=self._limit_bytes,
            limit_pixels=self._limit_pixels,
            full_scale=full_scale,
        )

    def _detect(
        self, picture: Picture, rotate: bool
    ) -> tuple[int, NDArray[np.uint8], list[Detection]]:
        if rotate:
            return self._detector.detect_turned(picture.pixels)
        return 0, picture.pixels, self._detector.detect(picture.pixels)

    def _with_detail(
        self,
        data: bytes,
        accepted: tuple[str, ...],
        seen: tuple[NDArray[np.uint8], list[Detection], float],
        rotation: int,
    ) -> tuple[NDArray[np.uint8], list[Detection], float]:
        """Decode again at full scale when the largest face is small in a reduced picture."""
        pixels, found, scale = seen
        if scale >= 1 or found[0].side >= _DETAIL_SIDE:
            return seen
        full = turn(self._decode(data, accepted, full_scale=True).pixels, rotation)
        by = (full.shape[1] / pixels.shape[1], full.shape[0] / pixels.shape[0])
        return full, [_scaled(face, by) for face in found], 1.0

    def _with_attributes(
        self, pixels: NDArray[np.uint8], found: list[Detection], faces: list[DetectedFace]
    ) -> list[DetectedFace]:
        return [
            msgspec.structs.replace(face, attributes=self._estimator.estimate(pixels, detection))
            for face, detection in zip(faces, found, strict=True)
        ]


def _scaled(face: Detection, by: tuple[float, float]) -> Detection:
    left, top, right, bottom = face.box
    return Detection(
        box=(left * by[0], top * by[1], right * by[0], bottom * by[1]),
        landmarks=face.landmarks * np.array(by, dtype=np.float32),
        confidence=face.confidence,
    )


def _face(face: Detection, chip: NDArray[np.uint8], scale: float) -> DetectedFace:
    """Bring a detection to the pixels of the upright original."""
    original = _scaled(face, (1 / scale, 1 / scale))
    return DetectedFace(
        box=original.box,
        landmarks=original.landmarks,
        confidence=face.confidence,
        quality=quality.measure(chip, original.side),
    )


@contextmanager
def _timed(timings: Timings, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + (time.perf_counter() - start) * 1000
