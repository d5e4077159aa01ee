"""Face sessions, and the selfies of their results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from oneton.domain.audit import Act, Action
from oneton.domain.errors import NotFoundError
from oneton.domain.face_sessions import FaceSession, SessionId, SessionImage
from oneton.domain.model import TenantId
from oneton.domain.requests import PictureId
from oneton.records.audit import note_act
from oneton.records.database import Database


class FaceSessions:
    """Sessions of one tenant at a time; one of another key, or whose time is over, is unknown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: TenantId, new: FaceSession, now: datetime) -> None:
        """Add a session whose photo is kept already."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                """insert into face_session
                     (session_id, tenant_id, key_id, picture_id, created_at, expires_at)
                   values ($1, $2, $3, $4, $5, $6)""",
                new.session_id,
                tenant,
                new.key_id,
                new.picture_id,
                now,
                new.expires_at,
            )

    async def find(self, tenant: TenantId, key_id: UUID, name: UUID, now: datetime) -> FaceSession:
        """A session by its id, or by the `jti` of its result.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                """select * from face_session
                   where (session_id = $1 or jti = $1) and key_id = $2 and expires_at > $3""",
                name,
                key_id,
                now,
            )
        if row is None:
            raise NotFoundError("session", name)
        return _session(row)

    async def claim(
        self,
        tenant: TenantId,
        key_id: UUID,
        session_id: SessionId,
        max_attempts: int,
        now: datetime,
    ) -> FaceSession | None:
        """Count an attempt, of any number at once; None when none is left or the session is over.

        Raises:
            NotFoundError: there is no such session.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                """update face_session
                   set attempts = attempts + 1, max_attempts = coalesce(max_attempts, $4)
                   where session_id = $1 and key_id = $2 and expires_at > $3
                     and matched is null and attempts < coalesce(max_attempts, $4)
                   returning *""",
                session_id,
                key_id,
                now,
                max_attempts,
            )
        if row is None:
            await self.find(tenant, key_id, session_id, now)
        return None if row is None else _session(row)

    async def give_back(self, tenant: TenantId, session_id: SessionId) -> None:
        """Take back an attempt whose selfie could not be compared."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                """update face_session set attempts = attempts - 1
                   where session_id = $1 and attempts > 0""",
                session_id,
            )

    async def finish(
        self, image: SessionImage, result: str, now: datetime, *, matched: bool
    ) -> bool:
        """Give a session its result and the result its selfie; a match outdoes a mismatch.

        Returns:
            False when the session has another result or its time is over; nothing was written.
        """
        async with self._database.transaction(image.tenant_id) as connection:
            done = await connection.fetchval(
                """update face_session set matched = $2, result = $3, jti = $4
                   where session_id = $1 and expires_at > $5
                     and (matched is null or ($2 and not matched))
                   returning true""",
                image.session_id,
                matched,
                result,
                image.jti,
                now,
            )
            if done:
                await connection.execute(
                    """insert into session_image
                         (picture_id, tenant_id, key_id, session_id, jti, expires_at)
                       values ($1, $2, $3, $4, $5, $6)""",
                    image.picture_id,
                    image.tenant_id,
                    image.key_id,
                    image.session_id,
                    image.jti,
                    image.expires_at,
                )
                details = {"session": image.session_id, "jti": image.jti, "matched": matched}
                act = Act(Action.END_SESSION, details=details)
                await note_act(connection, image.tenant_id, act)
        return bool(done)

    async def image(
        self, tenant: TenantId, key_id: UUID, picture_id: PictureId, now: datetime
    ) -> SessionImage:
        """The selfie of a result, for longer than its session is there.

        Raises:
            NotFoundError: there is none of this id, or its time is over.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                """select * from session_image
                   where picture_id = $1 and key_id = $2 and expires_at > $3""",
                picture_id,
                key_id,
                now,
            )
        if row is None:
            raise NotFoundError("image", picture_id)
        return _image(row)

    async def remove(
        self, tenant: TenantId, key_id: UUID, name: UUID, now: datetime
    ) -> list[PictureId]:
        """Delete a session and what is kept of its result, by its id or the `jti` of its result.

        Returns:
            its pictures, which the caller erases.

        Raises:
            NotFoundError: nothing of it is there.
        """
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(_REMOVE, name, key_id, now)
            if not rows:
                raise NotFoundError("session", name)
            details = {"session": name, "pictures": len(rows)}
            await note_act(connection, tenant, Act(Action.REMOVE_SESSION, details=details))
        return [PictureId(row["picture_id"]) for row in rows]

    async def due(self, now: datetime, at_most: int) -> list[tuple[TenantId, SessionId]]:
        """Sessions of all tenants whose time is over, the longest over first."""
        rows = await self._database.fetch(
            "select * from oneton_face_sessions_due($1, $2)", now, at_most
        )
        return [(TenantId(row["tenant_id"]), SessionId(row["session_id"])) for row in rows]

    async def remove_due(
        self, tenant: TenantId, session_ids: Sequence[SessionId], now: datetime
    ) -> list[PictureId]:
        """Delete sessions whose time is over; returns their photos, which the caller erases.

        What others deleted meanwhile is left out.
        """
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """delete from face_session where session_id = any ($1) and expires_at <= $2
                   returning picture_id""",
                list(session_ids),
                now,
            )
        return [PictureId(row["picture_id"]) for row in rows]


_REMOVE = """
with session as (
  delete from face_session
  where (session_id = $1 or jti = $1) and key_id = $2 and expires_at > $3
  returning session_id, picture_id
), image as (
  delete from session_image
  where key_id = $2 and expires_at > $3
    and (session_id = $1 or jti = $1 or session_id in (select session_id from session))
  returning picture_id
)
select picture_id from session union all select picture_id from image"""


def _session(row: asyncpg.Record) -> FaceSession:
    return FaceSession(
        session_id=SessionId(row["session_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        key_id=row["key_id"],
        picture_id=PictureId(row["picture_id"]),
        attempts=row["attempts"],
        max_attempts=row["max_attempts"],
        result=row["result"],
        expires_at=row["expires_at"],
    )


def _image(row: asyncpg.Record) -> SessionImage:
    return SessionImage(
        picture_id=PictureId(row["picture_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        key_id=row["key_id"],
        session_id=SessionId(row["session_id"]),
        jti=row["jti"],
        expires_at=row["expires_at"],
    )
