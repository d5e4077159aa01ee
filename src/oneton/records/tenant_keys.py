"""Tenants' data keys: wrapped in Postgres, and opened in memory for seconds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from time import monotonic

import asyncpg
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from oneton.domain.errors import KeyDestroyedError, NotFoundError, SettingError
from oneton.domain.model import TenantId
from oneton.domain.sealing import KEY_BYTES, Cipher, Ring, split_master_keys
from oneton.records.database import Connection, Database

HOLDS_S = 2.0
"""A key that was destroyed opens nothing after so long, on any replica."""
LOOKED_AT = 1000
"""Keys, the newest first, that a start tries the master key on."""
WRONG = "ONETON_MASTER_KEY does not open the tenants' keys of this database"
_NUMBER_BYTES = 4


class Wrapping:
    """Wraps data keys with the newest master key, and unwraps them with any.

    A wrapped key holds whose it is, so that rows cannot be exchanged.
    """

    def __init__(self, master_keys: str) -> None:
        """Take the master keys of a setting.

        Raises:
            SettingError: one is none.
        """
        try:
            keys = split_master_keys(master_keys)
        except ValueError as error:
            raise SettingError(f"ONETON_MASTER_KEY: {error}") from error
        self._newest = Fernet(keys[0])
        self._every = MultiFernet([Fernet(key) for key in keys])

    def wrap(self, tenant: TenantId, number: int, key: bytes) -> bytes:
        """Wrap a data key."""
        return self._newest.encrypt(_owner(tenant, number) + key)

    def unwrap(self, tenant: TenantId, number: int, wrapped: bytes) -> bytes:
        """The data key.

        Raises:
            SettingError: no master key opens it, or it is another's.
        """
        try:
            opened = self._every.decrypt(wrapped)
        except InvalidToken as error:
            raise SettingError(WRONG) from error
        owner = _owner(tenant, number)
        if not opened.startswith(owner) or len(opened) != len(owner) + KEY_BYTES:
            raise SettingError(f"{WRONG}: key {number} of tenant {tenant} is another's")
        return opened[len(owner) :]

    def is_newest(self, wrapped: bytes) -> bool:
        """Whether the newest master key wrapped it."""
        try:
            self._newest.decrypt(wrapped)
        except InvalidToken:
            return False
        return True


class TenantKeys:
    """What `Rings` asks for, and the key in force for whoever writes templates.

    Args:
        holds_s: what Postgres said holds so long.
    """

    def __init__(self, database: Database, wrapping: Wrapping, *, holds_s: float = HOLDS_S) -> None:
        self._database = database
        self._wrapping = wrapping
        self._holds_s = holds_s
        self._seen: dict[TenantId, tuple[float, Ring | None]] = {}

    async def ring(self, tenant: TenantId, *, fresh: bool = False) -> Ring:
        """See `Rings`."""
        ring = None if fresh else self._held(tenant)
        if ring is not None:
            return ring
        async with self._database.transaction(tenant) as connection:
            asked_s = monotonic()
            rows = await _read(connection)
            if not rows:
                await self._make_first(connection, tenant)
        if not rows:
            # Read again, for another process may have been first.
            async with self._database.transaction(tenant) as connection:
                asked_s = monotonic()
                rows = await _read(connection)
        return self._keep(tenant, asked_s, rows)

    async def ring_within(
        self, connection: Connection, tenant: TenantId, *, fresh: bool = False
    ) -> Ring:
        """The same within a transaction of the tenant, which has a key by now."""
        ring = None if fresh else self._held(tenant)
        if ring is not None:
            return ring
        asked_s = monotonic()
        return self._keep(tenant, asked_s, await _read(connection))

    async def in_force(self, connection: Connection, tenant: TenantId) -> Ring:
        """The keys for what a transaction writes; the one in force stays so until it ends.

        Raises:
            KeyDestroyedError: they were destroyed.
        """
        row = await connection.fetchrow("select * from oneton_key_in_force($1)", tenant)
        if row is None:
            raise KeyDestroyedError
        ring = await self.ring_within(connection, tenant)
        if ring.number != row["key_no"]:
            ring = await self.ring_within(connection, tenant, fresh=True)
        return ring

    async def check_open(self, tenant: TenantId) -> None:
        """Raise KeyDestroyedError when the tenant's keys were destroyed."""
        await self.ring(tenant)

    def forget(self, tenant: TenantId) -> None:
        """Ask Postgres again next time."""
        self._seen.pop(tenant, None)

    def new_wrapped(self, tenant: TenantId, number: int) -> bytes:
        """A new data key, wrapped."""
        return self._wrapping.wrap(tenant, number, os.urandom(KEY_BYTES))

    def _held(self, tenant: TenantId) -> Ring | None:
        asked_s, ring = self._seen.get(tenant, (-self._holds_s, None))
        if monotonic() - asked_s >= self._holds_s:
            return None
        if ring is None:
            raise KeyDestroyedError
        return ring

    def _keep(self, tenant: TenantId, asked_s: float, rows: Sequence[asyncpg.Record]) -> Ring:
        if not rows:
            raise NotFoundError("key of tenant", tenant)
        ring = self._ring_of(tenant, rows)
        self._seen[tenant] = (asked_s, ring)
        # Opened keys leave the memory by themselves.
        asyncio.get_running_loop().call_later(self._holds_s, self._let_go, tenant, asked_s)
        if ring is None:
            raise KeyDestroyedError
        return ring

    def _let_go(self, tenant: TenantId, asked_s: float) -> None:
        if self._seen.get(tenant, (0.0, None))[0] <= asked_s:
            self._seen.pop(tenant, None)

    def _ring_of(self, tenant: TenantId, rows: Sequence[asyncpg.Record]) -> Ring | None:
        """None when the keys were destroyed."""
        ciphers: dict[int, Cipher] = {
            row["key_no"]: AESGCM(
                self._wrapping.unwrap(tenant, row["key_no"], bytes(row["wrapped"]))
            )
            for row in rows
            if row["wrapped"] is not None
        }
        in_force = [row["key_no"] for row in rows if row["retired_at"] is None]
        return Ring(tenant, in_force[0], ciphers) if in_force else None

    async def _make_first(self, connection: Connection, tenant: TenantId) -> None:
        try:
            await connection.execute(
                """insert into tenant_key (tenant_id, key_no, wrapped) values ($1, 1, $2)
                   on conflict do nothing""",
                tenant,
                self.new_wrapped(tenant, 1),
            )
        except asyncpg.ForeignKeyViolationError as error:
            raise NotFoundError("tenant", tenant) from error


async def check_master_key(database: Database, wrapping: Wrapping) -> None:
    """Refuse a start that could not open what is there.

    Raises:
        SettingError: the master keys do not open a tenant's key.
    """
    for row in await database.fetch("select * from oneton_wrapped_keys($1)", LOOKED_AT):
        wrapping.unwrap(TenantId(row["tenant_id"]), row["key_no"], bytes(row["wrapped"]))


async def _read(connection: Connection) -> list[asyncpg.Record]:
    return list(await connection.fetch("select * from tenant_key order by key_no"))


def _owner(tenant: TenantId, number: int) -> bytes:
    return tenant.bytes + number.to_bytes(_NUMBER_BYTES, "big")
