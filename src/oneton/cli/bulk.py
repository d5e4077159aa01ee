"""`oneton import`: many photos into a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.table import Table

from oneton.cli.common import EXIT_NEGATIVE, as_json, example, of_tenant, run, stdout, write_json
from oneton.cli.faces import of_gallery
from oneton.domain.errors import SettingError
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.cli.importing import Outcome

SKIP, REPORT, FAIL = "skip", "report", "fail"


@click.command(
    "import",
    epilog=example("oneton import photos/ --gallery default --report imported.csv"),
)
@click.argument("source", metavar="DIR|CSV|JSONL|ZIP|S3://BUCKET/PREFIX")
@of_tenant
@of_gallery
@click.option(
    "--first-of-folder", is_flag=True, help="Of each folder, take the first photo by name only."
)
@click.option(
    "--always/--if-missing",
    default=False,
    help="Add every photo, or leave out people who are there already, which is the default.",
)
@click.option("--rotate", is_flag=True, help="Try each picture at every right angle.")
@click.option("--dry-run", is_flag=True, help="Say what would be added or refused; write nothing.")
@click.option(
    "--on-duplicate",
    type=click.Choice([SKIP, REPORT, FAIL]),
    default=SKIP,
    show_default=True,
    help="People who are there already: leave them out; and exit 1; or end at the first.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Take so many photos only.")
@click.option("--rate", type=click.FloatRange(min=0.01), help="Photos a second at most.")
@click.option("--restart", is_flag=True, help="Forget how far an interrupted run came.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("import-report.csv"),
    show_default=True,
    help="Where to say what became of every file; beside it lies how far an import is.",
)
@click.option("--s3-endpoint", metavar="URL", help="Of the S3 store; by default ONETON_S3_*.")
@click.option("--s3-region", help="Of that store.")
@click.option(
    "--s3-credentials",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file as ~/.aws/credentials; by default AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
)
@as_json
def import_faces(
    always: bool,
    on_duplicate: str,
    report: Path,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Enroll every photo of a folder, a zip or an S3 prefix, or those that a table names.

    A CSV, or JSON objects one a line, has `file`, a path relative to it, and may have
    `external_id`, `metadata` (JSON, or columns `metadata.x`), `gallery` and `idempotency_key`. As
    manifest.csv, faces.jsonl or metadata.jsonl it is found in a folder, zip or prefix.

    A run that was interrupted goes on where it ended when it is given again: a photo is enrolled
    once under its name and content. Exit 1 when photos were refused.
    """
    from oneton.cli.importing import Asked
    from oneton.cli.importing import import_faces as work

    name = options.pop("tenant_name")
    asked = Asked(
        tenant_name=name,
        report=report,
        if_missing=not always,
        fail_on_duplicate=on_duplicate == FAIL,
        **options,
    )

    async def checked(settings: Settings) -> Outcome:
        if always and on_duplicate != SKIP:
            raise SettingError("--always looks for nobody: it goes without --on-duplicate")
        if asked.s3_endpoint is None and (asked.s3_credentials or asked.s3_region):
            raise SettingError("--s3-credentials and --s3-region go with --s3-endpoint")
        return await work(settings, asked)

    outcome = run(checked)
    found = outcome.report
    if as_json:
        write_json(found)
    else:
        _print_counts(outcome, report, dry_run=asked.dry_run)
    unwanted = found.matched if on_duplicate == REPORT else 0
    raise SystemExit(EXIT_NEGATIVE if found.refused or unwanted else 0)


def _print_counts(outcome: Outcome, report: Path, *, dry_run: bool) -> None:
    found = outcome.report
    would = "would be " if dry_run else ""
    stdout.print(
        f"{found.enrolled} {would}enrolled, {found.already} were enrolled before, "
        f"{found.matched} matched someone there, {len(found.refused)} {would}refused"
    )
    table = Table("outcome", "reason", "photos")
    for (came, reason), count in sorted(outcome.counts.by.items()):
        table.add_row(came, reason, str(count))
    stdout.print(table)
    stdout.print(f"what became of every file is in {report}{'.trial' if dry_run else ''}")
