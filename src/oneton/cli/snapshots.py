"""`oneton snapshot`: take, verify and list the snapshots of galleries' indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import rich_click as click

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
from oneton.cli.snapshots_table import Row, make_row, make_tables, size_text
from oneton.domain.errors import NotFoundError, SnapshotError, UnavailableError
from oneton.domain.model import DEFAULT_GALLERY, GalleryId
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.index.inspection import Found

WORTH_A_BAR = 256 << 20
"""Bytes to read from which on `verify` shows how far it is."""


class Verified(msgspec.Struct, frozen=True):
    """What `verify` found.

    Attributes:
        leftover_files: files that no snapshot names.
    """

    snapshots: list[Row]
    damaged: int
    leftover_files: int
    leftover_bytes: int


@click.group()
def snapshot() -> None:
    """Take, verify and list the snapshots that indexes are opened from."""


@snapshot.command("list", epilog=example("oneton snapshot list --json"))
@as_json
def list_snapshots(as_json: bool) -> None:
    """List the snapshots in ONETON_INDEX_DIR, those of its replica folders too.

    Needs neither a database nor models. One that is set aside could not be used; the gallery was
    read from Postgres instead.
    """
    from oneton.index.inspection import find_snapshots

    async def work(settings: Settings) -> list[Row]:
        with _reading(settings.index_dir):
            return [make_row(each) for each in find_snapshots(settings.index_dir)]

    rows = run(work)
    if as_json:
        write_json(rows)
        return
    for table in make_tables(rows):
        stdout.print(table)
    if not rows:
        stdout.print("no snapshots; indexes load from Postgres")


@snapshot.command("verify", epilog=example("oneton snapshot verify default"))
@click.argument("gallery", required=False)
@click.option("--tenant", "tenant_id", type=click.UUID, help="The tenant's id, as list shows it.")
@as_json
def verify_snapshots(gallery: str | None, tenant_id: UUID | None, as_json: bool) -> None:
    """Read every byte of the snapshots; exit 1 when any is damaged.

    Changes nothing and needs no database: a server that meets the damage sets the snapshot aside
    and reads the gallery from Postgres. Those set aside already are left out. Counts the files that
    no snapshot names, some of which a running server may be about to name.
    """

    async def work(settings: Settings) -> Verified:
        with _reading(settings.index_dir):
            return _verify(settings.index_dir, gallery, tenant_id)

    found = run(work)
    if as_json:
        write_json(found)
    else:
        for each in found.snapshots:
            if each.why:
                print(f"damaged: {each.path}: {each.why}")
        whole = len(found.snapshots) - found.damaged
        stdout.print(
            f"{whole} snapshots whole, {found.damaged} damaged; {found.leftover_files} files "
            f"({size_text(found.leftover_bytes)}) that none of them names",
            soft_wrap=True,
        )
    raise SystemExit(EXIT_NEGATIVE if found.damaged else 0)


@snapshot.command("take", epilog=example("oneton snapshot take default --tenant acme"))
@click.argument("gallery", default=str(DEFAULT_GALLERY))
@of_tenant
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that a running server may take; then exit 4.",
)
@as_json
def take_snapshot(gallery: str, tenant_name: str | None, within_s: float, as_json: bool) -> None:
    """Take a snapshot of a gallery now, whatever its size.

    A server of this machine that runs with the same ONETON_INDEX_DIR and database is asked for it.
    Without one the command loads the gallery and writes the snapshot itself.
    """

    async def work(settings: Settings) -> Row:
        return make_row(await _take(settings, GalleryId(gallery), tenant_name, within_s))

    row = run(work)
    if as_json:
        write_json(row)
    else:
        stdout.print(
            f"snapshot of {row.gallery} taken at head {row.head}: {row.faces} faces, "
            f"{row.segments} segments, {size_text(row.size_bytes)}"
        )
        print(row.path)


async def _take(
    settings: Settings, gallery: GalleryId, tenant_name: str | None, within_s: float
) -> Found:
    """Ask a server that holds the folder; without one, do it here."""
    from oneton.index.inspection import find_snapshots
    from oneton.index.store import is_held
    from oneton.indexing import make_ask_for_snapshot, open_indexes
    from oneton.parts import open_parts

    async with open_parts(settings) as parts:
        tenant = (await chosen_tenant(parts.tenants, tenant_name)).tenant_id
        with _reading(settings.index_dir):
            held = is_held(settings.index_dir)
        if held:
            return await make_ask_for_snapshot(settings, parts)(tenant, gallery, within_s)
        async with open_indexes(settings, parts) as indexes:
            taken = await indexes.keep_up.take_now(tenant, gallery)
    for each in find_snapshots(settings.index_dir):
        if each.manifest == taken:
            return each
    raise UnavailableError(f"the snapshot of {gallery} is gone again")


def _verify(root: Path, gallery: str | None, tenant_id: UUID | None) -> Verified:
    from oneton.index.inspection import Key, check_snapshot, find_leftovers, find_snapshots

    every = find_snapshots(root)
    left = find_leftovers(every, root)
    wanted = [
        each
        for each in every
        if not each.set_aside
        and gallery in (None, each.gallery_id)
        and (tenant_id is None or each.tenant_id == str(tenant_id))
    ]
    if not wanted and (gallery or tenant_id):
        raise NotFoundError("snapshot", gallery or tenant_id)
    rows: list[Row] = []
    checked: set[Key] = set()
    with _progress(wanted) as advance:
        for each in wanted:
            why = ""
            try:
                for count in check_snapshot(each, checked):
                    advance(count)
            except (SnapshotError, OSError) as error:
                if not each.path.exists():
                    # A running server took newer ones, and deleted it.
                    continue
                why = str(error)
            rows.append(make_row(each, "damaged" if why else "whole", why))
    damaged = sum(row.state == "damaged" for row in rows)
    return Verified(rows, damaged, left.files, left.size_bytes)


@contextmanager
def _reading(root: Path) -> Iterator[None]:
    """A folder that cannot be read is a part that does not answer."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"ONETON_INDEX_DIR={root} cannot be read: {error.strerror or error}"
        ) from error


@contextmanager
def _progress(found: list[Found]) -> Iterator[Callable[[int], None]]:
    """How far reading is, in bytes, when there are many."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from oneton.index.inspection import bytes_to_read

    total = bytes_to_read(found)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=total < WORTH_A_BAR) as progress:
        task = progress.add_task("reading", total=total)
        yield lambda count: progress.advance(task, count)
