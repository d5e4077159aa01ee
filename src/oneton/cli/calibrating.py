"""The work of `oneton models calibrate`: a folder of photos to a calibration and its report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.calibrate import Held, check_by_halves, make_calibration
from oneton.biometrics.calibration import FILE, Calibration
from oneton.biometrics.packs import PackFiles, place
from oneton.biometrics.rates import measure
from oneton.cli.calibration_page import Calibrated, Labelled, make_report
from oneton.cli.progress import progress_bar
from oneton.domain.errors import ProbeError, SettingError
from oneton.models import read_pack
from oneton.parts import open_parts
from oneton.settings import Settings
from oneton.sources import SUFFIXES


class CalibrationSummary(msgspec.Struct, frozen=True):
    """What `oneton models calibrate` came to.

    Attributes:
        refused: photos without a usable face.
    """

    calibration: Calibration
    refused: int
    file: Path
    report: Path


async def calibrate_to_files(
    settings: Settings,
    pack: str,
    photos: Path,
    photos_each: int,
    source: str,
    out: Path | None,
) -> CalibrationSummary:
    """Calibrate, write both files, and tell the registry of a pack's own calibration.

    Raises:
        SettingError: there is no such pack, too few photos, or a file cannot be written.
    """
    files = read_pack(settings, pack)
    made = calibrate(files, photos, photos_each=photos_each, source=source)
    file = files.folder / FILE if out is None else out
    report = file.with_suffix(".html")
    text = msgspec.json.format(msgspec.json.encode(made.calibration), indent=2)
    try:
        place(text + b"\n", file)
        place(make_report(files.pack.name, made).encode(), report)
    except OSError as error:
        raise SettingError(f"{file}: {error.strerror}") from error
    if out is None:
        async with open_parts(settings) as parts:
            number = await parts.model_packs.number(files.pack)
            await parts.model_packs.set_calibration(number, text.decode())
    return CalibrationSummary(made.calibration, len(made.labelled.refused), file, report)


def calibrate(files: PackFiles, folder: Path, *, photos_each: int, source: str) -> Calibrated:
    """Embed the photos of a folder with one folder a person, and measure all pairs.

    Raises:
        SettingError: there are too few people or photos.
    """
    labelled = embed_people(files, folder, photos_each)
    try:
        measured = measure(labelled.embeddings, labelled.people)
        calibration = make_calibration(
            measured,
            files.recogniser_sha256,
            source=source,
            made_on=datetime.now(UTC).date(),
        )
    except ValueError as error:
        raise SettingError(f"{folder}: {error}") from error
    return Calibrated(calibration, measured, labelled, _held(labelled))


def _held(labelled: Labelled) -> tuple[tuple[Held, Held], ...]:
    """Nothing where half of the people are too few."""
    try:
        return tuple(check_by_halves(labelled.embeddings, labelled.people))
    except ValueError:
        return ()


def embed_people(files: PackFiles, folder: Path, photos_each: int) -> Labelled:
    """Embed the first photos of each person, in order of name, that have a face.

    Raises:
        SettingError: there are no folders of photos.
    """
    people = [sorted(_photos(each)) for each in sorted(folder.iterdir()) if each.is_dir()]
    people = [photos for photos in people if photos]
    if not people:
        raise SettingError(f"{folder} has no folders of photos: one folder a person is needed")
    analyser = Analyser(files)
    refused: list[tuple[Path, str]] = []

    def embed(photos: list[Path]) -> list[tuple[Path, NDArray[np.float32]]]:
        found: list[tuple[Path, NDArray[np.float32]]] = []
        for photo in photos:
            if len(found) == photos_each:
                break
            try:
                found.append((photo, analyser.analyse(photo.read_bytes()).embedding))
            except (ProbeError, OSError) as error:
                refused.append((photo, str(error)))
        return found

    embedded: list[list[tuple[Path, NDArray[np.float32]]]] = []
    with (
        progress_bar() as progress,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
    ):
        task = progress.add_task("people", total=len(people), said="")
        for found in pool.map(embed, people):
            embedded.append(found)
            progress.update(task, advance=1, said=f"{len(refused)} photos without a face")
    embedded = [found for found in embedded if found]
    if not embedded:
        raise SettingError(f"no photo in {folder} has a face")
    flat = [each for found in embedded for each in found]
    return Labelled(
        np.stack([embedding for _, embedding in flat]),
        np.repeat(np.arange(len(embedded)), [len(found) for found in embedded]).astype(np.int64),
        tuple(photo for photo, _ in flat),
        tuple(sorted(refused)),
    )


def _photos(person: Path) -> Iterator[Path]:
    return (each for each in person.iterdir() if each.suffix.lower() in SUFFIXES)
