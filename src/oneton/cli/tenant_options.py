"""`oneton tenant show`, `oneton tenant retention` and `oneton tenant credits`."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table

from oneton.cli.common import as_json, example, run, stdout, write_json
from oneton.cli.tenants import state_of
from oneton.domain.model import Tenant
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.records.retention import NowDue

DEFAULT = "default"
MOST_DAYS = 36_500


class _Days(click.ParamType[int | str]):
    """A number of days, or `default`."""

    name = "days"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value == DEFAULT:
            return DEFAULT
        text = str(value)
        if not text.isdecimal() or len(text) > 9 or int(text) > MOST_DAYS:
            why = f"{text!r} is neither {DEFAULT!r} nor a number from 0 to {MOST_DAYS}"
            self.fail(why, param, ctx)
        return int(text)


@click.command("show", epilog=example("oneton tenant show acme"))
@click.argument("name")
@as_json
def show_tenant(name: str, as_json: bool) -> None:
    """Show what a tenant is called by dialects, its credits, and how long it keeps what."""
    from oneton.parts import open_parts

    async def work(settings: Settings) -> Tenant:
        async with open_parts(settings) as parts:
            return await parts.tenants.named(name)

    _print(run(work), as_json=as_json)


@click.command("retention", epilog=example("oneton tenant retention acme --image-days 30"))
@click.argument("name")
@click.option(
    "--image-days",
    type=_Days(),
    help="Erase pictures of saved calls after so many days; 0 is within a minute, `default` as "
    "each dialect does. Face records and their images stay.",
)
@click.option(
    "--result-days", type=_Days(), help="Erase saved calls, with their pictures, likewise."
)
@click.option("--dry-run", is_flag=True, help="Only say how much would be due.")
@as_json
def set_retention(
    name: str,
    image_days: int | str | None,
    result_days: int | str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Set how long a tenant's saved calls and their pictures are kept.

    It counts for those that are kept already, too: what is due then is erased for good by a running
    server, within a minute.
    """
    from oneton.parts import make_change_tenant, open_parts

    if image_days is None and result_days is None:
        raise click.UsageError("say --image-days, --result-days or both")

    async def work(settings: Settings) -> NowDue:
        async with open_parts(settings) as parts:
            owner = await parts.tenants.named(name)
            return await make_change_tenant(parts).retain(
                owner.tenant_id,
                image_days=_chosen(image_days, owner.options.image_days),
                result_days=_chosen(result_days, owner.options.result_days),
                actor=getpass.getuser(),
                keep=not dry_run,
            )

    due = run(work)
    if as_json:
        write_json({"due": due, "dry_run": dry_run})
        return
    verb = "would be" if dry_run else "are"
    stdout.print(f"{due.requests} saved calls and {due.pictures} pictures {verb} due now")


@click.command("credits", epilog=example("oneton tenant credits acme --set 1000"))
@click.argument("name")
@click.option("--set", "balance", type=click.IntRange(min=0), help="Calls that may still be made.")
@click.option("--unlimited", is_flag=True, help="Without end.")
@as_json
def set_credits(name: str, balance: int | None, unlimited: bool, as_json: bool) -> None:
    """Set a tenant's balance of calls; `oneton tenant show` shows it."""
    from oneton.parts import make_change_tenant, open_parts

    if (balance is None) != unlimited:
        raise click.UsageError("say either --set N or --unlimited")

    async def work(settings: Settings) -> Tenant:
        async with open_parts(settings) as parts:
            owner = await parts.tenants.named(name)
            return await make_change_tenant(parts).set_credits(
                owner.tenant_id, balance, actor=getpass.getuser()
            )

    _print(run(work), as_json=as_json)


def _chosen(wanted: int | str | None, now: int | None) -> int | None:
    """What an option is to be: a number of days, None for the default, or as it is."""
    if wanted is None:
        return now
    return wanted if isinstance(wanted, int) else None


def _print(shown: Tenant, *, as_json: bool) -> None:
    if as_json:
        write_json(shown)
        return
    options = shown.options
    table = Table(show_header=False)
    for name, value in (
        ("tenant", shown.name),
        ("id", str(shown.tenant_id)),
        ("public id", shown.public_id),
        ("created", f"{shown.created_at:%Y-%m-%d %H:%M}"),
        ("state", state_of(shown)),
        ("calls a day", str(shown.most_requests_a_day or "unlimited")),
        ("credits", "unlimited" if shown.credits is None else str(shown.credits)),
        ("pictures kept", _days(options.image_days)),
        ("saved calls kept", _days(options.result_days)),
        ("face search lists from", str(options.floor)),
        ("face search is sure from", str(options.sure)),
        ("payment match from", str(options.payment_threshold)),
    ):
        table.add_row(name, value)
    stdout.print(table)


def _days(days: int | None) -> str:
    return "as each dialect does" if days is None else f"{days} days"
