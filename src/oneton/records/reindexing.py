"""Runs that re-embed galleries: what is planned, done, and left to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import (
    Embedding,
    FaceId,
    FaceNo,
    Gallery,
    SecondPack,
    TenantId,
)
from oneton.domain.reindexing import (
    BothTemplates,
    GalleryState,
    NewRun,
    OnFailure,
    Plan,
    RunState,
    ToEmbed,
    Work,
)
from oneton.records.database import Connection, Database, one_row
from oneton.records.galleries import lock_gallery, move_head
from oneton.records.templates import encode_template

_KEPT = (SecondPack.KEPT, SecondPack.KEPT_PARTLY)
_LACKING = """
  from face f left join template t on t.face_no = f.face_no and t.model_pack_no = $2
  where f.gallery_no = $1 and f.removed_at_head is null and t.face_no is null"""
_WITH_IMAGE = f"""{_LACKING} and f.image_erased_at is null
  and not exists (select from reindex_failure r where r.run_id = $3 and r.face_no = f.face_no)"""


class Reindexing:
    """A run belongs to the operator; its galleries' rows to their tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def plan(self, gallery: Gallery, to_pack_no: int) -> Plan:
        """Count, and change nothing."""
        async with self._database.transaction(gallery.tenant_id) as connection:
            return await _plan(connection, gallery, to_pack_no)

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

    async def begin(self, gallery: Gallery, run: NewRun) -> Plan:
        """Let a gallery's new faces be embedded under both packs from now on.

        Raises:
            ConflictError: it is being re-embedded already, or has this pack.
        """
        async with self._database.transaction(gallery.tenant_id) as connection:
            locked = await lock_gallery(connection, gallery)
            if locked.second_pack_no is not None:
                raise ConflictError(f"gallery {gallery.gallery_id} is in a run already")
            if locked.model_pack_no == run.to_pack_no:
                raise ConflictError(f"gallery {gallery.gallery_id} has this model pack already")
            plan = await _plan(connection, locked, run.to_pack_no)
            await connection.execute(
                """insert into reindex_gallery (run_id, tenant_id, gallery_no, from_pack_no, state,
                     start_head, to_embed, to_drop)
                   values ($1, $2, $3, $4, 'filling', $5, $6, $7)""",
                run.run_id,
                locked.tenant_id,
                locked.gallery_no,
                locked.model_pack_no,
                locked.head,
                plan.to_embed,
                plan.to_drop,
            )
            await _set_packs(
                connection, locked, locked.model_pack_no, run.to_pack_no, SecondPack.FILLING
            )
        return plan

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
                f"""select f.face_no, f.added_at_head {_WITH_IMAGE}
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
            return await _left(connection, work)

    async def hand_out_again(self, work: Work) -> None:
        """Begin anew with what is left, for jobs were lost."""
        async with self._database.transaction(work.tenant_id) as connection:
            await self._hand(connection, work, 0)

    async def still_to_embed(self, work: Work, face_nos: Sequence[FaceNo]) -> list[ToEmbed]:
        """Those of some faces that still lack a template, and have an image."""
        async with self._database.transaction(work.tenant_id) as connection:
            rows = await connection.fetch(
                f"""select f.face_no, f.face_id {_WITH_IMAGE} and f.face_no = any ($4)
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
            added = await connection.fetch(
                """insert into template (model_pack_no, face_no, tenant_id, embedding)
                   select $1, face_no, $2, embedding
                   from unnest($3::bigint[], $4::bytea[]) as t (face_no, embedding)
                   on conflict do nothing returning face_no""",
                work.to_pack_no,
                work.tenant_id,
                stored,
                [encode_template(embeddings[no]) for no in stored],
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

    async def stop(self, work: Work, why: str) -> None:
        """Wait for an operator."""
        async with self._database.transaction(work.tenant_id) as connection:
            await connection.execute(
                """update reindex_gallery set state = 'stopped', why = $3
                   where run_id = $1 and gallery_no = $2 and state in ('filling', 'filled')""",
                work.run_id,
                work.gallery_no,
                why,
            )

    async def go_on(self, work: Work, on_failure: OnFailure | None) -> None:
        """Go on with a gallery that was stopped; failures are tried again under `stop`."""
        async with self._database.transaction(work.tenant_id) as connection:
            if on_failure is not None:
                await connection.execute(
                    "update reindex_run set on_failure = $2 where run_id = $1",
                    work.run_id,
                    str(on_failure),
                )
            if (on_failure or work.on_failure) is OnFailure.STOP:
                await connection.execute(
                    "delete from reindex_failure where run_id = $1 and gallery_no = $2",
                    work.run_id,
                    work.gallery_no,
                )
            await connection.execute(
                """update reindex_gallery set state = 'filling', handed_head = 0, why = ''
                   where run_id = $1 and gallery_no = $2 and state = 'stopped'""",
                work.run_id,
                work.gallery_no,
            )

    async def fill(self, gallery: Gallery, work: Work) -> bool:
        """Note that every face that will stay has its template; False when one lacks it."""
        async with self._database.transaction(work.tenant_id) as connection:
            locked = await lock_gallery(connection, gallery)
            if locked.second_pack_no != work.to_pack_no or await _left(connection, work):
                return False
            await _set_packs(
                connection, locked, locked.model_pack_no, work.to_pack_no, SecondPack.FILLED
            )
            await connection.execute(
                """update gallery set fills = fills + 1, second_fill = fills + 1
                   where gallery_no = $1""",
                work.gallery_no,
            )
            await _set_state(connection, work, GalleryState.FILLED, "filled_at")
        return True

    async def note_agreement(self, work: Work, compared: int, agreed: int) -> None:
        """Keep how well the packs agree on who is whose nearest neighbour."""
        async with self._database.transaction(work.tenant_id) as connection:
            await connection.execute(
                """update reindex_gallery set compared = $3, agreed = $4
                   where run_id = $1 and gallery_no = $2""",
                work.run_id,
                work.gallery_no,
                compared,
                agreed,
            )

    async def cut_over(self, gallery: Gallery, work: Work) -> int | None:
        """Let the new pack answer; returns how many records were removed, None when it may not.

        Records without a template and without an image are removed here, at a head each, so that
        every index hears of it. Their old templates stay for a rollback.
        """
        async with self._database.transaction(work.tenant_id) as connection:
            locked = await lock_gallery(connection, gallery)
            if locked.second is not SecondPack.FILLED or locked.second_pack_no != work.to_pack_no:
                return None
            if await _left(connection, work):
                return None
            dropped = await connection.fetch(
                f"""with gone as (
                      select f.*, row_number() over (order by f.face_no) + $3 as at {_LACKING}
                        and f.image_erased_at is not null),
                    kept as (
                      insert into reindex_drop (run_id, tenant_id, gallery_no, face_no, face_id,
                        image_content_type, image_erased_at, idempotency_key, created_at,
                        external_id, metadata, source, request_id)
                      select $4, tenant_id, gallery_no, face_no, face_id, image_content_type,
                        image_erased_at, idempotency_key, created_at,
                        external_id, metadata, source, request_id from gone)
                    update face set removed_at_head = gone.at, face_id = null,
                      image_content_type = null, image_erased_at = null, idempotency_key = null,
                      created_at = null, external_id = null, metadata = null, source = null,
                      request_id = null
                    from gone where face.face_no = gone.face_no returning face.face_no""",  # noqa: S608
                work.gallery_no,
                work.to_pack_no,
                locked.head,
                work.run_id,
            )
            locked = await _move_head_by(connection, locked, len(dropped))
            await _set_packs(
                connection, locked, work.to_pack_no, work.from_pack_no, SecondPack.KEPT
            )
            await connection.execute(
                "update reindex_gallery set dropped = $3 where run_id = $1 and gallery_no = $2",
                work.run_id,
                work.gallery_no,
                len(dropped),
            )
            await _swap_fills(connection, work)
            await _set_state(connection, work, GalleryState.KEPT, "cut_over_at")
        return len(dropped)

    async def roll_back(self, gallery: Gallery, work: Work) -> int:
        """Let the old pack answer again; returns how many removed records came back.

        Raises:
            ConflictError: the gallery is not cut over, or its old templates are gone.
        """
        async with self._database.transaction(work.tenant_id) as connection:
            locked = await lock_gallery(connection, gallery)
            if locked.second not in _KEPT or locked.second_pack_no != work.from_pack_no:
                raise ConflictError(
                    f"gallery {gallery.gallery_id} cannot be rolled back: it is {work.state}"
                )
            back = await connection.fetch(
                """insert into face (tenant_id, gallery_no, added_at_head, face_id,
                     image_content_type, image_erased_at, idempotency_key, created_at,
                     external_id, metadata, source, request_id)
                   select tenant_id, gallery_no, $3 + row_number() over (order by face_no), face_id,
                     image_content_type, image_erased_at,
                     case when exists (select from face f where f.gallery_no = $2
                       and f.idempotency_key = d.idempotency_key) then null
                       else idempotency_key end,
                     created_at, external_id, metadata, source, request_id
                   from reindex_drop d where run_id = $1 and gallery_no = $2
                   returning face_no, face_id""",
                work.run_id,
                work.gallery_no,
                locked.head,
            )
            # A row's number is its place in the log: the face comes back as a new one of its name.
            await connection.execute(
                """insert into template (model_pack_no, face_no, tenant_id, embedding)
                   select t.model_pack_no, b.face_no, t.tenant_id, t.embedding
                   from unnest($1::bigint[], $2::uuid[]) as b (face_no, face_id)
                   join reindex_drop d on d.face_id = b.face_id and d.run_id = $3
                   join template t on t.face_no = d.face_no and t.model_pack_no = $4""",
                [row["face_no"] for row in back],
                [row["face_id"] for row in back],
                work.run_id,
                work.from_pack_no,
            )
            await _forget_drops(connection, work)
            locked = await _move_head_by(connection, locked, len(back))
            await _set_packs(connection, locked, work.from_pack_no, None, None)
            await _swap_fills(connection, work)
            await _set_state(connection, work, GalleryState.ROLLED_BACK, "ended_at")
        return len(back)

    async def end(self, gallery: Gallery, work: Work, state: GalleryState) -> None:
        """Use one pack only from now on: the old one after a cancel, the new one once finished."""
        async with self._database.transaction(work.tenant_id) as connection:
            locked = await lock_gallery(connection, gallery)
            expected = (
                _KEPT if state is GalleryState.FINISHED else (SecondPack.FILLING, SecondPack.FILLED)
            )
            if locked.second not in expected:
                raise ConflictError(f"gallery {gallery.gallery_id} cannot be {state} any more")
            await _forget_drops(connection, work)
            await _set_packs(connection, locked, locked.model_pack_no, None, None)
            await _set_state(connection, work, state, "ended_at")

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
        return [BothTemplates(FaceNo(row["face_no"]), row["old"], row["new"]) for row in rows]

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


async def _plan(connection: Connection, gallery: Gallery, to_pack_no: int) -> Plan:
    row = await one_row(
        connection,
        """select count(*) as faces, count(t.face_no) as done,
             count(*) filter (where t.face_no is null and image_erased_at is null) as to_embed,
             count(*) filter (where t.face_no is null and image_erased_at is not null) as to_drop
           from face f left join template t on t.face_no = f.face_no and t.model_pack_no = $2
           where gallery_no = $1 and removed_at_head is null""",
        gallery.gallery_no,
        to_pack_no,
    )
    return Plan(row["faces"], row["to_embed"], row["to_drop"], row["done"])


async def _left(connection: Connection, work: Work) -> int:
    row = await one_row(
        connection,
        f"select count(*) as left {_WITH_IMAGE}",
        work.gallery_no,
        work.to_pack_no,
        work.run_id,
    )
    return int(row["left"])


async def _set_packs(
    connection: Connection,
    gallery: Gallery,
    model_pack_no: int,
    second_pack_no: int | None,
    second: SecondPack | None,
) -> None:
    """Change a locked gallery's packs, and tell every replica at the commit."""
    await connection.execute(
        """with changed as (
             update gallery set model_pack_no = $2, second_pack_no = $3, second = $4
             where gallery_no = $1)
           select pg_notify('oneton_head', $5)""",
        gallery.gallery_no,
        model_pack_no,
        second_pack_no,
        None if second is None else str(second),
        f"{gallery.tenant_id} {gallery.gallery_id}",
    )


async def _swap_fills(connection: Connection, work: Work) -> None:
    await connection.execute(
        """update gallery set model_fill = second_fill, second_fill = model_fill
           where gallery_no = $1""",
        work.gallery_no,
    )


async def _set_state(connection: Connection, work: Work, state: GalleryState, when: str) -> None:
    await connection.execute(
        f"""update reindex_gallery set state = $3, {when} = now()
            where run_id = $1 and gallery_no = $2""",  # noqa: S608 - a column of ours
        work.run_id,
        work.gallery_no,
        str(state),
    )


async def _move_head_by(connection: Connection, gallery: Gallery, steps: int) -> Gallery:
    if not steps:
        return gallery
    there = msgspec.structs.replace(gallery, head=gallery.head + steps - 1)
    return msgspec.structs.replace(gallery, head=await move_head(connection, there))


async def _forget_drops(connection: Connection, work: Work) -> None:
    await connection.execute(
        """with forgotten as (
             delete from reindex_drop where run_id = $1 and gallery_no = $2 returning face_no)
           delete from template where face_no in (select face_no from forgotten)""",
        work.run_id,
        work.gallery_no,
    )
