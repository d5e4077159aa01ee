"""`oneton tenant suspend`, `resume`, `delete` and `quota`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click
from rich.table import Table

from oneton.cli.common import (
    EXIT_NEGATIVE,
    as_json,
    example,
    run,
    stdout,
    write_json,
)
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.verbs.delete_tenant import Proof
    from oneton.verbs.limit_tenant import Quota

NONE = "none"


class _Limit(click.ParamType[int | str]):
    """A number, or `none`."""

    name = "number"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        text = str(value)
        if text == NONE:
            return NONE
        if not text.isdecimal() or len(text) > 18:
            self.fail(f"{text!r} is neither {NONE!r} nor a number", param, ctx)
        return int(text)


@click.command("suspend", epilog=example("oneton tenant suspend acme"))
@click.argument("name")
@as_json
def suspend_tenant(name: str, as_json: bool) -> None:
    """Refuse all calls of a tenant with 403, on every server, within a second.

    What it has stays, and is erased in its time as before. Its webhooks wait until it is resumed.
    """
    _set_suspended(name, suspended=True, as_json=as_json)


@click.command("resume", epilog=example("oneton tenant resume acme"))
@click.argument("name")
@as_json
def resume_tenant(name: str, as_json: bool) -> None:
    """Answer the calls of a suspended tenant again."""
    _set_suspended(name, suspended=False, as_json=as_json)


def _set_suspended(name: str, *, suspended: bool, as_json: bool) -> None:
    from oneton.parts import open_parts

    async def work(settings: Settings) -> bool:
        async with open_parts(settings) as parts:
            owner = await parts.tenants.named(name)
            return await parts.tenants.suspend(owner.tenant_id, suspended=suspended)

    changed = run(work)
    if as_json:
        write_json({"tenant": name, "suspended": suspended, "changed": changed})
    else:
        already = "" if changed else " already"
        stdout.print(f"tenant {name} is{already} {'suspended' if suspended else 'in force'}")


@click.command("quota", epilog=example("oneton tenant quota acme --faces 100000"))
@click.argument("name")
@click.option("--faces", type=_Limit(), help="Face records in all galleries; `none` is any number.")
@click.option(
    "--requests-a-day", type=_Limit(), help="Calls on a day of UTC; `none` is any number."
)
@as_json
def set_quota(
    name: str, faces: int | str | None, requests_a_day: int | str | None, as_json: bool
) -> None:
    """Set, or without options show, what a tenant may have and do.

    The number of face records is exact. With several servers, a few calls more than the limit may
    be answered in the seconds before all of them know that it is reached.
    """
    from oneton.parts import make_limit_tenant, open_parts

    async def work(settings: Settings) -> Quota:
        from oneton.verbs.limit_tenant import Quota

        async with open_parts(settings) as parts:
            owner = await parts.tenants.named(name)
            limit = make_limit_tenant(parts)
            now = await limit.read(owner.tenant_id)
            wanted = Quota(_chosen(faces, now.faces), _chosen(requests_a_day, now.requests_a_day))
            if wanted != now:
                await limit(owner.tenant_id, wanted)
            return wanted

    quota = run(work)
    if as_json:
        write_json(quota)
        return
    table = Table(show_header=False)
    table.add_row("face records", _shown(quota.faces))
    table.add_row("calls a day", _shown(quota.requests_a_day))
    stdout.print(table)


@click.command("delete", epilog=example("oneton tenant delete acme --yes-delete acme"))
@click.argument("name")
@click.option("--yes-delete", "said", help="The name once more: there is no way back.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what was deleted, and what was found afterwards, as JSON.",
)
@as_json
def delete_tenant(name: str, said: str | None, report: Path | None, as_json: bool) -> None:
    """Delete a tenant with everything that it has: keys, galleries, faces, pictures, saved calls.

    Its calls are refused at once. When the command is interrupted, a running server or worker goes
    on, or the same command again. Afterwards every table and the object store are searched for what
    may be left: exit 1 when anything is.
    """
    from oneton.indexing import forget_indexes
    from oneton.parts import make_delete_tenant, open_parts

    if said != name:
        raise click.UsageError(f"to delete {name} for good, add --yes-delete {name}")
    if report is not None and not report.absolute().parent.is_dir():
        raise click.UsageError(f"--report {report}: there is no such folder")

    async def work(settings: Settings) -> tuple[Proof, int]:
        async with open_parts(settings) as parts:
            owner = await parts.tenants.named(name)
            proof = await make_delete_tenant(parts)(owner.tenant_id)
            return proof, await forget_indexes(settings, owner.tenant_id)

    proof, folders = run(work)
    is_clean = proof.is_clean and not folders
    told = {
        "tenant": proof.deletion.tenant_id,
        "asked_at": proof.deletion.asked_at,
        "ended_at": proof.deletion.ended_at,
        "deleted": {"rows": proof.deletion.rows, "objects": proof.deletion.objects},
        "left": {
            "rows": proof.rows_left,
            "objects": proof.objects_left,
            "index_folders": folders,
        },
        "clean": is_clean,
    }
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
    if as_json:
        write_json(told)
    else:
        _print(proof, folders)
    if not is_clean:
        raise SystemExit(EXIT_NEGATIVE)


def _print(proof: Proof, folders: int) -> None:
    table = Table("what", "deleted", "left")
    for name, left in sorted(proof.rows_left.items()):
        deleted = proof.deletion.rows.get(name, 0)
        if deleted or left:
            table.add_row(f"rows of {name}", str(deleted), str(left))
    for name, deleted in sorted(proof.deletion.objects.items()):
        table.add_row(name, str(deleted), "")
    table.add_row("objects", str(sum(proof.deletion.objects.values())), str(proof.objects_left))
    table.add_row("index folders here", "", str(folders))
    stdout.print(table)
    stdout.print(
        f"tenant {proof.deletion.tenant_id}: {len(proof.rows_left)} tables and the object store "
        "were searched"
    )


def _chosen(wanted: int | str | None, now: int | None) -> int | None:
    if wanted is None:
        return now
    return wanted if isinstance(wanted, int) else None


def _shown(limit: int | None) -> str:
    return "unlimited" if limit is None else str(limit)
