"""The first answer to every idempotency key, for whoever asks again on any replica."""

from __future__ import annotations

import asyncio
from time import monotonic

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
    """Keys of one tenant at a time; each is kept for a day."""

    def __init__(self, database: Database, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease_s = lease_s

    async def claim(
        self, tenant: TenantId, key: str, fingerprint: bytes, *, within_s: float = 30.0
    ) -> Answer | None:
        """The answer that the key has; None when the caller is to find it, and `keep` it.

        Args:
            fingerprint: of the call; a key is good for one.
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
                    _CLAIM, tenant, key, fingerprint, self._lease_s, KEPT_HOURS
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

    async def renew(self, tenant: TenantId, key: str) -> None:
        """Say that the caller is still at it."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                "update idempotency set claimed_at = now() where key = $1 and done_at is null", key
            )

    async def keep(self, tenant: TenantId, key: str, answer: Answer) -> None:
        """Put down the answer that everybody gets."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                """update idempotency set done_at = now(), status = $2, headers = $3, body = $4
                   where key = $1""",
                key,
                answer.status,
                msgspec.json.encode(answer.headers).decode(),
                answer.body,
            )

    async def release(self, tenant: TenantId, key: str) -> None:
        """Give a key back without an answer, as when the call may be tried again."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                "delete from idempotency where key = $1 and done_at is null", key
            )


# A key is had by whoever comes first, after a crash, or when it has been kept long enough. One that
# was claimed in the future was so by a clock that was set back, or it would be held for as long.
_CLAIM = """
insert into idempotency as i (tenant_id, key, fingerprint) values ($1, $2, $3)
on conflict (tenant_id, key) do update
  set claimed_at = now(), fingerprint = excluded.fingerprint, done_at = null, status = null,
    headers = null, body = null
  where (i.done_at is null and i.fingerprint = excluded.fingerprint
         and (i.claimed_at < now() - make_interval(secs => $4)
              or i.claimed_at > now() + make_interval(secs => $4)))
     or i.claimed_at < now() - make_interval(hours => $5)
returning true"""
