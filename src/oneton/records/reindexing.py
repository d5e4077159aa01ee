"""Runs that re-embed galleries: what is planned, done, and left to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from oneton.domain.audit import Act, Action
from oneton.domain.errors import NotFoundError
from oneton.domain.model import (
    Embedding,
    FaceId,
    FaceNo,
    Gallery,
    TenantId,
)
from oneton.domain.reindexing import (
    BothTemplates,
    NewRun,
    Plan,
    RunState,
    ToEmbed,
    Work,
)
from oneton.records.audit import note_act
from oneton.records.database import Connection, Database
from oneton.records.reindex_steps import WITH_IMAGE, ReindexSteps, left_of, plan_of
from oneton.records.templates import encode_template


class Reindexing:
    """A run belongs to the operator; its galleries' rows to their tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.steps = ReindexSteps(database)

    async def plan(self, gallery: Gallery, to_pack_no: int) -> Plan:
        """Count, and change nothing."""
        async with self._database.transaction(gallery.tenant_id) as connection:
            return await plan_of(connection, gallery, to_pack_no)

    async def insert_run(self, run: NewRun) -> None:
        """Begin a run without galleries."""
        await self._database.fetch(
            """insert into reindex_run (run_id, to_pack_no, state, rate, on_failure, keep_old,
                 started_by) values ($1, $2, 'running', $3, $4, $5, $6)""",
            run.run_id,
            run.to_pack_no,
            run.rate,
            str(run.on_failure),
            run.keep_old,
            run.started_by,
        )

    async def works(self, run_id: UUID | None = None) -> list[Work]:
        """All galleries of all runs, or of one, oldest run first."""
        rows = await self._database.fetch("select * from oneton_reindexing()")
        found = [msgspec.convert(dict(row), Work) for row in rows]
        return [each for each in found if run_id in (None, each.run_id)]

    async def set_run(self, run_id: UUID, state: RunState) -> None:
        """Note what an operator decided, or that there is nothing left to do."""
        ended = state in (RunState.CANCELLED, RunState.FINISHED)
        await self._database.fetch(
            """update reindex_run set state = $2, ended_at = case when $3 then now() end
               where run_id = $1""",
            run_id,
            str(state),
            ended,
        )

    async def hand_out(self, work: Work, limit: int) -> list[FaceNo]:
        """The next faces whose images are to be embedded; none when all were handed out."""
        async with self._database.transaction(work.tenant_id) as connection:
            handed = await connection.fetchval(
                """select handed_head from reindex_gallery
                   where run_id = $1 and gallery_no = $2 and state = 'filling'
                   for update skip locked""",
                work.run_id,
                work.gallery_no,
            )
            # Later faces have their template as a rule; where a process could not make it, not.
            head = await connection.fetchval(
                "select head from gallery where gallery_no = $1", work.gallery_no
            )
            if handed is None or handed >= head:
                return []
            rows = await connection.fetch(
                f"""select f.face_no, f.added_at_head {WITH_IMAGE}
                      and f.added_at_head > $4 and f.added_at_head <= $5
                    order by f.added_at_head limit $6""",
                work.gallery_no,
                work.to_pack_no,
                work.run_id,
                handed,
                head,
                limit,
            )
            reached = rows[-1]["added_at_head"] if len(rows) == limit else head
            await self._hand(connection, work, reached)
        return [FaceNo(row["face_no"]) for row in rows]

    async def left(self, work: Work) -> int:
        """How many images are still to be embedded."""
        async with self._database.transaction(work.tenant_id) as connection:
            return await left_of(connection, work)

    async def hand_out_again(self, work: Work) -> None:
        """Begin anew with what is left, for jobs were lost."""
        async with self._database.transaction(work.tenant_id) as connection:
            await self._hand(connection, work, 0)

    async def still_to_embed(self, work: Work, face_nos: Sequence[FaceNo]) -> list[ToEmbed]:
        """Those of some faces that still lack a template, and have an image."""
        async with self._database.transaction(work.tenant_id) as connection:
            rows = await connection.fetch(
                f"""select f.face_no, f.face_id {WITH_IMAGE} and f.face_no = any ($4)
                    and (select second_pack_no from gallery where gallery_no = $1) = $2
                    order by f.face_no""",  # noqa: S608 - our own text
                work.gallery_no,
                work.to_pack_no,
                work.run_id,
                list(face_nos),
            )
        return [ToEmbed(FaceNo(row["face_no"]), FaceId(row["face_id"])) for row in rows]

    async def store(
        self,
        work: Work,
        embeddings: Mapping[FaceNo, Embedding],
        failures: Mapping[FaceNo, str],
    ) -> int:
        """Keep what a job came to; returns how many templates are new.

        What was purged meanwhile is left out, and everything when the run was cancelled.
        """
        await self._database.seals.prepare(work.tenant_id)
        async with self._database.transaction(work.tenant_id) as connection:
            second = await connection.fetchval(
                "select second_pack_no from gallery where gallery_no = $1 for share",
                work.gallery_no,
            )
            if second != work.to_pack_no:
                return 0
            there = await connection.fetch(
                """select face_no, image_erased_at is null as has_image from face
                   where face_no = any ($1) and removed_at_head is null
                   order by face_no for share""",
                [*embeddings, *failures],
            )
            found = {FaceNo(row["face_no"]): bool(row["has_image"]) for row in there}
            stored = [no for no in embeddings if no in found]
            sealed = await self._database.seals.seal(
                connection, work.tenant_id, [encode_template(embeddings[no]) for no in stored]
            )
            added = await connection.fetch(
                """insert into template (model_pack_no, face_no, tenant_id, embedding)
                   select $1, face_no, $2, embedding
                   from unnest($3::bigint[], $4::bytea[]) as t (face_no, embedding)
                   on conflict do nothing returning face_no""",
                work.to_pack_no,
                work.tenant_id,
                stored,
                sealed,
            )
            # One that was erased meanwhile is no failure.
            failed = [no for no in failures if found.get(no)]
            await connection.execute(
                """insert into reindex_failure (run_id, tenant_id, gallery_no, face_no, reason)
                   select $1, $2, $3, face_no, reason
                   from unnest($4::bigint[], $5::text[]) as t (face_no, reason)
                   on conflict do nothing""",
                work.run_id,
                work.tenant_id,
                work.gallery_no,
                failed,
                [failures[no] for no in failed],
            )
            await connection.execute(
                """update reindex_gallery set embedded = embedded + $3
                   where run_id = $1 and gallery_no = $2""",
                work.run_id,
                work.gallery_no,
                len(added),
            )
        return len(added)

    async def failures(self, work: Work, limit: int) -> list[tuple[FaceId, str]]:
        """Records whose image yielded no face, and why."""
        async with self._database.transaction(work.tenant_id) as connection:
            rows = await connection.fetch(
                """select face_id, reason from reindex_failure join face using (face_no)
                   where run_id = $1 and reindex_failure.gallery_no = $2 and face_id is not null
                   order by face_no limit $3""",
                work.run_id,
                work.gallery_no,
                limit,
            )
        return [(FaceId(row["face_id"]), row["reason"]) for row in rows]

    async def drops(self, work: Work, limit: int) -> list[FaceId]:
        """Records that the cut-over removed."""
        async with self._database.transaction(work.tenant_id) as connection:
            rows = await connection.fetch(
                """select face_id from reindex_drop where run_id = $1 and gallery_no = $2
                   order by face_no limit $3""",
                work.run_id,
                work.gallery_no,
                limit,
            )
        return [FaceId(row["face_id"]) for row in rows]

    async def clean(self, work: Work, pack_no: int, limit: int) -> bool:
        """Delete some templates of a pack that the gallery uses no more; True when all are gone."""
        async with self._database.transaction(work.tenant_id) as connection:
            status = await connection.execute(
                """delete from template where model_pack_no = $2 and face_no in (
                     select t.face_no from face join template t using (face_no)
                     where gallery_no = $1 and t.model_pack_no = $2 limit $3)
                   and not exists (select from gallery where gallery_no = $1
                     and $2 in (model_pack_no, second_pack_no))""",
                work.gallery_no,
                pack_no,
                limit,
            )
            done = int(status.rpartition(" ")[2]) < limit
            if done:
                await connection.execute(
                    """update reindex_gallery set cleaned = true
                       where run_id = $1 and gallery_no = $2""",
                    work.run_id,
                    work.gallery_no,
                )
        return done

    async def sample(self, work: Work, limit: int) -> list[BothTemplates]:
        """Some faces drawn at random, with their templates under the old and the new pack."""
        async with self._database.transaction(work.tenant_id) as connection:
            rows = await connection.fetch(
                """select f.face_no, old.embedding as old, new.embedding as new
                   from face f
                   join template old on old.face_no = f.face_no and old.model_pack_no = $2
                   join template new on new.face_no = f.face_no and new.model_pack_no = $3
                   where f.gallery_no = $1 and f.removed_at_head is null
                   order by random() limit $4""",
                work.gallery_no,
                work.from_pack_no,
                work.to_pack_no,
                limit,
            )
        face_nos = [row["face_no"] for row in rows]
        old = await self._open(work.tenant_id, face_nos, [row["old"] for row in rows])
        new = await self._open(work.tenant_id, face_nos, [row["new"] for row in rows])
        return [BothTemplates(*each) for each in zip(face_nos, old, new, strict=True)]

    async def _open(
        self, tenant: TenantId, face_nos: Sequence[FaceNo], stored: Sequence[bytes]
    ) -> list[bytes]:
        seals = self._database.seals
        return [
            await seals.open(tenant, each, [face_no])
            for face_no, each in zip(face_nos, stored, strict=True)
        ]

    async def purge_dropped(self, tenant: TenantId, face_id: FaceId) -> bool:
        """Remove what is kept of a record that a cut-over removed; False when there is none."""
        async with self._database.transaction(tenant) as connection:
            face_nos = await connection.fetch(
                "delete from reindex_drop where face_id = $1 returning face_no", face_id
            )
            await connection.execute(
                "delete from template where face_no = any ($1)",
                [row["face_no"] for row in face_nos],
            )
            if face_nos:
                await note_act(connection, tenant, Act(Action.PURGE, (face_id,)))
        return bool(face_nos)

    async def run_of(self, run_id: UUID | None) -> UUID:
        """A run's id: the one that is asked for, or the newest.

        Raises:
            NotFoundError: there is none.
        """
        rows = await self._database.fetch(
            """select run_id from reindex_run where $1::uuid is null or run_id = $1
               order by started_at desc limit 1""",
            run_id,
        )
        if not rows:
            raise NotFoundError("reindex run", run_id or "none was started")
        found: UUID = rows[0]["run_id"]
        return found

    async def _hand(self, connection: Connection, work: Work, head: int) -> None:
        await connection.execute(
            "update reindex_gallery set handed_head = $3 where run_id = $1 and gallery_no = $2",
            work.run_id,
            work.gallery_no,
            head,
        )
