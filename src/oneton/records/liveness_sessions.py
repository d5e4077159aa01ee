"""Liveness sessions of merchants' users."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg

from oneton.domain.errors import NotFoundError
from oneton.domain.merchants import LivenessSession
from oneton.domain.model import TenantId
from oneton.domain.requests import PictureId
from oneton.records.database import Connection, Database


class LivenessSessions:
    """A session that has ended, or whose time is over, counts as none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, session: LivenessSession) -> None:
        """Open a session; those of the user that are over are deleted.

        Raises:
            NotFoundError: the tenant has no such user.
        """
        async with self._database.transaction(session.tenant_id) as connection:
            found = await connection.fetchrow(
                "select from merchant_user where user_id = $1 for key share", session.user_id
            )
            if found is None:
                raise NotFoundError("user", session.user_id)
            await connection.execute(
                """delete from liveness_session
                   where user_id = $1 and (expires_at < $2 or ended_at is not null)""",
                session.user_id,
                session.created_at,
            )
            await connection.execute(
                """insert into liveness_session
                     (session_id, tenant_id, user_id, created_at, expires_at)
                   values ($1, $2, $3, $4, $5)""",
                session.session_id,
                session.tenant_id,
                session.user_id,
                session.created_at,
                session.expires_at,
            )

    async def find(self, tenant: TenantId, session_id: UUID, at: datetime) -> LivenessSession:
        """A session.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            return await _find(connection, session_id, at)

    async def set_frame(
        self,
        tenant: TenantId,
        session_id: UUID,
        at: datetime,
        frame: tuple[PictureId | None, float | None],
        expires_at: datetime,
    ) -> PictureId | None:
        """Replace a session's frame and its confidence; returns the frame that was.

        Raises:
            NotFoundError: there is no such session any more.
        """
        async with self._database.transaction(tenant) as connection:
            session = await _find(connection, session_id, at, lock=True)
            await connection.execute(
                """update liveness_session set frame_id = $2, confidence = $3, expires_at = $4
                   where session_id = $1""",
                session_id,
                *frame,
                expires_at,
            )
        return session.frame_id

    async def end(self, tenant: TenantId, session_id: UUID, at: datetime) -> LivenessSession:
        """End a session, for one of several callers.

        Raises:
            NotFoundError: there is no such session any more.
        """
        async with self._database.transaction(tenant) as connection:
            session = await _find(connection, session_id, at, lock=True)
            await connection.execute(
                """update liveness_session set ended_at = $2, frame_id = null
                   where session_id = $1""",
                session_id,
                at,
            )
        return session


_FIND = """select * from liveness_session
  where session_id = $1 and ended_at is null and expires_at > $2"""
_FIND_LOCKED = _FIND + " for update"


async def _find(
    connection: Connection, session_id: UUID, at: datetime, *, lock: bool = False
) -> LivenessSession:
    row = await connection.fetchrow(_FIND_LOCKED if lock else _FIND, session_id, at)
    if row is None:
        raise NotFoundError("session", session_id)
    return _session(row)


def _session(row: asyncpg.Record) -> LivenessSession:
    return LivenessSession(
        session_id=row["session_id"],
        tenant_id=TenantId(row["tenant_id"]),
        user_id=row["user_id"],
        frame_id=row["frame_id"],
        confidence=row["confidence"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
