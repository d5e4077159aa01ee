"""From a picture's bytes to its faces and the embedding of the largest."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.biometrics import quality
from oneton.biometrics.align import CHIP_SIDE, align
from oneton.biometrics.attributes import Estimator, PackageEstimator, PackEstimator
from oneton.biometrics.decode import ALL_TYPES, Picture, decode
from oneton.biometrics.detect import Detection, Detector, turn
from oneton.biometrics.embed import Embedder, Runtime
from oneton.biometrics.liveness import Liveness
from oneton.biometrics.onnx_network import Callers
from oneton.biometrics.packs import PackFiles
from oneton.domain.errors import BadImageError, NoFaceError
from oneton.domain.model import Analysis, DetectedFace, ModelPack
from oneton.domain.stages import stage

LIMIT_BYTES = 10 * 1024 * 1024
LIMIT_PIXELS = 50_000_000
# The chip shows a face some 80 pixels wide: below, a reduced JPEG has lost detail that it needs.
_DETAIL_SIDE = 100
_TRIED_SIDE = 1024

# Its threads spin while they wait, on cores that others need, and a chip is too small to share.
cv2.setNumThreads(1)


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
        liveness: Liveness | None = None,
    ) -> None:
        """Load a pack's networks.

        Args:
            runtime: of the recogniser.
            threads: for a caller that is alone; None is one until `widen` has measured what is
                best. Callers that are not alone get one each.
            limit_bytes: of a picture's bytes.
            limit_pixels: of a picture as stored.
            liveness: a model of it; None, and it is not assessed.
        """
        self._pack = pack.pack
        self._limit_bytes, self._limit_pixels = limit_bytes, limit_pixels
        self._liveness = liveness
        self._callers = Callers()
        self._detector = Detector(pack.detector, self._callers, threads)
        self._embedder = Embedder.load(
            pack.recogniser, self._callers, pack.preprocess, runtime=runtime, threads=threads
        )
        self._estimator: Estimator = (
            PackEstimator(pack.genderage, self._callers) if pack.genderage else PackageEstimator()
        )

    @property
    def pack(self) -> ModelPack:
        """The pack that the embeddings belong to."""
        return self._pack

    @property
    def wide(self) -> tuple[str, ...]:
        """The networks that give a lone caller several threads, as measured at the start."""
        measured = (("detector", self._detector.is_wide), ("recogniser", self._embedder.is_wide))
        return tuple(name for name, is_wide in measured if is_wide)

    def analyse(
        self,
        data: bytes,
        *,
        accepted: tuple[str, ...] = ALL_TYPES,
        rotate: bool = False,
        attributes: bool = False,
        liveness: bool = False,
        limit_side: int | None = None,
    ) -> Analysis:
        """Find the faces of a picture and embed the largest.

        Which face counts as the largest is told at `detect.ranked`. Width and height are of the
        picture as turned, so that boxes lie within them.

        Args:
            accepted: content types.
            rotate: try all quarter turns, for pictures that may lie on their side.
            attributes: estimate age and gender of every face.
            liveness: assess it, where there is a model.
            limit_side: of the picture's longer side, in pixels.

        Raises:
            NoFaceError: no face was found.
            ProbeError: as `decode`.
        """
        with self._callers:
            with stage("decode"):
                picture = self._decode(data, accepted, limit_side)
            with stage("detect"):
                rotation, pixels, found = self._detect(picture, rotate)
            if not found:
                raise NoFaceError
            with stage("embed"):
                pixels, found, scale = self._with_detail(
                    data, accepted, (pixels, found, picture.scale), rotation
                )
                chips = [align(pixels, face.landmarks) for face in found]
                faces = [_face(f, c, scale) for f, c in zip(found, chips, strict=True)]
                embedding = self._embed(pixels, found[0], chips[0])
            if attributes:
                with stage("attributes"):
                    faces = self._with_attributes(pixels, found, faces)
            live = None
            if liveness and self._liveness is not None:
                with stage("liveness"):
                    live = self._liveness(pixels, found[0].box, found[0].landmarks)
        sideways = rotation in (90, 270)
        return Analysis(
            content_type=picture.content_type,
            width=picture.height if sideways else picture.width,
            height=picture.width if sideways else picture.height,
            rotation=rotation,
            faces=tuple(faces),
            embedding=embedding,
            liveness=live,
        )

    def widen(self) -> None:
        """Measure how many threads are best for a caller that is alone, and give it those."""
        self._detector.widen()
        self._embedder.widen()

    def try_out(self) -> None:
        """Run every network on a grey picture.

        Raises:
            BadImageError: the recogniser gives no vector of the pack's dimension.
        """
        self._detector.detect(np.full((_TRIED_SIDE, _TRIED_SIDE, 3), 127, dtype=np.uint8))
        embedding = self.embed_grey()
        if embedding.shape != (self._pack.dimension,):
            raise BadImageError(
                f"it embeds as {embedding.size} numbers, and says {self._pack.dimension}"
            )

    def embed_grey(self) -> NDArray[np.float32]:
        """The embedding of a grey chip, for trials."""
        side = self._embedder.side
        return self._embedder.embed(np.full((side, side, 3), 127, dtype=np.uint8))

    def _embed(
        self, pixels: NDArray[np.uint8], face: Detection, chip: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        side = self._embedder.side
        return self._embedder.embed(
            chip if side == CHIP_SIDE else align(pixels, face.landmarks, side)
        )

    def _decode(
        self,
        data: bytes,
        accepted: tuple[str, ...],
        limit_side: int | None = None,
        *,
        full_scale: bool = False,
    ) -> Picture:
        return decode(
            data,
            accepted=accepted,
            limit_bytes=self._limit_bytes,
            limit_pixels=self._limit_pixels,
            limit_side=limit_side,
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
