"""Galleries that were deleted, and what is left of them."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from oneton.domain.errors import UnavailableError
from oneton.domain.model import FaceId, FaceNo, Job
from oneton.records.audit import note
from oneton.records.database import Database
from oneton.records.jobs_of_tenants import JobsOfTenants

ACTOR = "delete_gallery"
_ERASE = "select oneton_erase_gallery($1, $2, $3)"


class DoomedFace(msgspec.Struct, frozen=True):
    """A face's row in a deleted gallery.

    Attributes:
        added_at_head: gives the order.
        face_id: None of a record that was removed before.
        has_image: in the object store.
    """

    face_no: FaceNo
    added_at_head: int
    face_id: FaceId | None
    has_image: bool


class Deletion:
    """What a job that empties a gallery does to rows; each step may be done again."""

    def __init__(self, database: Database, jobs: JobsOfTenants) -> None:
        self._database = database
        self._jobs = jobs

    async def page(self, job: Job, after_head: int, limit: int) -> list[DoomedFace]:
        """The oldest rows that were added after a head."""
        async with self._database.transaction(job.tenant_id) as connection:
            rows = await connection.fetch(
                """select face_no, added_at_head, face_id,
                     face_id is not null and image_erased_at is null as has_image
                   from face where gallery_no = $1 and added_at_head > $2
                   order by added_at_head limit $3""",
                job.subject_no,
                after_head,
                limit,
            )
        return [DoomedFace(**dict(row)) for row in rows]

    async def erase(self, job: Job, face_nos: Sequence[FaceNo]) -> None:
        """Delete rows with all that hangs on them, and count those of face records as done.

        Whoever does the same at once waits, finds them gone, and counts none.

        Raises:
            UnavailableError: a template was written meanwhile; try again.
        """
        try:
            async with self._database.transaction(job.tenant_id) as connection:
                found = await connection.fetch(
                    """select face_id from face where gallery_no = $1 and face_no = any ($2)
                       order by face_no for update""",
                    job.subject_no,
                    face_nos,
                )
                await connection.execute(_ERASE, job.tenant_id, job.subject_no, face_nos)
                counted = sum(row["face_id"] is not None for row in found)
                await self._jobs.progress(connection, job, counted)
        except asyncpg.ForeignKeyViolationError as error:
            raise UnavailableError(f"gallery {job.subject} is still being written to") from error

    async def end(self, job: Job) -> bool:
        """Delete the row of an empty gallery and end the job; False when it was over already."""
        async with self._database.transaction(job.tenant_id) as connection:
            # It is gone already when the last rows took it with them.
            await connection.execute(_ERASE, job.tenant_id, job.subject_no, [])
            ended = await self._jobs.end(connection, job)
            if ended:
                faces = await connection.fetchval(
                    "select done from job where job_id = $1", job.job_id
                )
                details = {"gallery": job.subject, "job": job.job_id, "faces": faces}
                await note(connection, job.tenant_id, ACTOR, "gallery deleted", details)
        return ended
