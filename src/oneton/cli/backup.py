"""`oneton backup`: create, verify and restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from oneton.cli.common import EXIT_NEGATIVE, as_json, example, run, stdout, write_json
from oneton.cli.progress import progress_bar
from oneton.cli.snapshots_table import size_text
from oneton.domain.backups import Restored, Sampled
from oneton.settings import Settings

if TYPE_CHECKING:
    from rich.progress import TaskID

    from oneton.domain.backups import Backup

MOST_SHOWN = 50
folder = click.argument("folder", type=click.Path(path_type=Path))


class Proof(msgspec.Struct, frozen=True):
    """What a restore did, and what the searches after it found."""

    restored: Restored
    sampled: Sampled

    @property
    def wrong(self) -> list[str]:
        """Everything that is not as it should be."""
        return [*self.restored.wrong, *self.sampled.wrong]


@click.group()
def backup() -> None:
    """Create, verify and restore backups of the database and the object store.

    A backup holds photos, templates, secrets of keys and webhooks: it is as secret as
    both together.
    """


@backup.command("create", epilog=example("oneton backup create /backups/2026-11-22"))
@folder
@click.option(
    "--no-objects",
    is_flag=True,
    help="Only list the objects with their checksums, for a store that is backed up otherwise.",
)
@click.option(
    "--incremental-from",
    type=click.Path(path_type=Path),
    help="A backup on the same disk; what it has already is linked to, not stored again.",
)
@as_json
def create_backup(
    folder: Path, no_objects: bool, incremental_from: Path | None, as_json: bool
) -> None:
    """Write a backup into a new folder, while servers run.

    The rows are those of one moment, and the objects those that the rows name. What is erased while
    the backup is made is noted as erased. Exit 1 when rows name images that the store lacks.
    """
    from oneton.parts import make_image_store, open_owner_dsn
    from oneton.verbs.create_backup import CreateBackup

    async def work(settings: Settings) -> Backup:
        store = make_image_store(settings)
        try:
            async with open_owner_dsn(settings) as owner_dsn:
                with _progress() as advance:
                    return await CreateBackup(owner_dsn, store, advance)(
                        folder, copy_objects=not no_objects, incremental_from=incremental_from
                    )
        finally:
            await store.close()

    made = run(work)
    if as_json:
        write_json(made)
    else:
        rows = sum(each.rows for each in made.rows.tables.values())
        objects = made.objects
        stdout.print(
            f"{rows} rows of {len(made.rows.tenants)} tenants, {objects.objects} objects "
            f"({size_text(objects.size_bytes)}{'' if objects.copied else ', listed only'}), "
            f"{objects.erased} erased meanwhile, {objects.missing} missing",
            soft_wrap=True,
        )
        print(folder)
    raise SystemExit(EXIT_NEGATIVE if made.objects.missing else 0)


@backup.command("verify", epilog=example("oneton backup verify /backups/2026-11-22"))
@folder
@as_json
def verify_backup(folder: Path, as_json: bool) -> None:
    """Read a backup whole: checksums, the dump's rows, and the image of every row.

    Needs neither a database nor a store. Says each damage in one line; exit 1 when there is any.
    """
    from oneton.verbs.verify_backup import VerifyBackup

    async def work(_: Settings) -> list[str]:
        with _progress() as advance:
            return await VerifyBackup(advance)(folder)

    damages = run(work)
    if as_json:
        write_json({"whole": not damages, "damages": damages})
    else:
        _print_lines(damages)
        stdout.print(f"{len(damages)} damages" if damages else "whole")
    raise SystemExit(EXIT_NEGATIVE if damages else 0)


@backup.command("restore", epilog=example("oneton backup restore /backups/2026-11-22"))
@folder
@click.option(
    "--again", is_flag=True, help="Drop what an interrupted restore left here, and begin anew."
)
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Searches with stored images, each of which has to find its own record.",
)
@as_json
def restore_backup(folder: Path, again: bool, sample: int, as_json: bool) -> None:
    """Restore a backup into an empty system, with no server running, and prove it.

    Every table, every head and every object is compared with the backup, then stored images are
    searched with. Exit 1 when anything is not as it was.
    """

    async def work(settings: Settings) -> Proof:
        return await _restore(settings, folder, again=again, sample=sample)

    proof = run(work)
    if as_json:
        write_json({"proved": not proof.wrong, **msgspec.structs.asdict(proof)})
    else:
        _print_lines(proof.wrong)
        restored, sampled = proof.restored, proof.sampled
        stdout.print(
            f"{restored.rows} rows in {restored.tables} tables, {restored.galleries} galleries, "
            f"{restored.objects} objects, {restored.erased} erased while the backup was made; "
            f"{sampled.agreed} of {sampled.searched} searches agree",
            soft_wrap=True,
        )
        stdout.print(f"not proved: {len(proof.wrong)} differences" if proof.wrong else "proved")
    raise SystemExit(EXIT_NEGATIVE if proof.wrong else 0)


async def _restore(settings: Settings, folder: Path, *, again: bool, sample: int) -> Proof:
    from oneton.app import open_verbs
    from oneton.parts import make_image_store, open_owner_dsn, open_parts
    from oneton.records.whole_database import OwnedDatabase
    from oneton.verbs.restore_backup import RestoreBackup
    from oneton.verbs.sample_searches import SampleSearches

    async with open_owner_dsn(settings) as owner_dsn:
        with _progress() as advance:
            store = make_image_store(settings)
            try:
                await store.check()
                restored = await RestoreBackup(owner_dsn, store, advance)(folder, again=again)
            finally:
                await store.close()
            if not sample or restored.wrong:
                return Proof(restored, Sampled())
            async with OwnedDatabase.connect(owner_dsn) as database:
                drawn = await database.sample(sample)
            async with open_parts(settings) as parts, open_verbs(settings, parts) as verbs:
                search = SampleSearches(verbs.platform.identify, parts.images, advance)
                return Proof(restored, await search(drawn))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work."""
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, said="")
            bar.update(tasks[what], completed=done, total=total)

        yield advance


def _print_lines(lines: list[str]) -> None:
    for line in lines[:MOST_SHOWN]:
        print(line)
    if len(lines) > MOST_SHOWN:
        print(f"and {len(lines) - MOST_SHOWN} more; --json has all")
