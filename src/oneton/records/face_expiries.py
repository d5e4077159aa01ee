"""Face records that are to be purged at some time."""

from __future__ import annotations

from datetime import timedelta

from oneton.domain.model import FaceId, TenantId
from oneton.records.database import Database


class FaceExpiries:
    """Outlive a reindex and its rollback, for they are no part of the face's row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, tenant: TenantId, face_id: FaceId, keep: timedelta) -> None:
        """Have a face record purged after some time; the last word counts."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                """insert into face_expiry (face_id, tenant_id, due_at)
                   values ($1, $2, now() + $3)
                   on conflict (face_id) do update set due_at = excluded.due_at""",
                face_id,
                tenant,
                keep,
            )

    async def remove(self, tenant: TenantId, face_id: FaceId) -> None:
        """Have it kept, or forget about it once it is gone."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute("delete from face_expiry where face_id = $1", face_id)

    async def due(self, at_most: int) -> list[tuple[TenantId, FaceId]]:
        """Face records of any tenant whose time is over."""
        rows = await self._database.fetch("select * from oneton_faces_due($1)", at_most)
        return [(TenantId(row["tenant_id"]), FaceId(row["face_id"])) for row in rows]
