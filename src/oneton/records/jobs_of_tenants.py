"""Long work of tenants: what was asked for, how far it is, and what came of it."""

from __future__ import annotations

from uuid import UUID

from oneton.domain.errors import NotFoundError
from oneton.domain.model import Job, TenantId
from oneton.records.database import Connection, Database
from oneton.records.galleries import read_job


class JobsOfTenants:
    """Jobs of one tenant at a time; whoever does them finds those of all."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> list[tuple[TenantId, UUID, str]]:
        """Tenant, id and kind of every job that is not over, the oldest first."""
        rows = await self._database.fetch("select * from oneton_jobs_open()")
        return [(TenantId(row["tenant_id"]), row["job_id"], row["kind"]) for row in rows]

    async def read(self, tenant: TenantId, job_id: UUID) -> Job:
        """One job.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow("select * from job where job_id = $1", job_id)
        if row is None:
            raise NotFoundError("job", job_id)
        return read_job(row)

    async def page(self, tenant: TenantId, *, limit: int, before: UUID | None = None) -> list[Job]:
        """A tenant's jobs, the newest first.

        Args:
            before: only those that were put down before this one.
        """
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select * from job where $1::uuid is null or job_id < $1
                   order by job_id desc limit $2""",
                before,
                limit,
            )
        return [read_job(row) for row in rows]

    async def progress(self, connection: Connection, job: Job, done: int) -> None:
        """Count what was done within the transaction that did it; the job is at work.

        The total is never less, for it was counted while more was still coming.
        """
        await connection.execute(
            """update job set state = 'running', why = '', done = done + $2,
                 total = greatest(total, done + $2), updated_at = now()
               where job_id = $1 and ended_at is null""",
            job.job_id,
            done,
        )

    async def wait(self, job: Job, why: str) -> None:
        """Note what a job waits for; it is tried again."""
        async with self._database.transaction(job.tenant_id) as connection:
            await connection.execute(
                """update job set state = 'running', why = $2, updated_at = now()
                   where job_id = $1 and ended_at is null""",
                job.job_id,
                why,
            )

    async def end(self, connection: Connection, job: Job, why: str | None = None) -> bool:
        """End a job within a transaction of its tenant; False when it was over already.

        Args:
            why: it failed; None is done.
        """
        ended = await connection.fetchval(
            """update job set state = case when $2::text is null then 'done' else 'failed' end,
                 why = coalesce($2, ''), total = case when $2 is null then done else total end,
                 updated_at = now(), ended_at = now()
               where job_id = $1 and ended_at is null returning true""",
            job.job_id,
            why,
        )
        return bool(ended)
