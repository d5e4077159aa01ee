"""What `oneton snapshot` shows of a snapshot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from oneton.index.inspection import Found

REPLICA = "replica-"
"""How a process that is not the machine's first names its folder."""


class Row(msgspec.Struct, frozen=True):
    """A snapshot as the commands show it; None stands for what cannot be read.

    Attributes:
        state: "kept", "set aside" or "unreadable"; of `verify`, "whole" or "damaged".
        age_s: since it was taken, or since the file was written.
        size_bytes: of its files together; snapshots of one gallery share most of them.
        folder: ONETON_INDEX_DIR, or the `replica-N` in it.
        why: what is wrong with it.
    """

    tenant_id: str
    gallery: str
    model_pack: str | None
    head: int | None
    faces: int | None
    segments: int | None
    size_bytes: int
    age_s: float
    folder: Path
    state: str
    path: Path
    why: str = ""


def make_row(found: Found, state: str = "", why: str = "") -> Row:
    """What the commands show of a snapshot.

    Args:
        state: by default what the manifest file tells.
        why: by default why the manifest cannot be read.
    """
    manifest = found.manifest
    if not state:
        state = "set aside" if found.set_aside else "kept" if manifest else "unreadable"
    taken_at_s = found.written_at_s if manifest is None else manifest.taken_at_s
    return Row(
        tenant_id=found.tenant_id,
        gallery=found.gallery_id,
        model_pack=None if manifest is None else manifest.identity.model_pack,
        head=None if manifest is None else manifest.head,
        faces=None if manifest is None else manifest.faces,
        segments=None if manifest is None else len(manifest.segments),
        size_bytes=found.size_bytes,
        age_s=round(time.time() - taken_at_s, 1),
        folder=found.writer,
        state=state,
        path=found.path,
        why=why or found.why,
    )


def make_tables(rows: list[Row]) -> Iterator[Table]:
    """One table a tenant."""
    for tenant, of_tenant in groupby(rows, key=lambda row: row.tenant_id):
        table = Table(title=f"tenant {escape(tenant)}", box=None, pad_edge=False)
        table.title_justify = "left"
        for name in ("gallery", "pack", "head", "faces", "segments", "size", "age", "folder", ""):
            table.add_column(name, overflow="fold", no_wrap=name not in ("gallery", "pack"))
        for row in of_tenant:
            named = (row.model_pack, row.head, row.faces, row.segments)
            table.add_row(
                escape(row.gallery),
                *("" if value is None else escape(str(value)) for value in named),
                size_text(row.size_bytes),
                _age(row.age_s),
                row.folder.name if row.folder.name.startswith(REPLICA) else ".",
                "" if row.state == "kept" else row.state,
            )
        yield table


def size_text(size_bytes: int) -> str:
    """As the settings write it."""
    power = min(4, max(0, size_bytes.bit_length() - 1) // 10)
    size = size_bytes / 1024**power
    digits = ".0f" if size >= 100 else ".3g"
    return f"{size:{digits}} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _age(age_s: float) -> str:
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60)):
        if age_s >= seconds:
            return f"{age_s / seconds:.1f} {unit}"
    return f"{age_s:.0f} s"
