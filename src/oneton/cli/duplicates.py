"""`oneton duplicates`: all pairs of a gallery's faces above a score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from oneton.cli.common import (
    EXIT_NEGATIVE,
    as_json,
    example,
    of_tenant,
    run,
    stderr,
    stdout,
    write_json,
)
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.cli.duplicates_work import DuplicatesReport

EXIT_INTERRUPTED = 130


@click.command(epilog=example("oneton duplicates default --score 60 --out report/"))
@click.argument("gallery")
@of_tenant
@click.option(
    "--score",
    type=click.FloatRange(10, 100),
    help="The least score of a pair; by default the gallery's threshold. A score of 10 n is "
    "reached by one in 10^n pairs of different people, up to 60, and N faces make N * N / 2 pairs.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The report's own folder, private to you; by default duplicates-GALLERY.",
)
@click.option(
    "--groups",
    "groups_shown",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Groups on the page, those of the best scores; the CSV has them all.",
)
@click.option("--restart", is_flag=True, help="Forget what an earlier run into the folder found.")
@as_json
def duplicates(
    gallery: str,
    tenant_name: str | None,
    score: float | None,
    out: Path | None,
    groups_shown: int,
    restart: bool,
    as_json: bool,
) -> None:
    """Find all pairs of a gallery's faces above a score, and group them by person.

    Writes pairs.csv and index.html, a page with the photos side by side, into a folder. A run that
    was interrupted goes on when it is given again. A later run into the same folder searches with
    the faces enrolled since, and leaves out what was purged or erased since. The folder holds
    copies of photos that no purge reaches: delete it when you are done.

    Exit 1 when pairs were found, 0 when there are none, 130 when interrupted.
    """
    from oneton.cli.duplicates_work import Wanted, report_duplicates

    folder = out or Path(f"duplicates-{gallery}")
    wanted = Wanted(gallery, tenant_name, score, folder, groups_shown, restart)

    async def work(settings: Settings) -> DuplicatesReport:
        return await report_duplicates(settings, wanted)

    try:
        report = run(work)
    except KeyboardInterrupt:
        stderr.print(f"interrupted; the same command goes on with what is in {folder}")
        raise SystemExit(EXIT_INTERRUPTED) from None
    if as_json:
        write_json(report)
    else:
        stdout.print(
            f"{report.faces} faces compared, {report.searched} of them in this run: "
            f"{report.pairs} pairs of score {report.score:g} or more, in {report.groups} groups"
        )
        stdout.print(f"{report.page} shows them, {report.table} lists them", soft_wrap=True)
    raise SystemExit(EXIT_NEGATIVE if report.pairs else 0)
