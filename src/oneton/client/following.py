"""The calls about what goes on: saved calls, jobs, runs that re-embed, health."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal
from uuid import UUID

import msgspec

from oneton.client.answers import (
    AuditEvent,
    Health,
    Job,
    Page,
    ReindexRun,
    SavedCall,
    Usage,
    WholeCall,
)
from oneton.client.errors import JobFailedError, JobTimeoutError
from oneton.client.flows import Flow, Wait
from oneton.client.keeping import PAGE
from oneton.client.searching import as_id
from oneton.client.session import Call, Session, path_of, post_call, query_of

ReviewedState = Literal["approved", "declined", "in_review"]
FIRST_LOOK_S = 0.1
LONGEST_LOOK_S = 5.0


class _Runs(msgspec.Struct, frozen=True):
    items: tuple[ReindexRun, ...]


def requests(
    session: Session,
    cursor: str | None,
    *,
    dialect: str | None = None,
    kind: str | None = None,
    state: str | None = None,
    external_id: str | None = None,
    page_size: int = PAGE,
) -> Flow[Page[SavedCall]]:
    """Iterate over the saved calls of every dialect, the newest first."""
    return session.page(
        path_of("requests"),
        SavedCall,
        cursor=cursor,
        limit=page_size,
        dialect=dialect,
        kind=kind,
        state=state,
        external_id=external_id,
    )


def request(session: Session, request_id: UUID | str) -> Flow[WholeCall]:
    """Show a saved call with its answer, links to its pictures, and its reviews."""
    return session.ask(Call("GET", path_of("requests", as_id(request_id))), WholeCall)


def review(
    session: Session,
    request_id: UUID | str,
    state: ReviewedState,
    *,
    comment: str = "",
    idempotency_key: str | None = None,
) -> Flow[WholeCall]:
    """Change a saved call's state; who did, and from what, is kept.

    Raises:
        ConflictError: it is in process.
    """
    path = path_of("requests", as_id(request_id), "review")
    body = {"state": state, "comment": comment}
    return session.ask(post_call(path, body, idempotency_key), WholeCall)


def jobs(session: Session, cursor: str | None, *, page_size: int = PAGE) -> Flow[Page[Job]]:
    """Iterate over your jobs, the newest first; those that are over are kept."""
    return session.page(path_of("jobs"), Job, cursor=cursor, limit=page_size)


def job(session: Session, job_id: UUID | str) -> Flow[Job]:
    """Show how far a job is."""
    return session.ask(Call("GET", path_of("jobs", as_id(job_id))), Job)


def wait_for_job(
    session: Session, job_or_id: Job | UUID | str, *, timeout_s: float = 600.0
) -> Flow[Job]:
    """Wait until a job is done.

    Raises:
        JobFailedError: it failed.
        JobTimeoutError: it is not over in this time; it goes on.
    """
    job_id = job_or_id.job_id if isinstance(job_or_id, Job) else job_or_id
    ends_s = session.clock() + timeout_s
    look_s = FIRST_LOOK_S
    while True:
        found = yield from job(session, job_id)
        if found.state == "failed":
            raise JobFailedError(found)
        if found.is_over:
            return found
        left_s = ends_s - session.clock()
        if left_s <= 0:
            raise JobTimeoutError(found)
        yield Wait(min(look_s, left_s))
        look_s = min(LONGEST_LOOK_S, 1.5 * look_s)


def reindex_runs(session: Session) -> Flow[tuple[ReindexRun, ...]]:
    """The runs that re-embed galleries of yours under another model pack, newest first."""
    return (yield from session.ask(Call("GET", path_of("reindex-runs")), _Runs)).items


def reindex_run(session: Session, run_id: UUID | str) -> Flow[ReindexRun]:
    """Show one run; NotFoundError when no gallery of yours is in it."""
    return session.ask(Call("GET", path_of("reindex-runs", as_id(run_id))), ReindexRun)


def audit(  # noqa: PLR0913 - one for each filter
    session: Session,
    cursor: str | None,
    *,
    face_id: UUID | str | None = None,
    actor: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    page_size: int = PAGE,
) -> Flow[Page[AuditEvent]]:
    """Iterate over who did what to which face, when and from where, the newest first.

    Args:
        since: at this time or after; with a time zone. Likewise `until`, before it.
    """
    return session.page(
        path_of("audit"),
        AuditEvent,
        cursor=cursor,
        limit=page_size,
        face_id=None if face_id is None else str(as_id(face_id)),
        actor=actor,
        action=action,
        since=None if since is None else since.isoformat(),
        until=None if until is None else until.isoformat(),
    )


def usage(session: Session, *, since: date | None = None, until: date | None = None) -> Flow[Usage]:
    """Your calls from one day to another, both included, by UTC; without `since`, of 30 days."""
    days = {"from": since, "to": until}
    query = query_of(**{name: day.isoformat() for name, day in days.items() if day is not None})
    return session.ask(Call("GET", path_of("usage"), query), Usage)


def health(session: Session) -> Flow[Health]:
    """Whether the server can do its work; one that cannot is an answer here, and no error."""
    return session.ask(Call("GET", "/readyz", also=(503,)), Health)
