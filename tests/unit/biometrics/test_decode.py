"""Pictures of every accepted kind decode upright; all else is refused by name, and cheaply."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oneton.biometrics.decode import ALL_TYPES, Picture, decode, sniff
from oneton.domain.errors import BadImageError, TooLargeError, UnsupportedTypeError

_RED_BGR = (0, 0, 255)
_LOSSY = 12


def _decoded(
    data: bytes, accepted: tuple[str, ...] = ALL_TYPES, limit_side: int | None = None
) -> Picture:
    return decode(
        data, accepted=accepted, limit_bytes=10**7, limit_pixels=10**8, limit_side=limit_side
    )


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _red_corner() -> Image.Image:
    """A white picture, 40 wide and 24 high, red at its top left."""
    image = Image.new("RGB", (40, 24), "white")
    image.paste((255, 0, 0), (0, 0, 16, 8))
    return image


def _is_red(pixel: NDArray[np.uint8]) -> bool:
    return bool(np.abs(pixel.astype(int) - _RED_BGR).max() <= _LOSSY)


def _huge_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10**6))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp"), ("TIFF", "image/tiff")],
)
def test_decode_gives_blue_green_red_pixels_of_every_type(kind: str, content_type: str) -> None:
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    picture = _decoded(_encoded(_red_corner(), kind, **options))
    assert (picture.content_type, picture.width, picture.height) == (content_type, 40, 24)
    assert picture.pixels.shape == (24, 40, 3)
    assert picture.scale == 1
    assert _is_red(picture.pixels[3, 3])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_applies_every_exif_orientation(kind: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = _red_corner()
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    picture = _decoded(_encoded(stored, kind, exif=exif, **options))
    assert (picture.width, picture.height) == (40, 24)
    assert picture.pixels.shape == (24, 40, 3)
    assert _is_red(picture.pixels[3, 3])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_decode_takes_every_mode(mode: str) -> None:
    if mode == "I;16":
        grey = np.asarray(_red_corner().convert("L"), dtype=np.uint16) * 257
        image = Image.fromarray(grey)
    else:
        image = _red_corner().convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    picture = _decoded(_encoded(image, kind))
    assert picture.pixels.shape == (24, 40, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels[20, 30].min() > 255 - _LOSSY


def test_decode_lays_alpha_on_white() -> None:
    picture = _decoded(_encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG"))
    assert picture.pixels.min() == 255


def test_decode_takes_the_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), "blue")]
    data = _encoded(_red_corner().crop((0, 0, 8, 8)), "TIFF", save_all=True, append_images=frames)
    assert _is_red(_decoded(data).pixels[3, 3])


def test_decode_reduces_a_large_jpeg_but_not_on_demand() -> None:
    data = _encoded(Image.new("RGB", (4000, 3000), "grey"), "JPEG")
    picture = _decoded(data)
    assert (picture.width, picture.height) == (4000, 3000)
    assert picture.pixels.shape == (1500, 2000, 3)
    assert picture.scale == 0.5
    full = decode(data, limit_bytes=10**7, limit_pixels=10**8, full_scale=True)
    assert full.pixels.shape == (3000, 4000, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_decode_refuses_a_truncated_picture(kind: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = _encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadImageError):
        _decoded(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"x", b"just some text", b"BM words", bytes(500)])
def test_decode_refuses_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(UnsupportedTypeError) as raised:
        _decoded(data)
    assert raised.value.found is None


def test_decode_refuses_no_bytes_at_all() -> None:
    with pytest.raises(BadImageError):
        _decoded(b"")


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (_encoded(_red_corner(), "GIF"), "image/gif"),
        (_encoded(_red_corner(), "BMP"), "image/bmp"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"),
        (b"\xef\xbb\xbf<svg/>", "image/svg+xml"),
    ],
)
def test_decode_names_an_unsupported_type(data: bytes, content_type: str) -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        _decoded(data)
    assert caught.value.found == content_type


def test_decode_reads_a_bitmap_where_it_is_accepted() -> None:
    picture = _decoded(_encoded(_red_corner(), "BMP"), accepted=("image/bmp",))
    assert (picture.content_type, picture.width, picture.height) == ("image/bmp", 40, 24)
    assert _is_red(picture.pixels[3, 3])


def test_decode_refuses_a_longer_side_than_allowed() -> None:
    data = _encoded(_red_corner(), "PNG")
    assert _decoded(data, limit_side=40).width == 40
    with pytest.raises(TooLargeError, match="39 pixels on a side"):
        _decoded(data, limit_side=39)


def test_decode_refuses_a_known_type_that_the_caller_does_not_accept() -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        _decoded(_encoded(_red_corner(), "WEBP"), accepted=("image/jpeg", "image/png"))
    assert caught.value.found == "image/webp"


def test_sniff_does_not_take_other_riff_files_for_webp() -> None:
    assert sniff(b"RIFF\0\0\0\0WAVEfmt ") is None


def test_decode_refuses_too_many_bytes() -> None:
    data = _encoded(_red_corner(), "PNG")
    with pytest.raises(TooLargeError) as caught:
        decode(data, limit_bytes=len(data) - 1, limit_pixels=10**6)
    assert caught.value.limit_bytes == len(data) - 1


def test_decode_refuses_too_many_pixels_before_decoding_any() -> None:
    bomb = _huge_png()
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError) as caught:
            decode(bomb, limit_bytes=10**7, limit_pixels=5 * 10**7)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.limit_pixels == 5 * 10**7
    assert peak < 2 * 10**6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_decode_keeps_the_pixel_limit_for_every_type(kind: str) -> None:
    data = _encoded(_red_corner(), kind)
    assert decode(data, limit_bytes=10**6, limit_pixels=40 * 24).width == 40
    with pytest.raises(TooLargeError):
        decode(data, limit_bytes=10**6, limit_pixels=40 * 24 - 1)
