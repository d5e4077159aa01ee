"""`oneton audit`: who did what to which face, when, from where."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar
from uuid import UUID

import msgspec
import rich_click as click

from oneton.cli.common import (
    as_json,
    chosen_tenant,
    example,
    print_line,
    run,
    stdout,
    write_json,
)
from oneton.domain.audit import AuditEvent, AuditFilter
from oneton.domain.errors import NotFoundError, SettingError
from oneton.domain.model import FaceId, TenantId
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.verbs.read_audit import ReadAudit

F = TypeVar("F", bound=Callable[..., Any])

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
_COLUMNS = tuple(AuditEvent.__struct_fields__)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.group()
def audit() -> None:
    """List, export and expire the audit trail: who did what to which face, when, from where."""


def _chosen(command: F) -> F:
    """The options that choose events."""
    options = (
        click.option(
            "--tenant", "tenant_name", help="Its name or id; not needed when there is one only."
        ),
        click.option("--operators", is_flag=True, help="What operators did outside of any tenant."),
        click.option("--face", "face_id", type=click.UUID, help="The oneToNVerificationId."),
        click.option("--actor", help='Such as "key 019a3c1e-..." or "operator ada".'),
        click.option("--action", help='Such as search, match, enroll, purge, "read image".'),
        click.option("--from", "since", type=click.DateTime(_TIMES), help="UTC without a zone."),
        click.option("--to", "until", type=click.DateTime(_TIMES), help="Before this time."),
    )
    return reduce(lambda made, option: option(made), reversed(options), command)


class _Asked(msgspec.Struct, frozen=True):
    """What the options choose."""

    tenant_name: str | None
    operators: bool
    face_id: UUID | None
    actor: str | None
    action: str | None
    since: datetime | None
    until: datetime | None

    @property
    def which(self) -> AuditFilter:
        """The events."""
        face_id = None if self.face_id is None else FaceId(self.face_id)
        return AuditFilter(face_id, self.actor, self.action, _utc(self.since), _utc(self.until))


@audit.command("list", epilog=example("oneton audit list --face 019a3c1e-... --from 2026-01-01"))
@_chosen
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json
def list_audit(limit: int, as_json: bool, **asked: object) -> None:
    """List events, the newest first."""
    wanted = msgspec.convert(asked, _Asked)

    async def work(settings: Settings) -> list[AuditEvent]:
        async with _opened(settings, wanted) as (tenant, read):
            return await read.page(tenant, limit=limit, which=wanted.which)

    found = run(work)
    if as_json:
        write_json(found)
        return
    for each in found:
        print_line(
            f"{each.at:%Y-%m-%d %H:%M:%S}",
            each.actor,
            each.action,
            each.gallery_id,
            *map(str, each.face_ids),
            each.address and f"from {each.address}",
            bytes(each.details).decode(),
        )


@audit.command("export", epilog=example("oneton audit export --format csv -o audit.csv"))
@_chosen
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="A new file, or one to replace; readable by its owner only.",
)
def export_audit(form: str, output: Path, **asked: object) -> None:
    """Write events to a file, the oldest first, however many; the export leaves an event."""
    wanted = msgspec.convert(asked, _Asked)

    async def work(settings: Settings) -> int:
        async with _opened(settings, wanted) as (tenant, read):
            return await _write(output, form, read.export(tenant, wanted.which))

    stdout.print(f"{run(work):,} events in {output}", soft_wrap=True)


@audit.command("expire", epilog=example("oneton audit expire --days 730 --yes"))
@click.option("--days", type=click.IntRange(1, 36_500), required=True, help="Older ones go.")
@click.option("--yes", is_flag=True, help="Do it; else only say how many there are.")
@as_json
def expire(days: int, yes: bool, as_json: bool) -> None:
    """Delete old events, of every tenant. Needs the login that owns the tables; leaves an event."""
    from oneton.parts import find_owner
    from oneton.records.audit_expiry import expire_audit

    async def work(settings: Settings) -> int:
        async with find_owner(settings) as owner_dsn:
            return await expire_audit(owner_dsn, days, keep=not yes)

    events = run(work)
    if as_json:
        write_json({"events": events, "deleted": yes})
    else:
        said = "deleted" if yes else "would be deleted; --yes does it"
        stdout.print(f"{events:,} events older than {days} days {said}")


@asynccontextmanager
async def _opened(
    settings: Settings, asked: _Asked
) -> AsyncIterator[tuple[TenantId | None, ReadAudit]]:
    from oneton.parts import make_read_audit, open_parts

    async with open_parts(settings) as parts:
        tenant = None
        if not asked.operators:
            try:
                tenant = (await chosen_tenant(parts.tenants, asked.tenant_name)).tenant_id
            except NotFoundError:
                tenant = _as_id(asked.tenant_name)
                if tenant is None:
                    raise
        yield tenant, make_read_audit(parts)


def _as_id(name: str | None) -> TenantId | None:
    """A tenant that has no name, for it was deleted."""
    try:
        return None if name is None else TenantId(UUID(name))
    except ValueError:
        return None


def _utc(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time


async def _write(output: Path, form: str, events: AsyncIterator[AuditEvent]) -> int:
    """Written beside and renamed, so that a file is whole or not there."""
    beside = output.with_name(f".{output.name}.{os.getpid()}.part")
    written = 0
    try:
        with _private(beside) as file:
            line = _csv_line(file) if form == "csv" else _json_line(file)
            async for event in events:
                line(event)
                written += 1
        os.replace(beside, output)
    except OSError as error:
        raise SettingError(f"{output}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
    return written


def _private(path: Path) -> TextIO:
    """A new file that only its owner may read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(handle, "w", encoding="utf-8", newline="")


def _json_line(file: TextIO) -> Callable[[AuditEvent], object]:
    return lambda event: file.write(msgspec.json.encode(event).decode() + "\n")


def _csv_line(file: io.TextIOBase | TextIO) -> Callable[[AuditEvent], object]:
    writer = csv.writer(file)
    writer.writerow(_COLUMNS)

    def line(event: AuditEvent) -> object:
        row = [
            event.event_no,
            event.at.isoformat(),
            event.tenant_id or "",
            event.actor,
            event.action,
            " ".join(map(str, event.face_ids)),
            event.gallery_id or "",
            event.address or "",
            event.request_id or "",
            bytes(event.details).decode(),
        ]
        return writer.writerow([_inert(each) for each in row])

    return line


def _inert(value: object) -> object:
    """A spreadsheet takes no cell of ours for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
