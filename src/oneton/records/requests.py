"""Saved calls, their pictures and their reviews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import asyncpg
from uuid_utils.compat import uuid7

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import FaceId, Score, TenantId
from oneton.domain.requests import (
    NOTHING,
    NewEvent,
    NewRequest,
    PictureId,
    RequestFilter,
    RequestId,
    RequestState,
    Review,
    SavedRequest,
    StoredPicture,
)
from oneton.records.audit import note_act
from oneton.records.database import Connection, Database, one_row, read_json, write_json
from oneton.records.outbox import put_events

EventsOf = Callable[[SavedRequest], Sequence[NewEvent]]
"""What webhooks are told of a request, by the request as it is saved."""


class Requests:
    """Saved calls of one tenant at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self,
        tenant: TenantId,
        new: NewRequest,
        pictures: Sequence[StoredPicture] = (),
        events: Sequence[NewEvent] | EventsOf = (),
    ) -> SavedRequest:
        """Add a request, its pictures and what webhooks are told of it, all or nothing.

        Args:
            pictures: which the object store has already.
            events: or what makes them, where they tell the request's number or time.

        Raises:
            ConflictError: there is one of this id.
        """
        async with self._database.transaction(tenant) as connection:
            return await insert_request(connection, tenant, new, pictures, events)

    async def read(self, tenant: TenantId, request_id: RequestId) -> SavedRequest:
        """A request and its pictures.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        return await self._read(tenant, "request_id = $1", request_id)

    async def read_public(self, tenant: TenantId, public_id: str) -> SavedRequest:
        """The same, by its other name.

        Raises:
            NotFoundError: the tenant has none of this name.
        """
        return await self._read(tenant, "public_id = $1", public_id)

    async def by_numbers(
        self, tenant: TenantId, numbers: Sequence[int] | None, *, dialect: str
    ) -> list[SavedRequest]:
        """Requests of a dialect by number, without their pictures; None is all of them."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select * from request
                   where dialect = $2 and ($1::bigint[] is null or number = any ($1))
                   order by number""",
                None if numbers is None else list(numbers),
                dialect,
            )
        return [_request(row, ()) for row in rows]

    async def page(
        self,
        tenant: TenantId,
        which: RequestFilter,
        *,
        limit: int,
        offset: int = 0,
        before: int | None = None,
    ) -> list[SavedRequest]:
        """Requests and their pictures, the newest first.

        Args:
            before: only those of a smaller number.
        """
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                f"""select * from request where {_FILTER} and ($5::bigint is null or number < $5)
                    order by number desc limit $6 offset $7""",  # noqa: S608 - a text of ours
                *_filter_arguments(which),
                before,
                limit,
                offset,
            )
            found = await _pictures_of(connection, tenant, [row["request_id"] for row in rows])
        return [_request(row, found.get(row["request_id"], ())) for row in rows]

    async def count(self, tenant: TenantId, which: RequestFilter) -> int:
        """How many there are."""
        async with self._database.transaction(tenant) as connection:
            return int(
                await connection.fetchval(
                    f"select count(*) from request where {_FILTER}",  # noqa: S608
                    *_filter_arguments(which),
                )
            )

    async def review(
        self,
        tenant: TenantId,
        request_id: RequestId,
        state: RequestState,
        *,
        actor: str,
        comment: str = "",
        events: Sequence[NewEvent] | EventsOf = (),
    ) -> SavedRequest:
        """Change a request's state, and keep in mind who did.

        Args:
            events: are told only when the state is another one than before.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            before = await connection.fetchval(
                "select state from request where request_id = $1 for update", request_id
            )
            if before is None:
                raise NotFoundError("request", request_id)
            row = await one_row(
                connection,
                """update request set state = $2, updated_at = now()
                   where request_id = $1 returning *""",
                request_id,
                str(state),
            )
            await connection.execute(
                """insert into request_review
                     (tenant_id, request_id, state_before, state, actor, comment)
                   values ($1, $2, $3, $4, $5, $6)""",
                tenant,
                request_id,
                before,
                str(state),
                actor,
                comment,
            )
            found = await _pictures_of(connection, tenant, [request_id])
            saved = _request(row, found.get(request_id, ()))
            if before != state:
                told = events(saved) if callable(events) else events
                await put_events(connection, tenant, told, request_id)
            details = {"request": request_id, "before": before, "state": state}
            await note_act(connection, tenant, _act(Action.REVIEW_REQUEST, saved, details))
        return saved

    async def reviews(self, tenant: TenantId, request_id: RequestId) -> list[Review]:
        """What reviewers did to a request, oldest first."""
        return (await self.reviews_of(tenant, [request_id])).get(request_id, [])

    async def reviews_of(
        self, tenant: TenantId, request_ids: Sequence[RequestId]
    ) -> dict[RequestId, list[Review]]:
        """What reviewers did to each of some requests, oldest first; those without are left out."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                "select * from request_review where request_id = any ($1) order by review_no",
                list(request_ids),
            )
        found: dict[RequestId, list[Review]] = {}
        for row in rows:
            review = _review(row)
            found.setdefault(review.request_id, []).append(review)
        return found

    async def remove(self, tenant: TenantId, request_id: RequestId) -> SavedRequest:
        """Delete a request and the rows of its pictures, whose objects the caller deletes.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            found = await _pictures_of(connection, tenant, [request_id])
            row = await connection.fetchrow(
                "delete from request where request_id = $1 returning *", request_id
            )
            if row is None:
                raise NotFoundError("request", request_id)
            gone = _request(row, found.get(request_id, ()))
            details = {"request": request_id, "pictures": len(gone.pictures)}
            await note_act(connection, tenant, _act(Action.REMOVE_REQUEST, gone, details))
        return gone

    async def _read(self, tenant: TenantId, where: str, value: object) -> SavedRequest:
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(f"select * from request where {where}", value)  # noqa: S608
            if row is None:
                raise NotFoundError("request", value)
            found = await _pictures_of(connection, tenant, [row["request_id"]])
        return _request(row, found.get(row["request_id"], ()))


