"""Merchants' users and the uploads of their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.merchants import MerchantUser, NewUser, Purpose, Refusal, Upload
from oneton.domain.model import TenantId
from oneton.domain.requests import PictureId
from oneton.records.audit import note, note_act
from oneton.records.database import Connection, Database


class MerchantUsers:
    """A picture that is overdue counts as gone, whether it was swept already or not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: TenantId, user_id: str, new: NewUser) -> None:
        """Register a user.

        Raises:
            ConflictError: the tenant has a user with this email or external id.
        """
        try:
            async with self._database.transaction(tenant) as connection:
                await connection.execute(
                    """insert into merchant_user
                         (user_id, tenant_id, name, email, phone, external_id)
                       values ($1, $2, $3, $4, $5, $6)""",
                    user_id,
                    tenant,
                    new.name,
                    new.email,
                    new.phone,
                    new.external_id,
                )
                act = Act(Action.CREATE_USER, details={"merchant_user": user_id})
                await note_act(connection, tenant, act)
        except asyncpg.UniqueViolationError as error:
            raise ConflictError("there is a user with this email or externalId") from error

    async def find(self, tenant: TenantId, user_id: str) -> MerchantUser:
        """A user of a tenant.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            return await _find(connection, user_id)

    async def delete(self, tenant: TenantId, user_id: str, actor: str) -> list[PictureId]:
        """Delete a user with uploads and sessions; returns the pictures that are to be erased.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            user = await _find(connection, user_id, lock=True)
            frames = await connection.fetch(
                "select frame_id from liveness_session where user_id = $1", user_id
            )
            await connection.execute("delete from merchant_user where user_id = $1", user_id)
            await note(connection, tenant, actor, "merchant user deleted", {"user": user_id})
        ids = [user.source_id, user.target_id, *(row["frame_id"] for row in frames)]
        return [each for each in ids if each is not None]

    async def take_target(self, tenant: TenantId, user_id: str) -> PictureId | None:
        """Take away the picture that waits to be compared: of several callers, one gets it."""
        async with self._database.transaction(tenant) as connection:
            user = await _find(connection, user_id, lock=True)
            await connection.execute(
                "update merchant_user set target_id = null where user_id = $1", user_id
            )
        return user.target_id

    async def put_back_target(self, tenant: TenantId, user_id: str, picture_id: PictureId) -> None:
        """Undo `take_target`, unless there is a newer picture."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                """update merchant_user set target_id = $2
                   where user_id = $1 and target_id is null""",
                user_id,
                picture_id,
            )


class Uploads:
    """Uploads that were asked for, until some time after they have expired."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, upload: Upload) -> Refusal | None:
        """Add an upload; one for a source takes the place of an earlier one.

        Raises:
            NotFoundError: the tenant has no such user.
        """
        async with self._database.transaction(upload.tenant_id) as connection:
            user = await _find(connection, upload.user_id, lock=True)
            is_source = upload.purpose is Purpose.SOURCE
            if is_source and user.source_id is not None:
                return Refusal.ALREADY_PROCESSED
            await connection.execute(
                """delete from upload where user_id = $1 and (expires_at < $2
                     or ($3 and purpose = 'upload'))""",
                upload.user_id,
                upload.created_at,
                is_source,
            )
            await connection.execute(
                """insert into upload (upload_id, tenant_id, user_id, purpose, image_name,
                     content_type, created_at, expires_at)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)""",
                upload.upload_id,
                upload.tenant_id,
                upload.user_id,
                str(upload.purpose),
                upload.image_name,
                upload.content_type,
                upload.created_at,
                upload.expires_at,
            )
        return None

    async def find(self, tenant: TenantId, upload_id: UUID) -> Upload | None:
        """An upload; None when a newer one has taken its place, or its user is gone."""
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow("select * from upload where upload_id = $1", upload_id)
        return None if row is None else _upload(row)

    async def use(
        self, upload: Upload, picture_id: PictureId, at: datetime
    ) -> Sequence[PictureId] | Refusal:
        """Give a user the picture that came; of several callers with one upload, one may.

        Returns:
            the pictures that this one takes the place of.
        """
        async with self._database.transaction(upload.tenant_id) as connection:
            # The user first, as everybody locks.
            try:
                user = await _find(connection, upload.user_id, lock=True)
            except NotFoundError:
                return Refusal.LINK_INVALID
            row = await connection.fetchrow(
                "select used_at from upload where upload_id = $1 for update", upload.upload_id
            )
            if row is None:
                return Refusal.LINK_INVALID
            if row["used_at"] is not None:
                return Refusal.LINK_USED
            await connection.execute(
                "update upload set used_at = $2 where upload_id = $1", upload.upload_id, at
            )
            if upload.purpose is Purpose.TARGET:
                await connection.execute(
                    "update merchant_user set target_id = $2 where user_id = $1",
                    upload.user_id,
                    picture_id,
                )
                return [] if user.target_id is None else [user.target_id]
            assert user.source_id is None
            await connection.execute(
                "update merchant_user set source_id = $2 where user_id = $1",
                upload.user_id,
                picture_id,
            )
            # It was kept for a while only, lest a crash before this leaves it for ever.
            await connection.execute(
                "update picture set due_at = null where picture_id = $1", picture_id
            )
            return []


_FIND = """select u.user_id, u.tenant_id, s.picture_id as source_id, t.picture_id as target_id
  from merchant_user u
  left join picture s on s.picture_id = u.source_id
  left join picture t on t.picture_id = u.target_id and t.due_at > now()
  where u.user_id = $1"""
_FIND_LOCKED = _FIND + " for update of u"


async def _find(connection: Connection, user_id: str, *, lock: bool = False) -> MerchantUser:
    row = await connection.fetchrow(_FIND_LOCKED if lock else _FIND, user_id)
    if row is None:
        raise NotFoundError("user", user_id)
    return MerchantUser(
        user_id=row["user_id"],
        tenant_id=TenantId(row["tenant_id"]),
        source_id=row["source_id"],
        target_id=row["target_id"],
    )


def _upload(row: asyncpg.Record) -> Upload:
    return Upload(
        upload_id=row["upload_id"],
        tenant_id=TenantId(row["tenant_id"]),
        user_id=row["user_id"],
        purpose=Purpose(row["purpose"]),
        image_name=row["image_name"],
        content_type=row["content_type"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )
