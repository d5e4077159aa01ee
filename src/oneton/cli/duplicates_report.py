"""The files of a duplicates report: the table of pairs, the photos, the page."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import cv2

from oneton.biometrics.decode import decode
from oneton.cli.duplicates_journal import PAGE, PHOTOS, TABLE, open_private
from oneton.cli.duplicates_page import Card, Photo, Summary, make_page
from oneton.domain.errors import NotFoundError, ProbeError, SettingError
from oneton.domain.model import Face, FaceId
from oneton.images import ImageStore
from oneton.index.files import write_durably
from oneton.settings import Settings
from oneton.verbs.cpu import Cpu
from oneton.verbs.group_duplicates import Group

PHOTO_SIDE = 240
PHOTO_QUALITY = 82
AT_ONCE = 8
_ROWS = 1000
_HEADER = (
    "group", "a", "b", "score", "cosine",
    "a_enrolled_at", "b_enrolled_at", "a_has_image", "b_has_image",
)  # fmt: skip


def write_table(folder: Path, groups: Sequence[Group]) -> None:
    """`pairs.csv`: a row per pair, a group's together, best first.

    Raises:
        SettingError: the folder cannot be written.
    """
    _write(folder / TABLE, _table(groups))


def _table(groups: Sequence[Group]) -> Iterator[bytes]:
    yield _lines([_HEADER])
    rows = _rows(groups)
    while some := list(islice(rows, _ROWS)):
        yield _lines(some)


def _rows(groups: Sequence[Group]) -> Iterator[tuple[object, ...]]:
    for number, group in enumerate(groups, start=1):
        for pair in group.pairs:
            both = (pair.earlier, pair.later)
            yield (
                number,
                *(face.face_id for face in both),
                f"{pair.score:.4f}",
                f"{pair.cosine:.6f}",
                *(face.created_at.isoformat() for face in both),
                *("yes" if face.has_image else "no" for face in both),
            )


def _lines(rows: Sequence[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def write_page(
    folder: Path,
    summary: Summary,
    cards: Sequence[Card],
    left: int,
    photos: dict[FaceId, Photo],
) -> None:
    """`index.html`, and no photo beside it that it does not show.

    Raises:
        SettingError: the folder cannot be written.
    """
    _write(folder / PAGE, make_page(summary, cards, left, photos))
    shown = {photo.address for photo in photos.values()}
    for path in (folder / PHOTOS).iterdir():
        if f"{PHOTOS}/{path.name}" not in shown:
            path.unlink()


def _write(path: Path, parts: Iterator[bytes]) -> None:
    try:
        write_durably(path, parts)
    except OSError as error:
        raise SettingError(f"{path}: {error.strerror}") from error


class Photos:
    """Makes the small photos of a page, in `photos/`."""

    def __init__(self, folder: Path, images: ImageStore, cpu: Cpu, settings: Settings) -> None:
        self._folder = folder / PHOTOS
        self._images = images
        self._cpu = cpu
        self._shrink = partial(
            shrink,
            limit_bytes=settings.max_image_bytes,
            limit_pixels=settings.max_image_pixels,
        )

    async def write(self, faces: Iterable[Face], done: Callable[[], object]) -> dict[FaceId, Photo]:
        """Make those of some faces.

        Args:
            done: called after each.

        Raises:
            StoreDownError: the object store does not answer.
            SettingError: the folder cannot be written.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        waiting = iter(faces)
        made: dict[FaceId, Photo] = {}

        async def work() -> None:
            for face in waiting:
                made[face.face_id] = await self._one(face)
                done()

        workers = [asyncio.create_task(work()) for _ in range(AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return made

    async def _one(self, face: Face) -> Photo:
        if not face.has_image:
            return Photo(None, "The image was erased.")
        name = f"{face.face_id}.jpg"
        try:
            data, _ = await self._images.get(face.image_key)
            await self._cpu.run_upkeep(partial(self._make, name, data))
        except NotFoundError:
            return Photo(None, "The image is missing in the object store.")
        except ProbeError as error:
            return Photo(None, f"The image cannot be shown: {error}.")
        return Photo(f"{PHOTOS}/{name}")

    def _make(self, name: str, data: bytes) -> None:
        small = self._shrink(data)
        try:
            with open(self._folder / name, "wb", opener=open_private) as file:
                file.write(small)
        except OSError as error:
            raise SettingError(f"{self._folder / name}: {error.strerror}") from error


def shrink(data: bytes, *, limit_bytes: int, limit_pixels: int) -> bytes:
    """A JPEG of the upright picture whose longer side is 240 pixels at most; no EXIF.

    Raises:
        ProbeError: it is no picture that can be decoded, or is over a limit.
    """
    pixels = decode(data, limit_bytes=limit_bytes, limit_pixels=limit_pixels).pixels
    height, width = pixels.shape[:2]
    share = min(1.0, PHOTO_SIDE / max(height, width))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, PHOTO_QUALITY])[1]
    return encoded.tobytes()
