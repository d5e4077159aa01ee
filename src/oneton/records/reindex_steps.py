"""The steps of a gallery through a run that re-embeds it, each one transaction under its lock."""

from __future__ import annotations

from uuid import UUID

import msgspec

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError
from oneton.domain.model import Gallery, SecondPack
from oneton.domain.reindexing import GalleryState, NewRun, OnFailure, Plan, Work
from oneton.records.audit import note_act
from oneton.records.database import Connection, Database, one_row
from oneton.records.galleries import lock_gallery, move_head

_KEPT = (SecondPack.KEPT, SecondPack.KEPT_PARTLY)
LACKING = """
  from face f left join template t on t.face_no = f.face_no and t.model_pack_no = $2
  where f.gallery_no = $1 and f.removed_at_head is null and t.face_no is null"""
WITH_IMAGE = f"""{LACKING} and f.image_erased_at is null
  and not exists (select from reindex_failure r where r.run_id = $3 and r.face_no = f.face_no)"""


class ReindexSteps:
    """What changes a gallery's packs; a step that has no place any more is refused."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
            plan = await plan_of(connection, locked, run.to_pack_no)
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
            await _note(connection, locked, run.run_id, "begin", plan.to_drop)
        return plan

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
            if locked.second_pack_no != work.to_pack_no or await left_of(connection, work):
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
            if await left_of(connection, work):
                return None
            dropped = await connection.fetch(
                f"""with gone as (
                      select f.*, row_number() over (order by f.face_no) + $3 as at {LACKING}
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
            await _note(connection, locked, work.run_id, "cut over", len(dropped))
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
            await self._database.seals.keep_key(connection, work.tenant_id)
            # What comes back was the tenant's before: it counts, and no quota refuses it.
            await connection.execute("select set_config('oneton.beyond_quota', 'on', true)")
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
            await _note(connection, locked, work.run_id, "roll back", len(back))
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
            await _note(connection, locked, work.run_id, str(state))


async def _note(
    connection: Connection, gallery: Gallery, run_id: UUID, step: str, records: int | None = None
) -> None:
    """Write a step down.

    Args:
        records: that go, went or came back without an image.
    """
    details = {"run": run_id, "step": step, "records": records}
    act = Act(Action.REINDEX_GALLERY, (), gallery.gallery_id, details)
    await note_act(connection, gallery.tenant_id, act)


async def plan_of(connection: Connection, gallery: Gallery, to_pack_no: int) -> Plan:
    """Count what a run would do with a gallery."""
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


async def left_of(connection: Connection, work: Work) -> int:
    """How many faces with an image still lack the new template."""
    row = await one_row(
        connection,
        f"select count(*) as left {WITH_IMAGE}",
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
