"""Searches of one gallery while a client enrolls and another removes, both as fast as they can.

Sealing, merging and snapshots go on all the time, for the limits are tiny. Every search is judged
afterwards against the full product over the faces that Postgres had at its head. Prints how long
searches took before and meanwhile, and ends with 1 when one of them was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from _bench_stress_clients import PACK, Stress, hold
from _bench_stress_oracle import NEVER, Search, Truth, Verdict, judge
from numpy.typing import NDArray

from oneton.domain.model import DEFAULT_GALLERY, Gallery
from oneton.index.segmented import SegmentedIndex
from oneton.records.database import Database
from oneton.records.embedded import EmbeddedPostgres
from oneton.records.galleries import Galleries
from oneton.records.migrate import migrate
from oneton.records.model_packs import ModelPacks
from oneton.records.tenants import Tenants


class Report(msgspec.Struct, frozen=True):
    """What a run showed.

    Attributes:
        idle: searches before the clients began.
        busy: searches while they were at work.
        reopened: faces of an index that begins with the last snapshot.
        unlike: faces that it has and Postgres not, or the other way round.
    """

    idle: list[Search]
    busy: list[Search]
    truth: Truth
    done: Counter[str]
    verdict: Verdict
    reopened: int
    unlike: int

    @property
    def removed(self) -> int:
        """Faces that are gone."""
        return int((self.truth.removed < NEVER).sum())

    def lines(self) -> list[str]:
        """For people."""
        idle, busy = _percentiles(self.idle, "all"), _percentiles(self.busy, "all")
        judged = ", ".join(f"{count:,} {kind}" for kind, count in self.verdict.judged.items())
        return [
            f"faces: {len(self.truth.added):,} enrolled, {self.removed:,} of them removed; "
            + ", ".join(f"{count:,} {what}" for what, count in sorted(self.done.items())),
            f"idle: {len(self.idle):,} searches, {_shown(self.idle)}",
            f"busy: {len(self.busy):,} searches, {_shown(self.busy)}",
            f"busy p95 is {busy[1] / idle[1]:.2f} times idle p95",
            f"judged: {judged}; {self.verdict.mates:,} faces found by another photo;"
            f" {self.verdict.short} answers to others were not the best there is",
            f"opened again: {self.reopened:,} faces, {self.unlike} not as in Postgres",
            f"wrong answers: {len(self.verdict.wrong)}",
            *self.verdict.wrong[:20],
        ]


async def run_stress(
    database: Database, owner_dsn: str, folder: Path, *, faces: int, idle_s: float, busy_s: float
) -> Report:
    """Measure a gallery of so many faces, first idle, then busy."""
    pack_no = await ModelPacks(database).number(PACK)
    tenant = await Tenants(database).create("stress", DEFAULT_GALLERY, pack_no)
    gallery = await Galleries(database).read(tenant.tenant_id, DEFAULT_GALLERY)
    stress = Stress(database, gallery, seed=faces)
    await stress.fill(owner_dsn, faces)
    with hold(database, folder) as holder:
        await holder.catch_up(tenant.tenant_id, DEFAULT_GALLERY)
        await holder.keep_up.once()
        idle = await stress.search_for(holder, idle_s)
        busy = await stress.disturb(holder, busy_s)
        await holder.catch_up(tenant.tenant_id, DEFAULT_GALLERY)
        await holder.keep_up.close()
        await holder.catch_up.close()
    truth = await read_truth(database, gallery, stress.templates)
    with hold(database, folder) as again:
        index = (await again.catch_up(tenant.tenant_id, DEFAULT_GALLERY)).index
        from_snapshot = again.catch_up.held()[0].snapshot_head == index.head
    unlike = faces_of(index) ^ set(truth.face_nos[truth.removed == NEVER].tolist())
    return Report(
        idle=idle,
        busy=busy,
        truth=truth,
        done=holder.done,
        verdict=judge(stress.searches, truth),
        reopened=len(index) if from_snapshot else 0,
        unlike=len(unlike),
    )


async def read_truth(
    database: Database, gallery: Gallery, templates: dict[int, NDArray[np.float16]]
) -> Truth:
    """What Postgres says of all faces, of which the templates are known by head."""
    async with database.transaction(gallery.tenant_id) as connection:
        rows = await connection.fetch(
            """select face_no, added_at_head, coalesce(removed_at_head, $2) as removed from face
               where gallery_no = $1 order by added_at_head""",
            gallery.gallery_no,
            NEVER,
        )
    added = [row["added_at_head"] for row in rows]
    assert added == sorted(templates), "what was acknowledged is there, and nothing else"
    return Truth(
        face_nos=np.array([row["face_no"] for row in rows], dtype=np.int64),
        added=np.array(added, dtype=np.int64),
        removed=np.array([row["removed"] for row in rows], dtype=np.int64),
        templates=np.stack([templates[head] for head in added]),
    )


def faces_of(index: SegmentedIndex) -> set[int]:
    """The face numbers that an index ranks."""
    tail = index.view.tail.face_nos[: index.view.tail.size]
    parts = [part.segment.face_nos[part.alive] for part in index.view.parts]
    return set(np.concatenate([tail[tail >= 0], *parts]).tolist())


def _percentiles(searches: Sequence[Search], stage: str) -> list[float]:
    """p50 and p95 in milliseconds."""
    took_ms = [each.stages_ms.get(stage, 0.0) for each in searches]
    return [float(each) for each in np.percentile(took_ms, (50, 95))]


def _shown(searches: Sequence[Search]) -> str:
    """p50 and p95 as a whole, and of every stage."""
    stages = {"all": "", "head": "head ", "catch_up": "changes ", "search": "index "}
    each = {name: _percentiles(searches, stage) for stage, name in stages.items()}
    (p50, p95), *parts = each.values()
    names = [*stages.values()][1:]
    of_parts = "; ".join(
        f"{name}{low:.2f} and {high:.2f}" for name, (low, high) in zip(names, parts, strict=True)
    )
    return f"p50 {p50:.2f} ms, p95 {p95:.2f} ms ({of_parts})"


async def _measure(folder: Path, asked: argparse.Namespace) -> Report:
    server = EmbeddedPostgres(folder / "postgres")
    try:
        await server.create_database()
        await migrate(server.owner_dsn)
        database = await Database.connect(server.app_dsn, size=6)
        try:
            return await run_stress(
                database,
                server.owner_dsn,
                folder / "snapshots",
                faces=asked.faces,
                idle_s=asked.idle,
                busy_s=asked.seconds,
            )
        finally:
            await database.close()
    finally:
        server.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="of searching while disturbed")
    parser.add_argument("--idle", type=float, default=30, help="seconds of searching before that")
    parser.add_argument("--faces", type=int, default=20_000, help="in the gallery at first")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        report = asyncio.run(_measure(Path(name), asked))
    print("\n".join(report.lines()))
    sys.exit(bool(report.verdict.wrong or report.unlike or not report.reopened))


if __name__ == "__main__":
    main()
