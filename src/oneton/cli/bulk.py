"""`oneton import`: many photos into a gallery."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from oneton.cli.common import (
    EXIT_NEGATIVE,
    as_json,
    chosen_tenant,
    example,
    of_tenant,
    run,
    stdout,
    write_json,
)
from oneton.cli.faces import of_gallery
from oneton.domain.errors import SettingError
from oneton.domain.model import GalleryId
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.cli.importing import ImportReport, Refused


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
    from oneton.app import open_verbs
    from oneton.cli.importing import Import, find_items
    from oneton.parts import open_parts

    async def work(settings: Settings) -> ImportReport:
        items = list(find_items(source, first_of_folder=first_of_folder))
        async with open_parts(settings) as parts, open_verbs(settings, parts) as verbs:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            bulk = Import(
                verbs.platform.enroll,
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