class Pictures:
    """Rows of pictures that are of no face record; their bytes are in the object store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, picture: StoredPicture, keep: timedelta | None) -> None:
        """Name a picture that the object store has already, to be erased after some time."""
        async with self._database.transaction(picture.tenant_id) as connection:
            await _insert_pictures(connection, None, keep, [picture])

    async def find(self, tenant: TenantId, picture_id: PictureId) -> StoredPicture:
        """A picture of a tenant.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                "select * from picture where picture_id = $1", picture_id
            )
        if row is None:
            raise NotFoundError("picture", picture_id)
        return read_picture(row)

    async def remove(
        self, tenant: TenantId, picture_ids: Sequence[PictureId]
    ) -> list[StoredPicture]:
        """Delete rows; returns those that were there, whose objects the caller deletes."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                "delete from picture where picture_id = any ($1) returning *", list(picture_ids)
            )
        return [read_picture(row) for row in rows]

    async def page(
        self, tenant: TenantId, after: PictureId | None, limit: int
    ) -> list[StoredPicture]:
        """Pictures of a tenant in order of id, the first `limit` after `after`."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select * from picture where $1::uuid is null or picture_id > $1
                   order by picture_id limit $2""",
                after,
                limit,
            )
        return [read_picture(row) for row in rows]


async def insert_request(
    connection: Connection,
    tenant: TenantId,
    new: NewRequest,
    pictures: Sequence[StoredPicture] = (),
    events: Sequence[NewEvent] | EventsOf = (),
) -> SavedRequest:
    """As `Requests.insert`, within a transaction of the tenant that soon commits."""
    try:
        row = await one_row(connection, _INSERT, *_arguments(tenant, new))
    except asyncpg.UniqueViolationError as error:
        raise ConflictError(f"there is a request {new.request_id} already") from error
    await _insert_pictures(connection, new.request_id, new.keep_images, pictures)
    if not callable(events):
        await put_events(connection, tenant, events, new.request_id)
    # Last, for the row stays locked until the commit.
    number = await connection.fetchval(
        "update tenant set requests = requests + 1 returning requests"
    )
    await connection.execute(
        "update request set number = $2 where request_id = $1", new.request_id, number
    )
    saved = _request(row, pictures, number)
    if callable(events):
        await put_events(connection, tenant, events(saved), new.request_id)
    return saved


def _act(action: Action, request: SavedRequest, details: dict[str, object]) -> Act:
    faces = () if request.face_id is None else (request.face_id,)
    said = {"dialect": request.dialect, "kind": request.kind}
    return Act(action, faces, details=details | said)


def _review(row: asyncpg.Record) -> Review:
    return Review(
        request_id=RequestId(row["request_id"]),
        state_before=RequestState(row["state_before"]),
        state=RequestState(row["state"]),
        actor=row["actor"],
        comment=row["comment"],
        at=row["at"],
    )


def new_picture(tenant: TenantId, content_type: str, name: str = "") -> StoredPicture:
    """A picture's row-to-be, with an id of its own."""
    return StoredPicture(PictureId(uuid7()), tenant, content_type, name)


