"""Saved calls and pictures whose time is over."""

from __future__ import annotations

import msgspec

from oneton.domain.model import TenantId, TenantOptions
from oneton.domain.requests import PictureId, RequestId, StoredPicture
from oneton.records.audit import note
from oneton.records.database import Database, one_row
from oneton.records.idempotency import KEPT_HOURS
from oneton.records.requests import read_picture

ACTOR = "retention"


class Due(msgspec.Struct):
    """What of a tenant ought to be erased."""

    pictures: list[PictureId] = msgspec.field(default_factory=list)
    requests: list[RequestId] = msgspec.field(default_factory=list)


class Erased(msgspec.Struct, frozen=True):
    """What was.

    Attributes:
        pictures: with those of the requests; the caller deletes their objects.
    """

    pictures: tuple[StoredPicture, ...]
    requests: tuple[RequestId, ...]


class NowDue(msgspec.Struct, frozen=True):
    """How much is due, once a tenant's retention was changed."""

    pictures: int
    requests: int


class Retention:
    """Finds what is due of all tenants, by ids only, and erases it tenant by tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, at_most: int) -> dict[TenantId, Due]:
        """What is due by now, by tenant: so many pictures and so many requests at most."""
        found: dict[TenantId, Due] = {}
        for row in await self._database.fetch("select * from oneton_due($1)", at_most):
            due = found.setdefault(TenantId(row["tenant_id"]), Due())
            if row["what"] == "picture":
                due.pictures.append(PictureId(row["id"]))
            else:
                due.requests.append(RequestId(row["id"]))
        return found

    async def erase(self, tenant: TenantId, due: Due) -> Erased:
        """Delete rows, and write it down, all or nothing; what is not due any more stays."""
        async with self._database.transaction(tenant) as connection:
            # Locked first: a picture that is saved for one of them meanwhile would go unseen.
            requests = await connection.fetch(
                """select request_id from request
                   where request_id = any ($1) and due_at <= now() for update""",
                due.requests,
            )
            request_ids = [RequestId(row["request_id"]) for row in requests]
            pictures = await connection.fetch(
                """delete from picture where request_id = any ($2)
                     or (picture_id = any ($1) and due_at <= now()) returning *""",
                due.pictures,
                request_ids,
            )
            # Of this dialect a call's face goes with it; its purge is another chore.
            await connection.execute(
                """insert into face_expiry (face_id, tenant_id, due_at)
                   select face_id, tenant_id, now() from request
                   where request_id = any ($1) and dialect = 'didit' and face_id is not null
                   on conflict (face_id) do update set due_at = now()""",
                request_ids,
            )
            await connection.execute("delete from request where request_id = any ($1)", request_ids)
            erased = Erased(tuple(read_picture(row) for row in pictures), tuple(request_ids))
            if erased.pictures or erased.requests:
                details = {
                    "pictures": [each.picture_id for each in erased.pictures],
                    "requests": erased.requests,
                }
                await note(connection, tenant, ACTOR, "erase due", details)
        return erased

    async def forget_answers(self) -> int:
        """Delete the answers to idempotency keys that are too old to be asked for again."""
        rows = await self._database.fetch("select oneton_forget_answers($1) as gone", KEPT_HOURS)
        return int(rows[0]["gone"])

    async def change(
        self, tenant: TenantId, options: TenantOptions, actor: str, *, keep: bool = True
    ) -> NowDue:
        """Set a tenant's retention, for what is kept already too.

        An option that is None leaves the dates of what is kept as they are.

        Args:
            keep: False only says what would be due.
        """
        async with self._database.transaction(tenant) as connection:
            changing = connection.transaction()
            await changing.start()
            await connection.execute(
                "update tenant set options = $1", msgspec.json.encode(options).decode()
            )
            # A picture may be older than the request that it is of, and goes by the younger one.
            # Those of no request are a session's or an upload's, which have their own time.
            await connection.execute(
                """update picture p set due_at = greatest(p.created_at, r.created_at)
                     + make_interval(days => $1)
                   from request r where r.request_id = p.request_id and $1::integer is not null""",
                options.image_days,
            )
            await connection.execute(
                """update request set due_at = created_at + make_interval(days => $1)
                   where $1::integer is not null""",
                options.result_days,
            )
            row = await one_row(connection, _NOW_DUE)
            if not keep:
                await changing.rollback()
            else:
                await changing.commit()
                details = {"image_days": options.image_days, "result_days": options.result_days}
                await note(connection, tenant, actor, "tenant retention", details)
        return NowDue(row["pictures"], row["requests"])


_NOW_DUE = """
select (select count(*) from request where due_at <= now()) as requests,
  (select count(*) from picture p left join request r using (request_id)
   where p.due_at <= now() or r.due_at <= now()) as pictures"""
