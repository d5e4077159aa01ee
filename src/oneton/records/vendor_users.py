"""Users of a tenant's callers, and the templates that are kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.lists import RetainedTemplate, UserDetails, UserId, VendorUser
from oneton.domain.model import FaceId, FaceSource, TenantId
from oneton.records.audit import note_act
from oneton.records.database import Connection, Database, one_row
from oneton.records.locked_gallery import LockedGallery


class VendorUsers:
    """Users of one tenant at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: TenantId, vendor_data: str, details: UserDetails) -> VendorUser:
        """Add a user.

        Raises:
            ConflictError: the tenant has one of this name.
        """
        try:
            async with self._database.transaction(tenant) as connection:
                row = await one_row(
                    connection,
                    """insert into vendor_user (user_id, tenant_id, vendor_data, details)
                       values ($1, $2, $3, $4) returning *""",
                    uuid7(),
                    tenant,
                    vendor_data,
                    msgspec.json.encode(details).decode(),
                )
                act = Act(Action.CREATE_USER, details={"vendor_user": row["user_id"]})
                await note_act(connection, tenant, act)
                return await _with_sessions(connection, row)
        except asyncpg.UniqueViolationError as error:
            raise ConflictError(f"there is a user {vendor_data} already") from error

    async def find(self, tenant: TenantId, vendor_data: str) -> VendorUser:
        """A user by the caller's name for them.

        Raises:
            NotFoundError: the tenant has none of this name.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                "select * from vendor_user where vendor_data = $1", vendor_data
            )
            if row is None:
                raise NotFoundError("user", vendor_data)
            return await _with_sessions(connection, row)

    async def read(self, tenant: TenantId, user_id: UserId) -> VendorUser:
        """A user by our name for them.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow("select * from vendor_user where user_id = $1", user_id)
            if row is None:
                raise NotFoundError("user", user_id)
            return await _with_sessions(connection, row)

    async def has_sessions(self, tenant: TenantId, vendor_data: str) -> bool:
        """Whether a saved call or a face record is of this name."""
        async with self._database.transaction(tenant) as connection:
            return bool(
                await connection.fetchval(
                    """select exists (select from request
                         where external_id = $1 and dialect = 'didit')
                       or exists (select from face join gallery using (gallery_no)
                         where external_id = $1 and source is not null)""",
                    vendor_data,
                )
            )

    async def ensure(self, tenant: TenantId, names: Sequence[str]) -> dict[str, UserId]:
        """The ids of users by name; those who are not there yet are added."""
        async with self._database.transaction(tenant) as connection:
            wanted = list(dict.fromkeys(names))
            await connection.executemany(
                """insert into vendor_user (user_id, tenant_id, vendor_data)
                   values ($1, $2, $3) on conflict (tenant_id, vendor_data) do nothing""",
                [(uuid7(), tenant, name) for name in wanted],
            )
            rows = await connection.fetch(
                "select * from vendor_user where vendor_data = any ($1)", wanted
            )
        return {row["vendor_data"]: UserId(row["user_id"]) for row in rows}

    async def ids(self, tenant: TenantId, names: Sequence[str]) -> dict[str, UserId]:
        """The ids of users by name, of those who are there."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                "select vendor_data, user_id from vendor_user where vendor_data = any ($1)",
                list(names),
            )
        return {row["vendor_data"]: UserId(row["user_id"]) for row in rows}

    async def remove(self, tenant: TenantId, user_id: UserId) -> None:
        """Delete a user; saved calls and face records of that name stay.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            gone = await connection.fetchval(
                "delete from vendor_user where user_id = $1 returning true", user_id
            )
            if not gone:
                raise NotFoundError("user", user_id)
            act = Act(Action.REMOVE_USER, details={"vendor_user": user_id})
            await note_act(connection, tenant, act)

    async def count_imported(self, tenant: TenantId, vendor_data: str) -> int:
        """How many faces were put on a user's profile."""
        async with self._database.transaction(tenant) as connection:
            return await _count_imported(connection, vendor_data)

    async def count_imported_beside(self, locked: LockedGallery, vendor_data: str) -> int:
        """The same, in the transaction that adds a face record."""
        return await _count_imported(locked.connection, vendor_data)


class RetainedTemplates:
    """Face records of one tenant that outlived their saved calls."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        tenant: TenantId,
        *,
        vendor_data: str = "",
        user_id: UUID | None = None,
        limit: int | None,
        offset: int = 0,
    ) -> list[RetainedTemplate]:
        """Templates, the newest first.

        Args:
            vendor_data: a part of it, in any letter case.
            limit: None is all.
        """
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                f"{_TEMPLATES} order by f.face_id desc limit $4 offset $5",
                str(FaceSource.RETAINED_TEMPLATE),
                vendor_data.lower(),
                user_id,
                limit,
                offset,
            )
        return [_template(row) for row in rows]

    async def count(
        self, tenant: TenantId, *, vendor_data: str = "", user_id: UUID | None = None
    ) -> int:
        """How many there are."""
        async with self._database.transaction(tenant) as connection:
            return int(
                await connection.fetchval(
                    f"select count(*) from ({_TEMPLATES}) as found",  # noqa: S608 - a text of ours
                    str(FaceSource.RETAINED_TEMPLATE),
                    vendor_data.lower(),
                    user_id,
                )
            )

    async def read(self, tenant: TenantId, face_id: FaceId) -> RetainedTemplate:
        """One of them.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                f"{_TEMPLATES} and f.face_id = $4",
                str(FaceSource.RETAINED_TEMPLATE),
                "",
                None,
                face_id,
            )
        if row is None:
            raise NotFoundError("template", face_id)
        return _template(row)


_TEMPLATES = """
select f.face_id, f.external_id, f.created_at, f.image_erased_at, u.user_id, x.due_at
from face f join gallery g using (gallery_no)
left join vendor_user u on u.vendor_data = f.external_id
left join face_expiry x on x.face_id = f.face_id
where f.source = $1 and f.face_id is not null
  and ($2 = '' or position($2 in lower(f.external_id)) > 0)
  and ($3::uuid is null or u.user_id = $3)"""


async def _count_imported(connection: Connection, vendor_data: str) -> int:
    return int(
        await connection.fetchval(
            """select count(*) from face join gallery using (gallery_no)
               where external_id = $1 and source = $2""",
            vendor_data,
            str(FaceSource.IMPORTED),
        )
    )


async def _with_sessions(connection: Connection, row: asyncpg.Record) -> VendorUser:
    states = await connection.fetch(
        """select state, count(*) as sessions, min(created_at) as first, max(created_at) as last
           from request where external_id = $1 and dialect = 'didit' group by state""",
        row["vendor_data"],
    )
    return VendorUser(
        user_id=UserId(row["user_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        vendor_data=row["vendor_data"],
        details=msgspec.json.decode(row["details"], type=UserDetails),
        created_at=row["created_at"],
        sessions={each["state"]: each["sessions"] for each in states},
        first_session_at=min((each["first"] for each in states), default=None),
        last_session_at=max((each["last"] for each in states), default=None),
    )


def _template(row: asyncpg.Record) -> RetainedTemplate:
    return RetainedTemplate(
        face_id=FaceId(row["face_id"]),
        vendor_data=row["external_id"],
        user_id=None if row["user_id"] is None else UserId(row["user_id"]),
        retained_at=row["image_erased_at"] or row["created_at"],
        expires_at=row["due_at"],
    )
