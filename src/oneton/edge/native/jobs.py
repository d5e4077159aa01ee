"""Long work that goes on after its call was answered."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from oneton.domain import model
from oneton.domain.model import Permission
from oneton.edge.native.callers import Caller
from oneton.edge.native.cursors import PAGE, Cursor, Limit, decode_id, encode_cursor
from oneton.edge.native.problems import refusals

_LIST = "jobs"


class Job(msgspec.Struct, frozen=True):
    """A job.

    Attributes:
        kind: `delete_gallery`.
        subject: what it is about, such as a gallery's name.
        state: queued, running, done or failed.
        done: of `total`, such as faces.
        why: it failed, or waits and is tried again; else empty.
    """

    job_id: UUID
    kind: str
    subject: str
    state: str
    done: int
    total: int
    why: str
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None


class Jobs(msgspec.Struct, frozen=True):
    """A page of jobs, the newest first; `next_cursor` is null on the last one."""

    items: tuple[Job, ...]
    next_cursor: str | None


@get(
    "/jobs",
    operation_id="nativeListJobs",
    summary="List jobs",
    responses=refusals(),
    permissions=(Permission.READ,),
)
async def list_jobs(
    caller: NamedDependency[Caller], cursor: Cursor = None, limit: Limit = PAGE
) -> Jobs:
    """List your jobs, the newest first; those that are over are kept."""
    before = decode_id(_LIST, cursor)
    found = await caller.verbs.follow_jobs.list(caller.tenant, limit=limit + 1, before=before)
    page = found[:limit]
    following = encode_cursor(_LIST, page[-1].job_id) if len(found) > limit else None
    return Jobs(tuple(shown_job(each) for each in page), following)


@get(
    "/jobs/{job_id:uuid}",
    operation_id="nativeShowJob",
    summary="Show a job",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_job(job_id: FromPath[UUID], caller: NamedDependency[Caller]) -> Job:
    """Show how far a job is."""
    return shown_job(await caller.verbs.follow_jobs.show(caller.tenant, job_id))


def shown_job(job: model.Job) -> Job:
    """A job as it is shown."""
    return Job(**{name: getattr(job, name) for name in Job.__struct_fields__})