_INSERT = """
insert into request (request_id, tenant_id, public_id, dialect, kind, state, score,
  external_id, metadata, asked, result, face_id, due_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now() + $13::interval) returning *"""
_FILTER = """($1::text is null or dialect = $1) and ($2::text is null or kind = $2)
  and ($3::text is null or state = $3) and ($4::text is null or external_id = $4)"""


def _arguments(tenant: TenantId, new: NewRequest) -> tuple[object, ...]:
    return (
        new.request_id,
        tenant,
        new.public_id or str(new.request_id),
        new.dialect,
        new.kind,
        str(new.state),
        new.score,
        new.external_id,
        write_json(new.metadata),
        write_json(new.asked),
        write_json(new.result),
        new.face_id,
        new.keep,
    )


def _filter_arguments(which: RequestFilter) -> tuple[object, ...]:
    state = None if which.state is None else str(which.state)
    return (which.dialect, which.kind, state, which.external_id)


async def _insert_pictures(
    connection: Connection,
    request_id: RequestId | None,
    keep: timedelta | None,
    pictures: Sequence[StoredPicture],
) -> None:
    if pictures:
        await connection.executemany(
            """insert into picture (picture_id, tenant_id, content_type, name, request_id, due_at)
               values ($1, $2, $3, $4, $5, now() + $6::interval)""",
            [
                (each.picture_id, each.tenant_id, each.content_type, each.name, request_id, keep)
                for each in pictures
            ],
        )


async def _pictures_of(
    connection: Connection, tenant: TenantId, request_ids: Sequence[RequestId]
) -> dict[RequestId, tuple[StoredPicture, ...]]:
    rows = await connection.fetch(
        "select * from picture where tenant_id = $2 and request_id = any ($1) order by picture_id",
        list(request_ids),
        tenant,
    )
    found: dict[RequestId, tuple[StoredPicture, ...]] = {}
    for row in rows:
        found[row["request_id"]] = (*found.get(row["request_id"], ()), read_picture(row))
    return found


def read_picture(row: asyncpg.Record) -> StoredPicture:
    """A picture of its row."""
    return StoredPicture(
        picture_id=PictureId(row["picture_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        content_type=row["content_type"],
        name=row["name"],
    )


def _request(
    row: asyncpg.Record, pictures: Sequence[StoredPicture], number: int | None = None
) -> SavedRequest:
    return SavedRequest(
        request_id=RequestId(row["request_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        number=row["number"] if number is None else number,
        public_id=row["public_id"],
        dialect=row["dialect"],
        kind=row["kind"],
        state=RequestState(row["state"]),
        score=None if row["score"] is None else Score(row["score"]),
        external_id=row["external_id"],
        metadata=read_json(row["metadata"]),
        asked=read_json(row["asked"]) or NOTHING,
        result=read_json(row["result"]) or NOTHING,
        face_id=None if row["face_id"] is None else FaceId(row["face_id"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        due_at=row["due_at"],
        pictures=tuple(pictures),
    )
