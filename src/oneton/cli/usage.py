"""`oneton usage`."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table

from oneton.cli.common import as_json, example, run, stdout, write_json
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.verbs.show_usage import UsageReport

DAYS = 30
_DAY = click.DateTime(["%Y-%m-%d"])


@click.command("usage", epilog=example("oneton usage acme --from 2026-01-01 --to 2026-01-31 --csv"))
@click.argument("name", required=False)
@click.option("--from", "since", type=_DAY, help="First day, of UTC; else 30 days until the last.")
@click.option("--to", "until", type=_DAY, help="Last day; else today.")
@click.option(
    "--csv", "as_csv", is_flag=True, help="Write one line for each day, dialect and kind."
)
@as_json
def usage(
    name: str | None,
    since: datetime | None,
    until: datetime | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show how often a tenant, or each, called what, and how many faces it has.

    Every call that was let in counts, whatever came of it. Calls of the last seconds may be
    missing, and those that a server counted in the two seconds before it was killed.
    """
    from oneton.parts import make_show_usage, open_parts

    if as_csv and as_json:
        raise click.UsageError("say either --csv or --json")
    last = datetime.now(UTC).date() if until is None else until.date()
    first = last - timedelta(days=DAYS - 1) if since is None else since.date()
    if first > last:
        raise click.UsageError("--from is after --to")

    async def work(settings: Settings) -> dict[str, UsageReport]:
        async with open_parts(settings) as parts:
            if name is None:
                wanted = await parts.tenants.list()
            else:
                wanted = [await parts.tenants.named(name)]
            show = make_show_usage(parts)
            return {each.name: await show(each.tenant_id, first, last) for each in wanted}

    found = run(work)
    if as_json:
        write_json(found)
    elif as_csv:
        _write_csv(found)
    else:
        _print(found)


def _write_csv(found: dict[str, UsageReport]) -> None:
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(("tenant", "day", "dialect", "kind", "calls"))
    for name, report in found.items():
        for each in report.days:
            lines.writerow((name, each.day.isoformat(), each.dialect, each.kind, each.calls))


def _print(found: dict[str, UsageReport]) -> None:
    table = Table("tenant", "dialect", "kind", "calls", "faces", "pictures")
    for name, report in found.items():
        holdings = report.holdings
        most = "" if holdings.most_faces is None else f" of {holdings.most_faces}"
        calls: dict[tuple[str, str], int] = {}
        for each in report.days:
            key = (each.dialect, each.kind)
            calls[key] = calls.get(key, 0) + each.calls
        table.add_row(
            name,
            "all",
            "all",
            str(sum(calls.values())),
            f"{holdings.faces}{most}",
            str(holdings.pictures),
        )
        for (dialect, kind), number in sorted(calls.items()):
            table.add_row("", dialect, kind, str(number), "", "")
    stdout.print(table)
