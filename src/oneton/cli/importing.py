"""The work of `oneton import`."""

from __future__ import annotations

import asyncio
import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path

import anyio.to_thread
import msgspec

from oneton.cli.progress import progress_bar
from oneton.domain.errors import BusyError, OnetonError, ProbeError, SettingError
from oneton.domain.model import FaceId, GalleryId, TenantId
from oneton.verbs.analyse import Picture
from oneton.verbs.enroll import Enroll

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


class Item(msgspec.Struct, frozen=True):
    """A photo to import, and the name that it is resumed and reported by."""

    path: Path
    name: str


class Refused(msgspec.Struct, frozen=True):
    """A photo that was not enrolled, and why."""

    file: str
    reason: str
    message: str


class ImportReport(msgspec.Struct):
    """What an import came to.

    Attributes:
        already: enrolled by an earlier run.
        matched: with --if-missing, found to be there already.
        enrolled_as: the `oneToNVerificationId` of each file that was not refused.
    """

    enrolled: int = 0
    already: int = 0
    matched: int = 0
    refused: list[Refused] = msgspec.field(default_factory=list)
    enrolled_as: dict[str, FaceId] = msgspec.field(default_factory=dict)


def find_items(source: Path, *, first_of_folder: bool) -> Iterable[Item]:
    """The photos below a folder in order of name, or those that a CSV names.

    Raises:
        SettingError: the file is not such a CSV.
    """
    if source.is_file():
        yield from _csv_items(source)
        return
    folders: set[Path] = set()
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if first_of_folder and path.parent in folders:
            continue
        folders.add(path.parent)
        yield Item(path, path.relative_to(source).as_posix())


def _csv_items(source: Path) -> Iterable[Item]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "image" not in (reader.fieldnames or []):
                raise SettingError(f"{source} has no column named image")
            for row in reader:
                yield Item(source.parent / row["image"], row["image"])
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingError(f"{source} is not a CSV: {error}") from error


class Import:
    """So many enrolments at once, each under an idempotency key."""

    def __init__(
        self,
        enroll: Enroll,
        tenant: TenantId,
        gallery: GalleryId,
        *,
        if_missing: bool,
        rotate: bool,
    ) -> None:
        self._enroll = enroll
        self._tenant = tenant
        self._gallery = gallery
        self._if_missing = if_missing
        self._rotate = rotate
        self._report = ImportReport()

    async def run(self, items: list[Item], callers: int) -> ImportReport:
        waiting = iter(items)
        with progress_bar() as progress:
            task = progress.add_task("importing", total=len(items), said="")

            async def work() -> None:
                for item in waiting:
                    await self._one(item)
                    said = f"{len(self._report.refused)} refused"
                    progress.update(task, advance=1, said=said)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(callers):
                        group.create_task(work())
            except* OnetonError as failed:
                # All callers fail alike; the command says it in one line.
                raise failed.exceptions[0] from failed
        self._report.refused.sort(key=lambda each: each.file)
        return self._report

    async def _one(self, item: Item) -> None:
        try:
            data = await anyio.to_thread.run_sync(item.path.read_bytes)
        except OSError as error:
            self._refuse(item, error, str(error.strerror))
            return
        key = f"import:{item.name}:{hashlib.sha256(data).hexdigest()}"
        earlier = await self._enroll.enrolled_before(self._tenant, self._gallery, key)
        if earlier is not None:
            self._report.already += 1
            self._report.enrolled_as[item.name] = earlier
            return
        picture = Picture(data, rotate=self._rotate)
        try:
            while True:
                try:
                    enrolment = await self._enroll(
                        self._tenant,
                        self._gallery,
                        picture,
                        if_missing=self._if_missing,
                        idempotency_key=key,
                    )
                    break
                except BusyError as error:
                    await asyncio.sleep(error.retry_after_s)
        except ProbeError as error:
            self._refuse(item, error, str(error))
            return
        self._report.enrolled_as[item.name] = enrolment.face_id
        if enrolment.added:
            self._report.enrolled += 1
        else:
            self._report.matched += 1

    def _refuse(self, item: Item, error: Exception, message: str) -> None:
        reason = type(error).__name__.removesuffix("Error")
        self._report.refused.append(Refused(item.name, reason, message))
