"""`oneton reindex`: re-embed galleries under another model pack while they answer."""

from __future__ import annotations

import getpass
import re
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import rich_click as click
from rich.table import Table

from oneton.cli.common import EXIT_NEGATIVE, as_json, example, run, stdout, write_json
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.domain.reindexing import Work
    from oneton.verbs.reindex import GalleryReport, RunPlan

_TO = click.option(
    "--to", "to_pack", required=True, help="The model pack, as models list names it."
)
_TENANT = click.option("--tenant", help="Galleries of this tenant only.")
_GALLERY = click.option("--gallery", help="Galleries of this name only.")
_RUN = click.argument("run_id", type=click.UUID, required=False)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d+)([smhd])", str(value))
        if found is None:
            self.fail(f"{value} is no duration such as 90s, 12h or 7d", param, ctx)
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


@click.group()
def reindex() -> None:
    """Re-embed stored images under another model pack, without a minute of downtime.

    A run's work is done by `oneton worker`, on any number of machines, and by a server while there
    is no worker. RUN_ID is the newest run when it is left out.
    """


@reindex.command("plan", epilog=example("oneton reindex plan --to buffalo_l"))
@_TO
@_TENANT
@_GALLERY
@as_json
def plan(to_pack: str, tenant: str | None, gallery: str | None, as_json: bool) -> None:
    """Say what a run would do; nothing changes. The time is from a rate measured here and now."""
    from oneton.cli.reindexing import measure_rate
    from oneton.parts import make_reindex, open_parts

    async def work(settings: Settings) -> RunPlan:
        async with open_parts(settings) as parts:
            verb = await make_reindex(settings, parts)
            number = await parts.model_packs.number_of(to_pack)
            chosen = await verb.choose(tenant, gallery)
            files, _ = await verb.find_pack(number)
            return await verb.plan(number, chosen, measure_rate(settings, files))

    made = run(work)
    if as_json:
        write_json({"plan": made, "to_embed": made.to_embed})
        return
    table = Table("tenant", "gallery", "from", "faces", "to embed", "to drop", "disk", "memory", "")
    for each in made.galleries:
        table.add_row(
            each.tenant,
            each.gallery,
            each.from_pack,
            f"{each.plan.faces:,}",
            f"{each.plan.to_embed:,}",
            f"{each.plan.to_drop:,}",
            f"{each.disk_bytes / 1e6:,.1f} MB",
            f"{each.memory_bytes / 1e6:,.1f} MB",
            each.refused,
        )
    stdout.print(table)
    stdout.print(
        f"{made.to_embed:,} images to embed under {made.to_pack}; at {made.images_per_s:.0f} a "
        f"second, as measured on this machine, {timedelta(seconds=round(made.took_s))}. Records to "
        "drop have no image any more: they are removed at the cut-over, and their ids become 404.",
        soft_wrap=True,
    )


@reindex.command("start", epilog=example("oneton reindex start --to buffalo_l --rate 50"))
@_TO
@_TENANT
@_GALLERY
@click.option(
    "--rate",
    type=click.IntRange(1, 100),
    default=50,
    show_default=True,
    help="Percent of the CPU time that it may take, in every process that works.",
)
@click.option(
    "--on-failure",
    type=click.Choice(["keep-erased", "stop"]),
    default="stop",
    show_default=True,
    help="What becomes of a gallery with images that yield no face under the new pack: it waits, "
    "or goes on without them; their records and images stay, but match nothing.",
)
@click.option(
    "--keep-old",
    type=_Duration(),
    default="7d",
    show_default=True,
    help="How long a gallery can be rolled back after its cut-over.",
)
@as_json
def start(
    to_pack: str,
    tenant: str | None,
    gallery: str | None,
    rate: int,
    on_failure: str,
    keep_old: timedelta,
    as_json: bool,
) -> None:
    """Start a run. From now on new faces are embedded under both packs."""
    from oneton.domain.reindexing import OnFailure
    from oneton.parts import make_reindex, open_parts

    async def work(settings: Settings) -> UUID:
        async with open_parts(settings) as parts:
            verb = await make_reindex(settings, parts)
            return await verb.start(
                await parts.model_packs.number_of(to_pack),
                await verb.choose(tenant, gallery),
                rate=rate,
                on_failure=OnFailure(on_failure),
                keep_old=keep_old,
                actor=getpass.getuser(),
            )

    _said("started", run(work), as_json=as_json)


