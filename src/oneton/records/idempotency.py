"""The first answer to every idempotency key, for whoever asks again on any replica."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from time import monotonic
from uuid import UUID

import msgspec

from oneton.domain.errors import ConflictError, UnavailableError
from oneton.domain.model import TenantId
from oneton.records.database import Database

LEASE_S = 15
"""Whoever claimed a key and was not heard of for so long has crashed; a repeat waits longer."""
KEPT_HOURS = 24
LOOK_S = 0.02
LOOK_AT_MOST_S = 0.2


class Answer(msgspec.Struct, frozen=True):
    """What a call was answered with."""

    status: int
    headers: dict[str, str]
    body: bytes


class Idempotency:
    """Keys of one tenant at a time; each is kept for a day.

    Whoever claims a key names itself as its owner. One that lost its key to another, for it was not
    heard of for too long, changes nothing of it any more.
    """

    def __init__(self, database: Database, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease_s = lease_s

    async def claim(
        self,
        tenant: TenantId,
        key: str,
        fingerprint: bytes,
        owner: UUID,
        *,
        within_s: float = 30.0,
    ) -> Answer | None:
        """The answer that the key has; None when the caller is to find it, and `keep` it.

        Args:
            fingerprint: of the call; a key is good for one.
            owner: of the claim, random.
            within_s: how long to wait for another who is at it.

        Raises:
            ConflictError: the key was used for another call.
            UnavailableError: another is still at it.
        """
        ends_s = monotonic() + within_s
        wait_s = LOOK_S
        while True:
            async with self._database.transaction(tenant) as connection:
                claimed = await connection.fetchval(
                    _CLAIM, tenant, key, fingerprint, self._lease_s, KEPT_HOURS, owner
                )
                if claimed:
                    return None
                row = await connection.fetchrow("select * from idempotency where key = $1", key)
            if row is not None and bytes(row["fingerprint"]) != fingerprint:
                raise ConflictError("the idempotency key was used for another call")
            if row is not None and row["done_at"] is not None:
                headers = msgspec.json.decode(row["headers"], type=dict[str, str])
                return Answer(row["status"], headers, bytes(row["body"]))
            if monotonic() > ends_s:
                raise UnavailableError("a call with this idempotency key is under way")
            await asyncio.sleep(wait_s)
            wait_s = min(LOOK_AT_MOST_S, 1.5 * wait_s)

    async def renew(self, tenant: TenantId, key: str, owner: UUID) -> None:
        """Say that the caller is still at it."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                """update idempotency set claimed_at = now()
                   where key = $1 and owner = $2 and done_at is null""",
                key,
                owner,
            )

    async def keep(self, tenant: TenantId, key: str, owner: UUID, answer: Answer) -> None:
        """Put down the answer that everybody gets."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                """update idempotency set done_at = now(), status = $2, headers = $3, body = $4
                   where key = $1 and owner = $5 and done_at is null""",
                key,
                answer.status,
                msgspec.json.encode(answer.headers).decode(),
                answer.body,
                owner,
            )

    async def count(self, tenant: TenantId, words: Collection[str]) -> int:
        """How many kept answers hold any of these, to the letter."""
        async with self._database.transaction(tenant) as connection:
            return int(await connection.fetchval(f"select count(*) {_HOLDING}", _bytes_of(words)))

    async def forget(self, tenant: TenantId, words: Collection[str]) -> int:
        """Delete the answers that hold any of these, so that their keys are free; how many."""
        async with self._database.transaction(tenant) as connection:
            gone = await connection.fetch(f"delete {_HOLDING} returning 1", _bytes_of(words))
        return len(gone)

    async def release(self, tenant: TenantId, key: str, owner: UUID) -> None:
        """Give a key back without an answer, as when the call may be tried again."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                "delete from idempotency where key = $1 and owner = $2 and done_at is null",
                key,
                owner,
            )


def _bytes_of(words: Collection[str]) -> list[bytes]:
    return [each.encode() for each in words]


# A day's answers of one tenant at most.
_HOLDING = """
from idempotency where done_at is not null
  and exists (select from unnest($1::bytea[]) as word where position(word in body) > 0)"""
# A key is had by whoever comes first, after a crash, or when it has been kept long enough. One that
# was claimed in the future was so by a clock that was set back, or it would be held for as long.
_CLAIM = """
insert into idempotency as i (tenant_id, key, fingerprint, owner) values ($1, $2, $3, $6)
on conflict (tenant_id, key) do update
  set claimed_at = now(), fingerprint = excluded.fingerprint, done_at = null, status = null,
    headers = null, body = null, owner = excluded.owner
  where (i.done_at is null and i.fingerprint = excluded.fingerprint
         and (i.claimed_at < now() - make_interval(secs => $4)
              or i.claimed_at > now() + make_interval(secs => $4)))
     or i.claimed_at < now() - make_interval(hours => $5)
returning true"""
