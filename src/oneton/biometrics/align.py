"""Five-point alignment: the similarity that puts a face on InsightFace's 112-pixel template."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

CHIP_SIDE = 112
# Source: insightface.utils.face_align.arcface_dst: eyes, nose, mouth corners, left first.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float64,
)


def similarity(landmarks: NDArray[np.float32], side: int = CHIP_SIDE) -> NDArray[np.float64]:
    """Return the (2, 3) matrix of the least-squares similarity from landmarks to the template.

    The template is that of 112 pixels, scaled to `side`.

    With points as complex numbers it is one division (Umeyama 1991 without reflection, in 2-D).
    """
    source = landmarks[:, 0].astype(np.float64) + 1j * landmarks[:, 1]
    target = (TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]) * (side / CHIP_SIDE)
    centred = source - source.mean()
    spread = max(float((np.abs(centred) ** 2).sum()), 1e-12)
    turn = (centred.conj() @ (target - target.mean())) / spread
    shift = target.mean() - turn * source.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(
    pixels: NDArray[np.uint8], landmarks: NDArray[np.float32], side: int = CHIP_SIDE
) -> NDArray[np.uint8]:
    """Cut the (side, side, 3) chip of a face; black where it reaches beyond the picture.

    Args:
        pixels: (H, W, 3) uint8.
        landmarks: (5, 2) in pixels of `pixels`.
        side: of the chip, in pixels.
    """
    matrix = similarity(landmarks, side)
    factor = int(1.0 / max(float(np.hypot(matrix[0, 0], matrix[1, 0])), 1e-6))
    if factor > 1:
        # Bilinear reading skips pixels when shrinking: average whole blocks of them first.
        pixels, landmarks = _shrunk(pixels, landmarks, factor, side)
        matrix = similarity(landmarks, side)
    chip = cv2.warpAffine(pixels, matrix, (side, side), borderValue=0.0)
    return chip.astype(np.uint8, copy=False)


def _shrunk(
    pixels: NDArray[np.uint8], landmarks: NDArray[np.float32], factor: int, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    corners = np.array([[0, 0, 1], [side, 0, 1], [0, side, 1], [side, side, 1]], dtype=np.float64)
    back = cv2.invertAffineTransform(similarity(landmarks, side))
    reach = corners @ back.T
    height, width = pixels.shape[:2]
    left, top = np.clip(np.floor(reach.min(axis=0)).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(reach.max(axis=0)).astype(int) + 1, 1, (width, height))
    cut = pixels[top:bottom, left:right]
    # Whole blocks, so that the centres of the averaged pixels stay where they belong.
    below, beside = -cut.shape[0] % factor, -cut.shape[1] % factor
    blocks = cv2.copyMakeBorder(cut, 0, below, 0, beside, cv2.BORDER_REPLICATE)
    size = (blocks.shape[1] // factor, blocks.shape[0] // factor)
    small = cv2.resize(blocks, size, interpolation=cv2.INTER_AREA)
    moved = (landmarks + 0.5 - (left, top)) / factor - 0.5
    return small.astype(np.uint8, copy=False), moved.astype(np.float32)
