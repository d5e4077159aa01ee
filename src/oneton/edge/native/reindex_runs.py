"""Runs that re-embed a tenant's galleries, as the tenant may see them."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from oneton.domain.model import Permission, Reembedding
from oneton.edge.native.callers import Caller
from oneton.edge.native.problems import refusals


class ReindexedGallery(msgspec.Struct, frozen=True):
    """One gallery in a run.

    Attributes:
        state: filling, stopped, filled, kept (cut over, and can be rolled back), finished,
            cancelled or rolled_back.
        failed: images that yield no face under the new pack.
        to_drop: records without an image when the run began.
        dropped: of them removed at the cut-over.
    """

    gallery: str
    from_pack: str
    state: str
    embedded: int
    to_embed: int
    failed: int
    to_drop: int
    dropped: int | None
    started_at: datetime
    filled_at: datetime | None
    cut_over_at: datetime | None
    ended_at: datetime | None


class ReindexRun(msgspec.Struct, frozen=True):
    """A run, with the caller's galleries in it.

    Attributes:
        state: running, paused, cancelled or finished.
    """

    run_id: UUID
    to_pack: str
    state: str
    galleries: tuple[ReindexedGallery, ...]


class ReindexRuns(msgspec.Struct, frozen=True):
    """All runs, the newest first."""

    items: tuple[ReindexRun, ...]


@get(
    "/reindex-runs",
    operation_id="listReindexRuns",
    summary="List re-embedding runs",
    responses=refusals(),
    permissions=(Permission.READ,),
)
async def list_reindex_runs(caller: NamedDependency[Caller]) -> ReindexRuns:
    """List the runs that re-embed galleries of yours under another model pack, newest first."""
    return ReindexRuns(_runs(await caller.verbs.follow_reindex(caller.tenant)))


@get(
    "/reindex-runs/{run_id:uuid}",
    operation_id="showReindexRun",
    summary="Show a re-embedding run",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_reindex_run(run_id: FromPath[UUID], caller: NamedDependency[Caller]) -> ReindexRun:
    """Show one run; 404 when no gallery of yours is in it."""
    found = await caller.verbs.follow_reindex(caller.tenant, run_id)
    return _runs(found)[0]


def _runs(found: list[Reembedding]) -> tuple[ReindexRun, ...]:
    runs = []
    for run_id, group in groupby(found, key=lambda each: each.run_id):
        works = list(group)
        runs.append(
            ReindexRun(
                run_id=run_id,
                to_pack=works[0].to_pack,
                state=works[0].run_state,
                galleries=tuple(_gallery(each) for each in works),
            )
        )
    return tuple(reversed(runs))


def _gallery(each: Reembedding) -> ReindexedGallery:
    return ReindexedGallery(
        gallery=each.gallery_id,
        from_pack=each.from_pack,
        state=each.state,
        embedded=each.embedded,
        to_embed=each.to_embed,
        failed=each.failed,
        to_drop=each.to_drop,
        dropped=each.dropped,
        started_at=each.started_at,
        filled_at=each.filled_at,
        cut_over_at=each.cut_over_at,
        ended_at=each.ended_at,
    )