@reindex.command("status", epilog=example("oneton reindex status --watch"))
@_RUN
@click.option("--watch", is_flag=True, help="Show progress until the run needs nothing more.")
@as_json
def status(run_id: UUID | None, watch: bool, as_json: bool) -> None:
    """Show how far a run is. Exit 1 when a gallery stopped and waits for an operator."""
    from oneton.cli.reindexing import watch_run
    from oneton.domain.reindexing import GalleryState
    from oneton.parts import make_reindex, open_parts

    async def work(settings: Settings) -> list[Work]:
        async with open_parts(settings) as parts:
            verb = await make_reindex(settings, parts)
            return await (watch_run(verb, run_id) if watch else verb.status(run_id))

    found = run(work)
    if as_json:
        write_json(found)
    else:
        _print_works(found)
    stopped = any(each.state is GalleryState.STOPPED for each in found)
    raise SystemExit(EXIT_NEGATIVE if stopped else 0)


@reindex.command("report", epilog=example("oneton reindex report --json"))
@_RUN
@as_json
def report(run_id: UUID | None, as_json: bool) -> None:
    """List the images that yielded no face, and the records that a cut-over removed."""
    from oneton.parts import make_reindex, open_parts

    async def work(settings: Settings) -> list[GalleryReport]:
        async with open_parts(settings) as parts:
            verb = await make_reindex(settings, parts)
            return [await verb.report(each) for each in await verb.status(run_id)]

    found = run(work)
    if as_json:
        write_json(found)
        return
    for each in found:
        for face_id, why in each.failures:
            print(f"{each.work.gallery_id} {face_id} not re-embedded: {why}")
        for face_id in each.drops:
            print(f"{each.work.gallery_id} {face_id} removed: its image was erased")


@reindex.command("pause", epilog=example("oneton reindex pause"))
@_RUN
@as_json
def pause(run_id: UUID | None, as_json: bool) -> None:
    """Pause a run; new faces are embedded under both packs all the same."""
    from oneton.parts import make_reindex, open_parts

    async def work(settings: Settings) -> UUID:
        async with open_parts(settings) as parts:
            return await (await make_reindex(settings, parts)).pause(run_id, getpass.getuser())

    _said("paused", run(work), as_json=as_json)


@reindex.command("resume", epilog=example("oneton reindex resume --on-failure keep-erased"))
@_RUN
@click.option(
    "--on-failure",
    type=click.Choice(["keep-erased", "stop"]),
    help="From now on; stop tries the failed images again.",
)
@as_json
def resume(run_id: UUID | None, on_failure: str | None, as_json: bool) -> None:
    """Go on with a run that was paused, and with galleries that stopped."""
    from oneton.domain.reindexing import OnFailure
    from oneton.parts import make_reindex, open_parts

    async def work(settings: Settings) -> UUID:
        async with open_parts(settings) as parts:
            verb = await make_reindex(settings, parts)
            chosen = None if on_failure is None else OnFailure(on_failure)
            return await verb.resume(run_id, getpass.getuser(), chosen)

    _said("goes on", run(work), as_json=as_json)


@reindex.command("cancel", epilog=example("oneton reindex cancel"))
@_RUN
@as_json
def cancel(run_id: UUID | None, as_json: bool) -> None:
    """Cancel a run: galleries that are not cut over stay as they are."""
    from oneton.parts import make_reindex, open_parts

    async def work(settings: Settings) -> UUID:
        async with open_parts(settings) as parts:
            return await (await make_reindex(settings, parts)).cancel(run_id, getpass.getuser())

    _said("cancelled", run(work), as_json=as_json)


@reindex.command("rollback", epilog=example("oneton reindex rollback --gallery default"))
@_RUN
@_GALLERY
@as_json
def rollback(run_id: UUID | None, gallery: str | None, as_json: bool) -> None:
    """Let the old pack answer again, faces enrolled since included."""
    from oneton.parts import make_reindex, open_parts

    async def work(settings: Settings) -> dict[str, int]:
        async with open_parts(settings) as parts:
            verb = await make_reindex(settings, parts)
            return await verb.roll_back(run_id, getpass.getuser(), gallery)

    back = run(work)
    if as_json:
        write_json({"rolled_back": back})
        return
    for name, count in back.items():
        stdout.print(f"gallery {name} rolled back, {count:,} removed records are there again")


def _said(what: str, run_id: UUID, *, as_json: bool) -> None:
    if as_json:
        write_json({"run_id": run_id})
    else:
        stdout.print(f"run {run_id} {what}")


def _print_works(works: list[Work]) -> None:
    if works:
        first = works[0]
        stdout.print(f"run {first.run_id}: {first.run_state}, rate {first.rate} %")
    table = Table("gallery", "state", "embedded", "of", "failed", "dropped", "neighbours agree", "")
    for each in works:
        agree = "" if not each.compared else f"{each.agreed} of {each.compared}"
        table.add_row(
            each.gallery_id,
            str(each.state),
            f"{each.embedded:,}",
            f"{each.to_embed:,}",
            f"{each.failed:,}",
            f"{each.to_drop:,} planned" if each.dropped is None else f"{each.dropped:,}",
            agree,
            each.why,
        )
    stdout.print(table)
