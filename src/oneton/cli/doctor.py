"""`oneton doctor`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import msgspec
import rich_click as click
from rich.table import Table

from oneton.cli.common import (
    EXIT_NEGATIVE,
    as_json,
    example,
    stdout,
    write_json,
)
from oneton.cli.logs import configure_logs
from oneton.domain.errors import OnetonError, SettingError
from oneton.settings import Settings, read_settings


class Finding(msgspec.Struct):
    """One thing looked at.

    Attributes:
        todo: what to do about it; empty when it is well.
    """

    part: str
    well: bool
    said: str
    todo: str = ""


@click.command(epilog=example("oneton doctor --deep --repair"))
@click.option("--deep", is_flag=True, help="Compare all rows, objects, templates and indexes.")
@click.option("--checksums", is_flag=True, help="With --deep: read and decode every image.")
@click.option("--repair", is_flag=True, help="With --deep: repair what is safe, and list it.")
@click.option(
    "--accept-lost-images",
    is_flag=True,
    help="With --repair: rows whose image is lost are marked as erased; they keep matching.",
)
@click.option(
    "--lost-at-most",
    type=click.IntRange(min=1),
    help="With --accept-lost-images: so many, where they are more than 10 and a tenth of all.",
)
@as_json
def doctor(
    deep: bool,
    checksums: bool,
    repair: bool,
    accept_lost_images: bool,
    lost_at_most: int | None,
    as_json: bool,
) -> None:
    """Look at settings, folders, model files, database, object store and snapshots.

    Says what to do about everything that is not well; exit 1 when anything is not. With --deep all
    that is kept is compared instead, beside a running system; each finding is looked at twice.
    """
    from oneton.cli.remote import refuse_remote

    refuse_remote()
    if (checksums or repair) and not deep:
        raise click.UsageError("--checksums and --repair need --deep")
    if accept_lost_images and not repair:
        raise click.UsageError("--accept-lost-images needs --repair")
    if lost_at_most is not None and not accept_lost_images:
        raise click.UsageError("--lost-at-most needs --accept-lost-images")
    if deep:
        from oneton.cli.doctor_deep import examine_deep

        examine_deep(
            checksums=checksums,
            repair=repair,
            accept_lost_images=accept_lost_images,
            lost_at_most=lost_at_most or 0,
            as_json=as_json,
        )
    findings = asyncio.run(_examine())
    if as_json:
        write_json(findings)
    else:
        table = Table("part", "", "found", "to do", show_lines=True)
        for each in findings:
            mark = "[green]well[/green]" if each.well else "[red]ill[/red]"
            table.add_row(each.part, mark, each.said, each.todo)
        stdout.print(table)
    raise SystemExit(0 if all(each.well for each in findings) else EXIT_NEGATIVE)


async def _examine() -> list[Finding]:
    try:
        settings = read_settings(os.environ)
    except SettingError as error:
        return [Finding("settings", False, str(error), "correct this variable, then run again")]
    configure_logs(settings, quiet=True)
    parts = ", ".join(
        [
            "PostgreSQL of our own" if settings.database_url is None else "external PostgreSQL",
            "images as files" if settings.s3_endpoint is None else "images in S3",
            f"model pack {settings.model_pack}",
        ]
    )
    findings = [Finding("settings", True, parts)]
    findings += [each async for each in _folders(settings)]
    findings.append(await _models(settings))
    findings.append(await _database(settings))
    findings.append(await _images(settings))
    findings.append(await _encryption(settings))
    findings.append(await anyio.to_thread.run_sync(_snapshots, settings.index_dir))
    return findings


async def _folders(settings: Settings) -> AsyncIterator[Finding]:
    for name, folder in (
        ("ONETON_DATA_DIR", settings.data_dir),
        ("ONETON_INDEX_DIR", settings.index_dir),
    ):
        nearest = folder if folder.exists() else folder.absolute().parent
        well = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        todo = "" if well else f"make {folder} a folder that this user may write"
        yield Finding(name, well, str(folder) + (" is writable" if well else " is not"), todo)


async def _models(settings: Settings) -> Finding:
    from oneton.parts import find_pack, load_pack_calibration

    try:
        pack = await anyio.to_thread.run_sync(find_pack, settings)
        load_pack_calibration(pack)
    except OnetonError as error:
        return Finding("model pack", False, str(error), "install the pack's files again")
    said = f"{pack.pack.name}, every SHA-256 right, dimension {pack.pack.dimension}"
    return Finding("model pack", True, said)


async def _database(settings: Settings) -> Finding:
    from oneton.parts import connect_database, examine_database

    try:
        async with connect_database(settings) as database:
            found = await examine_database(database)
    except OnetonError as error:
        return Finding("database", False, str(error), "start it, or correct ONETON_DATABASE_URL")
    if found.missing_migrations:
        missing = ", ".join(found.missing_migrations)
        return Finding(
            "database",
            False,
            f"migrations not applied: {missing}",
            "oneton serve applies them, as ONETON_DATABASE_OWNER_URL",
        )
    if found.bypasses or found.open_tables:
        return Finding(
            "database",
            False,
            f"role {found.role} is not held to one tenant ({', '.join(found.open_tables)})",
            "let the app's role own no table and bypass no policy",
        )
    said = f"PostgreSQL {found.version}, migrated, role {found.role} sees one tenant at a time"
    return Finding("database", True, said)


async def _images(settings: Settings) -> Finding:
    from oneton.parts import make_image_store

    store = make_image_store(settings)
    try:
        await store.check()
    except OnetonError as error:
        return Finding(
            "object store", False, str(error), "start it, or correct ONETON_S3_* settings"
        )
    finally:
        await store.close()
    return Finding("object store", True, "wrote, read and deleted an object")


async def _encryption(settings: Settings) -> Finding:
    from oneton.parts import connect_database, examine_encryption

    try:
        async with connect_database(settings) as database:
            said = await examine_encryption(settings, database)
    except SettingError as error:
        todo = "set ONETON_MASTER_KEY to the keys that wrap the tenants' keys"
        return Finding("encryption", False, str(error), todo)
    except OnetonError:
        said = "not known while the database does not answer"
    return Finding("encryption", True, said)


def _snapshots(folder: Path) -> Finding:
    from oneton.index.inspection import find_snapshots

    try:
        found = find_snapshots(folder)
    except OSError as error:
        todo = f"make {folder} a folder that this user may read"
        return Finding("snapshots", False, error.strerror or str(error), todo)
    kept = [each for each in found if not each.set_aside]
    galleries = {(each.tenant_id, each.gallery_id) for each in kept}
    said = f"{len(kept)} of {len(galleries)} galleries, {len(found) - len(kept)} set aside"
    unreadable = [str(each.path) for each in kept if each.manifest is None]
    if unreadable:
        return Finding(
            "snapshots",
            False,
            f"{said}; cannot be read: {', '.join(unreadable)}",
            "nothing: a server sets them aside and reads the gallery from Postgres",
        )
    return Finding("snapshots", True, said if kept else "none; indexes load from Postgres")
