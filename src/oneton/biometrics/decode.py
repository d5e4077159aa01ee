"""Bytes of a JPEG, PNG, WebP, TIFF or BMP to upright pixels, limits checked before decoding."""

from __future__ import annotations

import io

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from oneton.domain.errors import BadImageError, TooLargeError, UnsupportedTypeError

ALL_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff")
REDUCED_SIDE = 1280
"""Large JPEGs are decoded at 1/2, 1/4 or 1/8, the least whose longer side is not below this."""

_FORMATS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/tiff": "TIFF",
    "image/bmp": "BMP",
}
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"II+\0", "image/tiff"),
    (0, b"MM\0+", "image/tiff"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"BM", "image/bmp"),
    (0, b"%PDF-", "application/pdf"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftyphei", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"jP  \r\n", "image/jp2"),
    (0, b"\xff\x0a", "image/jxl"),
    (4, b"JXL \r\n", "image/jxl"),
    (0, b"8BPS", "image/vnd.adobe.photoshop"),
    (0, b"\0\0\x01\0", "image/x-icon"),
)
_BMP_HEADER_BYTES = 26
_SVG_LOOK_BYTES = 1024
_WHITE = (255, 255, 255)
# Source: EXIF 2.32, tag 0x0112: how the stored picture must be turned to stand upright.
_TRANSPOSED = (5, 6, 7, 8)


class Picture(msgspec.Struct, frozen=True):
    """A decoded picture, upright.

    Attributes:
        pixels: (H, W, 3) uint8, blue-green-red as OpenCV and InsightFace have it.
        content_type: by the bytes' own content.
        width: of the upright original, in pixels.
        height: likewise.
        scale: size of `pixels` over that of the original; below 1 for large JPEGs only.
    """

    pixels: NDArray[np.uint8]
    content_type: str
    width: int
    height: int
    scale: float


def sniff(data: bytes) -> str | None:
    """Name the picture type of some bytes by their first ones; None when it is no known one."""
    for offset, magic, content_type in _MAGIC:
        if data[offset : offset + len(magic)] != magic:
            continue
        if content_type == "image/webp" and data[:4] != b"RIFF":
            continue
        if content_type == "image/bmp" and not _is_bmp(data):
            continue
        return content_type
    head = data[:_SVG_LOOK_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<svg") or (head.startswith((b"<?xml", b"<!")) and b"<svg" in head):
        return "image/svg+xml"
    return None


def decode(
    data: bytes,
    *,
    accepted: tuple[str, ...] = ALL_TYPES,
    limit_bytes: int,
    limit_pixels: int,
    limit_side: int | None = None,
    full_scale: bool = False,
) -> Picture:
    """Decode the first frame of a picture, EXIF orientation applied, alpha laid on white.

    Args:
        accepted: content types, of `ALL_TYPES` and `image/bmp`.
        limit_pixels: of the stored picture, read from its header; at most 178 million, where
            Pillow's own limit stands.
        limit_side: of its longer side.
        full_scale: decode large JPEGs at full size too.

    Raises:
        TooLargeError: above a limit; no pixel was decoded.
        UnsupportedTypeError: not of a type that is accepted, or of none that is known.
        BadImageError: empty, truncated or broken.
    """
    if not data:
        raise BadImageError("the image is empty")
    if len(data) > limit_bytes:
        raise TooLargeError(limit_bytes=limit_bytes)
    content_type = sniff(data)
    if content_type not in accepted or content_type not in _FORMATS:
        raise UnsupportedTypeError(content_type, accepted)
    try:
        return _decode(data, content_type, (limit_pixels, limit_side), full_scale)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(limit_pixels=limit_pixels) from error
    except TooLargeError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a broken file provokes
        raise BadImageError(f"the {_FORMATS[content_type]} image cannot be decoded") from error


def _decode(
    data: bytes, content_type: str, limits: tuple[int, int | None], full_scale: bool
) -> Picture:
    limit_pixels, limit_side = limits
    with Image.open(io.BytesIO(data), formats=(_FORMATS[content_type],)) as image:
        width, height = image.size
        if width * height > limit_pixels:
            raise TooLargeError(limit_pixels=limit_pixels)
        if limit_side is not None and max(width, height) > limit_side:
            raise TooLargeError(limit_side=limit_side)
        if content_type == "image/jpeg" and not full_scale:
            image.draft(None, _reduced_size(width, height))
        image.load()
        # Pillow turns TIFF upright itself, its size included.
        turned = 1 if content_type == "image/tiff" else _orientation(image)
        scale = max(image.size) / max(width, height)
        pixels = _upright(_bgr(image), turned)
    if turned in _TRANSPOSED:
        width, height = height, width
    return Picture(pixels, content_type, width, height, scale)


def _reduced_size(width: int, height: int) -> tuple[int, int]:
    share = min(1.0, REDUCED_SIDE / max(width, height))
    return max(1, int(width * share)), max(1, int(height * share))


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  a broken EXIF block is no reason to refuse a whole picture
        return 1


def _bgr(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        high: NDArray[np.uint8] = (np.asarray(image) >> 8).astype(np.uint8)
        return cv2.cvtColor(high, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
    if image.mode in ("I", "F"):
        return _stretched(np.asarray(image, dtype=np.float32))
    if image.has_transparency_data and image.mode != "RGB":
        seen = image.convert("RGBA")
        flat = Image.new("RGB", image.size, _WHITE)
        flat.paste(seen, mask=seen.getchannel("A"))
        image = flat
    elif image.mode != "RGB":
        image = image.convert("RGB")
    return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)


def _stretched(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map 32-bit samples, whose range no header tells, to 0..255 by least and greatest."""
    low, high = float(values.min()), float(values.max())
    grey = ((values - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _is_bmp(data: bytes) -> bool:
    # "BM" alone also starts words: the two reserved fields are zero in a real header.
    return len(data) >= _BMP_HEADER_BYTES and data[6:10] == b"\0\0\0\0"
