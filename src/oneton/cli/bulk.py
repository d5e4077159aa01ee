"""`oneton import`: many photos into a gallery."""

from __future__ import annotations

import asyncio
import csv
import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import anyio.to_thread
import msgspec
import rich_click as click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from oneton.app import open_parts, open_verbs
from oneton.cli.common import (
    EXIT_NEGATIVE,
    as_json,
    chosen_tenant,
    example,
    of_tenant,
    run,
    stderr,
    stdout,
    write_json,
)
from oneton.cli.faces import of_gallery
from oneton.domain.errors import BusyError, ProbeError, SettingError
from oneton.domain.model import GalleryId, TenantId
from oneton.settings import Settings
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
    """

    enrolled: int = 0
    already: int = 0
    matched: int = 0
    refused: list[Refused] = msgspec.field(default_factory=list)


@click.command(
    "import",
    epilog=example("oneton import photos/ --gallery default --report refused.csv"),
)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@of_tenant
@of_gallery
@click.option(
    "--first-of-folder", is_flag=True, help="Of each folder, take the first photo by name only."
)
@click.option("--if-missing", is_flag=True, help="Leave out people who are in the gallery.")
@click.option("--rotate", is_flag=True, help="Try each picture at every right angle.")
@click.option(
    "--report",
    "report_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("import-report.csv"),
    show_default=True,
    help="Where to list every refused file and why; written when there are any.",
)
@as_json
def import_faces(  # noqa: PLR0913, PLR0917 - one for each option
    source: Path,
    tenant_name: str | None,
    gallery: str,
    first_of_folder: bool,
    if_missing: bool,
    rotate: bool,
    report_path: Path,
    as_json: bool,
) -> None:
    """Enroll every photo below a folder, or every photo that a CSV names.

    A CSV has a column `image`, a path relative to the CSV. A run that was interrupted goes on where
    it ended when it is given again: a photo is enrolled once under its name and content. Exit 1
    when photos were refused.
    """
    items = list(_items(source, first_of_folder=first_of_folder))

    async def work(settings: Settings) -> ImportReport:
        async with open_parts(settings) as parts, open_verbs(settings, parts) as verbs:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            bulk = _Import(
                verbs.enroll,
                owner.tenant_id,
                GalleryId(gallery),
                if_missing=if_missing,
                rotate=rotate,
            )
            return await bulk.run(items, callers=2 * settings.cpu_threads)

    report = run(work)
    if report.refused:
        _write_refused(report_path, report.refused)
    if as_json:
        write_json(report)
    else:
        _print_report(report, report_path)
    raise SystemExit(EXIT_NEGATIVE if report.refused else 0)


def _items(source: Path, *, first_of_folder: bool) -> Iterable[Item]:
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


class _Import:
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
        with _progress() as progress:
            task = progress.add_task("importing", total=len(items), refused=0)

            async def work() -> None:
                for item in waiting:
                    await self._one(item)
                    progress.update(task, advance=1, refused=len(self._report.refused))

            async with asyncio.TaskGroup() as group:
                for _ in range(callers):
                    group.create_task(work())
        self._report.refused.sort(key=lambda each: each.file)
        return self._report

    async def _one(self, item: Item) -> None:
        try:
            data = await anyio.to_thread.run_sync(item.path.read_bytes)
        except OSError as error:
            self._refuse(item, error, str(error.strerror))
            return
        key = f"import:{item.name}:{hashlib.sha256(data).hexdigest()}"
        if await self._enroll.enrolled_before(self._tenant, self._gallery, key) is not None:
            self._report.already += 1
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
        if enrolment.added:
            self._report.enrolled += 1
        else:
            self._report.matched += 1

    def _refuse(self, item: Item, error: Exception, message: str) -> None:
        reason = type(error).__name__.removesuffix("Error")
        self._report.refused.append(Refused(item.name, reason, message))


class _RateColumn(ProgressColumn):
    """Photos a second, over the last while."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TextColumn("{task.fields[refused]} refused"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=stderr,
    )


def _write_refused(path: Path, refused: list[Refused]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "reason", "message"])
            writer.writerows([each.file, each.reason, each.message] for each in refused)
    except OSError as error:
        raise SettingError(f"--report {path}: {error.strerror}") from error


def _print_report(report: ImportReport, report_path: Path) -> None:
    stdout.print(
        f"{report.enrolled} enrolled, {report.already} were enrolled before, "
        f"{report.matched} matched someone there, {len(report.refused)} refused"
    )
    for reason, count in Counter(each.reason for each in report.refused).most_common():
        stdout.print(f"  {reason}: {count}")
    if report.refused:
        stdout.print(f"every refused file is in {report_path}")
