"""RSA keys that results are signed with, the same on every replica."""

from __future__ import annotations

from datetime import datetime

from oneton.domain.face_sessions import SigningKey
from oneton.records.database import Database


class SigningKeys:
    """One is in force; those before it stay a while, for what they signed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def published(self, retired_since: datetime) -> list[SigningKey]:
        """The key in force first, then those retired after a moment, the last one first."""
        rows = await self._database.fetch(
            """select * from signing_key where retired_at is null or retired_at > $1
               order by retired_at desc nulls first""",
            retired_since,
        )
        return [
            SigningKey(row["kid"], row["private_pem"], row["created_at"], row["retired_at"])
            for row in rows
        ]

    async def rotate(self, new: SigningKey, forget_before: datetime) -> bool:
        """Retire the key in force for a new one, and delete those retired before a moment.

        Returns:
            False when somebody else did so at the same time, or has put a first one in force;
            the new key is dropped.
        """
        rows = await self._database.fetch(
            _ROTATE, new.kid, new.private_pem, new.created_at, forget_before
        )
        return bool(rows)

    async def add_first(self, new: SigningKey) -> None:
        """Put a key in force unless there is one."""
        await self._database.fetch(_INSERT, new.kid, new.private_pem, new.created_at)


_INSERT = """
insert into signing_key (kid, private_pem, created_at) values ($1, $2, $3)
on conflict do nothing"""
# Counting makes Postgres finish the update before it inserts: only one key may be in force.
_ROTATE = """
with retired as (
  update signing_key set retired_at = greatest($3, created_at) where retired_at is null
  returning kid
), forgotten as (
  delete from signing_key where retired_at < $4
)
insert into signing_key (kid, private_pem, created_at)
select $1, $2, $3 from (select count(*) from retired) as done
on conflict do nothing returning kid"""
