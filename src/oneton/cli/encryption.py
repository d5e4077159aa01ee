"""`oneton encryption ...`: keys, and what is encrypted with them."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table

from oneton.cli.common import as_json, chosen_tenant, example, run, stdout, write_json
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.domain.model import Tenant
    from oneton.parts import Parts
    from oneton.records.encryption import Run
    from oneton.verbs.manage_encryption import State

of_tenants = click.option("--tenant", "tenant_name", help="The tenant's name.")
of_all = click.option("--all", "all_tenants", is_flag=True, help="Every tenant.")
here = click.option(
    "--wait", is_flag=True, help="Do the work in this process, unless another is at it; wait."
)


@click.group()
def encryption() -> None:
    """Encrypt images and templates at rest, a key each tenant; see ONETON_MASTER_KEY."""


@encryption.command("new-key", epilog=example("oneton encryption new-key > master.key"))
def new_key() -> None:
    """Print a new master key.

    Whoever loses it loses all images and templates: keep it apart from every backup of these.
    """
    from cryptography.fernet import Fernet

    sys.stdout.write(Fernet.generate_key().decode() + "\n")


@encryption.command("status", epilog=example("oneton encryption status --deep"))
@of_tenants
@click.option("--deep", is_flag=True, help="Read every image, too, to say how it is stored.")
@as_json
def show_status(tenant_name: str | None, deep: bool, as_json: bool) -> None:
    """Show each tenant's key, how much is encrypted, and what is under way."""
    from oneton.parts import make_manage_encryption, open_parts

    async def work(settings: Settings) -> list[State]:
        async with open_parts(settings) as parts:
            manage = make_manage_encryption(settings, parts)
            chosen = await _chosen(parts, tenant_name, all_tenants=tenant_name is None)
            return [await manage.look(each, deep=deep) for each in chosen]

    states = run(work)
    if as_json:
        write_json(states)
        return
    table = Table("tenant", "key", "since", "templates", "images", "last run", "to do")
    for each in states:
        table.add_row(*_row(each))
    stdout.print(table)


@encryption.command("apply", epilog=example("oneton encryption apply --all"))
@of_tenants
@of_all
@here
def apply(tenant_name: str | None, all_tenants: bool, wait: bool) -> None:
    """Encrypt what is there from before encryption was on.

    Restart every server and worker with ONETON_MASTER_KEY first. Everything stays in use meanwhile.
    """
    _begin(tenant_name, all_tenants, wait, rotate=False)


@encryption.command("rotate", epilog=example("oneton encryption rotate --tenant acme"))
@of_tenants
@of_all
@here
def rotate(tenant_name: str | None, all_tenants: bool, wait: bool) -> None:
    """Give tenants a new key, encrypt everything anew, then destroy the old key.

    Everything stays in use meanwhile; after a crash it goes on where it was.
    """
    _begin(tenant_name, all_tenants, wait, rotate=True)


@encryption.command("rewrap", epilog=example("oneton encryption rewrap"))
def rewrap() -> None:
    """Wrap all tenants' keys with the newest master key; then older ones may go.

    Put the new master key in front of the old one in ONETON_MASTER_KEY, restart every server and
    worker, run this, take the old one away.
    """
    from oneton.parts import make_manage_encryption, open_parts

    async def work(settings: Settings) -> int:
        async with open_parts(settings) as parts:
            manage = make_manage_encryption(settings, parts)
            return sum([await manage.rewrap(each.tenant_id) for each in await parts.tenants.list()])

    stdout.print(f"{run(work)} keys wrapped with the newest master key; no other is needed now")


@encryption.command("destroy", epilog=example("oneton encryption destroy --tenant acme --yes"))
@click.option("--tenant", "tenant_name", required=True, help="The tenant's name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def destroy(tenant_name: str, yes: bool) -> None:
    """Destroy a tenant's keys: none of its images and templates opens again, and it is closed.

    There is no way back, but from a backup of the database that is older, with the master key.
    """
    from oneton.parts import make_manage_encryption, open_parts

    if not yes:
        click.confirm(
            f"Destroy the keys of {tenant_name}, and with them all its images and templates?",
            abort=True,
        )

    async def work(settings: Settings) -> None:
        async with open_parts(settings) as parts:
            owner = await parts.tenants.named(tenant_name)
            manage = make_manage_encryption(settings, parts)
            await manage.destroy(owner.tenant_id, actor=_operator())

    run(work)
    stdout.print(f"the keys of {tenant_name} are destroyed")


def _begin(tenant_name: str | None, all_tenants: bool, wait: bool, *, rotate: bool) -> None:
    from oneton.domain.errors import ConflictError, KeyDestroyedError
    from oneton.parts import make_manage_encryption, make_seal_anew, open_parts
    from oneton.records.locks import Locks

    if (tenant_name is None) != all_tenants:
        raise click.UsageError("say either --tenant NAME or --all")

    async def work(settings: Settings) -> list[tuple[str, Run | str]]:
        begun: list[tuple[str, Run | str]] = []
        async with open_parts(settings) as parts:
            manage = make_manage_encryption(settings, parts)
            for each in await _chosen(parts, tenant_name, all_tenants=all_tenants):
                try:
                    made = await manage.begin(each.tenant_id, rotate=rotate, actor=_operator())
                except (ConflictError, KeyDestroyedError) as error:
                    if not all_tenants:
                        raise
                    begun.append((each.name, str(error)))
                else:
                    begun.append((each.name, made))
            seal_anew = make_seal_anew(settings, parts, Locks(parts.database))
            if wait and seal_anew is not None:
                await seal_anew.run()
        return begun

    for name, outcome in run(work):
        said = outcome if isinstance(outcome, str) else f"key {outcome.key_no}"
        stdout.print(f"{name}: {said}")
    if wait:
        stdout.print("done")
    else:
        stdout.print("a worker, or a server that is alone, does it; see oneton encryption status")


async def _chosen(parts: Parts, name: str | None, *, all_tenants: bool) -> list[Tenant]:
    return await parts.tenants.list() if all_tenants else [await chosen_tenant(parts.tenants, name)]


def _operator() -> str:
    return f"operator {getpass.getuser()}"


def _row(state: State) -> tuple[str, ...]:
    keys, last = state.keys, state.run
    number = "none yet" if keys.number is None else str(keys.number)
    objects = state.objects
    return (
        state.tenant,
        "destroyed" if keys.destroyed_at is not None else number,
        "" if keys.made_at is None else f"{keys.made_at:%Y-%m-%d %H:%M}",
        _share(state.templates.sealed, state.templates.templates),
        "see --deep" if objects is None else _share(objects.sealed, objects.objects),
        "" if last is None else _said(last),
        "" if keys.wrapped_by_newest else "oneton encryption rewrap",
    )


def _said(last: Run) -> str:
    done = f"{last.templates} templates, {last.objects} images, {last.copies} copies"
    if last.unreadable:
        done += f", {last.unreadable} do not open"
    when = last.phase if last.ended_at is None else f"ended {last.ended_at:%Y-%m-%d %H:%M}"
    return f"{when}: {done}" + (f"; {last.why}" if last.why else "")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}"
