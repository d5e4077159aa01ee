"""`oneton doctor --deep`: rows, objects, templates, indexes and queues against each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table

from oneton.cli.common import EXIT_NEGATIVE, run, stderr, stdout, write_json
from oneton.domain.examining import REPAIRS, Examined, Repair
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.parts import Parts
    from oneton.verbs.catch_up import CatchUp
    from oneton.verbs.examine_deep import ExamineDeep
    from oneton.verbs.repair_findings import RepairFindings

MOST_SHOWN = 30


class Deep(msgspec.Struct, frozen=True):
    """What was examined, and what was repaired."""

    examined: list[Examined]
    repairs: list[Repair]

    @property
    def left(self) -> int:
        """Findings that are still there."""
        found = sum(len(each.findings) for each in self.examined)
        return found - sum(each.done for each in self.repairs)


def examine_deep(
    *,
    checksums: bool,
    repair: bool,
    accept_lost_images: bool,
    lost_at_most: int,
    as_json: bool,
) -> None:
    """Examine, repair when that is asked for, say it, and end: exit 1 when anything is left."""

    async def work(settings: Settings) -> Deep:
        from oneton.parts import open_parts

        async with open_parts(settings) as parts:
            examined = await _examiner(settings, parts, checksums=checksums)()
            found = [each for subject in examined for each in subject.findings]
            if not repair or not found:
                return Deep(examined, [])
            opening = _open_repair(
                settings, parts, accept_lost=accept_lost_images, lost_at_most=lost_at_most
            )
            rows = sum(each.looked_at.get("rows", 0) for each in examined)
            async with opening as mend:
                return Deep(examined, await mend(found, rows))

    deep = run(work)
    if as_json:
        write_json({"clean": not deep.left, **msgspec.structs.asdict(deep)})
    else:
        _show(deep)
    raise SystemExit(EXIT_NEGATIVE if deep.left else 0)


def _examiner(settings: Settings, parts: Parts, *, checksums: bool) -> ExamineDeep:
    from oneton.parts import make_sweep
    from oneton.records.examining import Examining
    from oneton.verbs.examine_deep import ExamineDeep
    from oneton.verbs.examine_heads import ExamineHeads
    from oneton.verbs.examine_indexes import ExamineIndexes
    from oneton.verbs.examine_objects import ExamineObjects
    from oneton.verbs.examine_queues import ExamineQueues
    from oneton.verbs.examine_snapshots import ExamineSnapshots
    from oneton.verbs.examine_templates import ExamineTemplates

    tenants, galleries, faces = parts.tenants, parts.galleries, parts.faces
    examining = Examining(parts.database)
    copies = parts.images if settings.snapshot_copy else None
    return ExamineDeep(
        (
            ExamineObjects(
                make_sweep(parts),
                tenants,
                parts.images,
                timedelta(seconds=settings.sweep_grace_s),
                checksums,
                settings.max_image_bytes,
                settings.max_image_pixels,
            ),
            ExamineHeads(tenants, galleries, examining),
            ExamineTemplates(tenants, galleries, faces, parts.model_packs, examining),
            ExamineSnapshots(tenants, settings.index_dir, copies),
            ExamineIndexes(
                tenants, galleries, faces, examining, partial(_open_catch_up, settings, parts)
            ),
            ExamineQueues(tenants, examining),
        ),
        _say,
    )


@asynccontextmanager
async def _open_catch_up(settings: Settings, parts: Parts) -> AsyncIterator[CatchUp]:
    """Indexes over links to this machine's snapshots: what is set aside there is nowhere else."""
    from oneton.indexing import open_indexes

    folder = _link_snapshots(settings.index_dir)
    try:
        own = msgspec.structs.replace(settings, index_dir=folder, snapshot_copy=False)
        async with open_indexes(own, parts) as indexes:
            yield indexes.catch_up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link_snapshots(root: Path) -> Path:
    """A folder of our own with what is in `root`, or an empty one where links cannot be."""
    try:
        folder = Path(mkdtemp(prefix=".doctor-", dir=root))
    except OSError:
        return Path(mkdtemp(prefix="oneton-doctor-"))
    for path in root.rglob("*"):
        within = path.relative_to(root)
        if within.parts[0].startswith(".") or path.name.startswith(".") or not path.is_file():
            continue
        target = folder / within
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            # A running server deleted it just now, or the disk knows no links.
            continue
    return folder


@asynccontextmanager
async def _open_repair(
    settings: Settings, parts: Parts, *, accept_lost: bool, lost_at_most: int
) -> AsyncIterator[RepairFindings]:
    from oneton.app import open_verbs
    from oneton.parts import make_sweep
    from oneton.records.audit import Audit
    from oneton.records.examining import Examining
    from oneton.records.requests import Pictures
    from oneton.verbs.reembed_face import ReembedFace
    from oneton.verbs.repair_findings import RepairFindings

    async with open_verbs(settings, parts) as verbs:
        yield RepairFindings(
            faces=parts.faces,
            pictures=Pictures(parts.database),
            examining=Examining(parts.database),
            images=parts.images,
            sweep=make_sweep(parts),
            audit=Audit(parts.database),
            grace=timedelta(seconds=settings.sweep_grace_s),
            folder=settings.index_dir,
            reembed=ReembedFace(
                parts.galleries, parts.faces, parts.images, verbs.load_model, verbs.indexes.cpu
            ),
            accept_lost=accept_lost,
            lost_at_most=lost_at_most,
        )


def _say(what: str) -> None:
    if stderr.is_terminal:
        stderr.print(what.removeprefix("Examine").lower(), "...", style="dim")


def _show(deep: Deep) -> None:
    table = Table("subject", "", "looked at", show_lines=False)
    for each in deep.examined:
        count = len(each.findings)
        mark = f"[red]{count} found[/red]" if count else "[green]well[/green]"
        seen = ", ".join(f"{number} {what}" for what, number in each.looked_at.items())
        table.add_row(each.subject, mark, seen)
    stdout.print(table)
    for subject in deep.examined:
        for finding in subject.findings[:MOST_SHOWN]:
            about = [finding.subject, finding.gallery or "", str(finding.tenant or "")]
            where = " ".join(filter(None, about[:1] if "/" in finding.subject else about))
            print(f"{finding.kind}: {where}: {finding.said} ({REPAIRS[finding.kind]})")
        if len(subject.findings) > MOST_SHOWN:
            print(f"and {len(subject.findings) - MOST_SHOWN} more; --json has all")
    for repair in deep.repairs[:MOST_SHOWN]:
        print(f"{'repaired' if repair.done else 'left'}: {repair.finding.kind}: {repair.said}")
