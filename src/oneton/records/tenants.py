"""Tenants and their API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.addresses import read_network
from oneton.domain.audit import Act
from oneton.domain.errors import ConflictError, NotFoundError, OutOfCreditError
from oneton.domain.model import (
    DEFAULT_NEW_GALLERY,
    GalleryId,
    Key,
    NewGallery,
    Permission,
    Tenant,
    TenantId,
    TenantOptions,
)
from oneton.records.audit import note_act
from oneton.records.database import Database, one_row
from oneton.records.galleries import insert_gallery


class Tenants:
    """The customers; only their operator sees more than one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        gallery: GalleryId,
        model_pack_no: int,
        new: NewGallery = DEFAULT_NEW_GALLERY,
    ) -> Tenant:
        """Add a tenant and its first gallery.

        Raises:
            ConflictError: the name is taken.
        """
        tenant = TenantId(uuid7())
        try:
            async with self._database.transaction(tenant) as connection:
                row = await one_row(
                    connection,
                    "insert into tenant (tenant_id, name) values ($1, $2) returning *",
                    tenant,
                    name,
                )
                await insert_gallery(connection, tenant, gallery, model_pack_no, new)
        except asyncpg.UniqueViolationError as error:
            raise ConflictError(f"there is a tenant named {name} already") from error
        return _tenant(row)

    async def list(self) -> list[Tenant]:
        """All tenants, oldest first."""
        return [
            _tenant(row) for row in await self._database.fetch("select * from oneton_tenants()")
        ]

    async def read(self, tenant: TenantId) -> Tenant:
        """One tenant.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow("select * from tenant")
        if row is None:
            raise NotFoundError("tenant", tenant)
        return _tenant(row)

    async def by_public_id(self, public_id: str) -> Tenant:
        """The tenant that dialects call so.

        Raises:
            NotFoundError: there is none.
        """
        rows = await self._database.fetch("select * from oneton_tenant_by_public_id($1)", public_id)
        if not rows:
            raise NotFoundError("tenant", public_id)
        return _tenant(rows[0])

    async def set_options(self, tenant: TenantId, options: TenantOptions) -> None:
        """Replace what a tenant has set."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                "update tenant set options = $1", msgspec.json.encode(options).decode()
            )

    async def suspend(self, tenant: TenantId, *, suspended: bool) -> bool:
        """Refuse all calls of a tenant, or no more; False when that was so already.

        Raises:
            ConflictError: it is being deleted.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                "select suspended_at, deleted_at from tenant for no key update"
            )
            if row is None:
                raise NotFoundError("tenant", tenant)
            if row["deleted_at"] is not None:
                raise ConflictError("the tenant is being deleted")
            if (row["suspended_at"] is not None) == suspended:
                return False
            await connection.execute(
                "update tenant set suspended_at = case when $1 then now() end", suspended
            )
            action = "tenant suspended" if suspended else "tenant resumed"
            await note_act(connection, tenant, Act(action))
        return True

    async def set_credits(self, tenant: TenantId, balance: int | None) -> None:
        """Set how many calls may still be made; None is without end."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute("update tenant set credits = $1", balance)

    async def spend(self, tenant: TenantId, amount: int = 1) -> None:
        """Take credits off a balance; a negative amount gives them back.

        Raises:
            OutOfCreditError: there are fewer.
        """
        async with self._database.transaction(tenant) as connection:
            done = await connection.execute(
                "update tenant set credits = credits - $1 where credits is null or credits >= $1",
                amount,
            )
        if done == "UPDATE 0":
            raise OutOfCreditError

    async def named(self, name: str) -> Tenant:
        """The tenant of this name.

        Raises:
            NotFoundError: there is none.
        """
        for tenant in await self.list():
            if tenant.name == name:
                return tenant
        raise NotFoundError("tenant", name)


class KnownKey(msgspec.Struct, frozen=True):
    """A key, and what every call with it depends on.

    Attributes:
        suspended: its tenant is, or is being deleted.
        most_requests_a_day: of its tenant.
    """

    key: Key
    secret_sha256: bytes
    suspended: bool
    most_requests_a_day: int | None


class Keys:
    """API keys; of a secret only its SHA-256 is kept, for it is 256 random bits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: TenantId,
        secret_sha256: bytes,
        *,
        label: str,
        permissions: Sequence[Permission],
        sandbox: bool = False,
        expires_at: datetime | None = None,
        addresses: Sequence[str] = (),
    ) -> Key:
        """Add a key.

        Args:
            addresses: each one of an address, or of a network.
        """
        async with self._database.transaction(tenant) as connection:
            row = await one_row(
                connection,
                """insert into api_key (key_id, tenant_id, label, secret_sha256, permissions,
                     sandbox, expires_at, addresses)
                   values ($1, $2, $3, $4, $5, $6, $7, $8) returning *""",
                uuid7(),
                tenant,
                label,
                secret_sha256,
                [str(permission) for permission in permissions],
                sandbox,
                expires_at,
                [read_network(each) for each in addresses],
            )
            key = _key(row)
            details = {
                "key": key.key_id,
                "label": label,
                "permissions": key.permissions,
                "expires_at": expires_at,
                "addresses": key.addresses,
            }
            await note_act(connection, tenant, Act("key created", details=details))
        return key

    async def list(self, tenant: TenantId) -> list[Key]:
        """A tenant's keys, oldest first."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch("select * from api_key order by created_at, key_id")
        return [_key(row) for row in rows]

    async def revoke(self, tenant: TenantId, key_id: UUID) -> None:
        """End a key, for good; again is no error.

        Raises:
            NotFoundError: the tenant has no such key.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                "select revoked_at from api_key where key_id = $1 for update", key_id
            )
            if row is None:
                raise NotFoundError("key", key_id)
            if row["revoked_at"] is not None:
                return
            await connection.execute(
                "update api_key set revoked_at = now() where key_id = $1", key_id
            )
            await note_act(connection, tenant, Act("key revoked", details={"key": key_id}))

    async def find_secret(self, secret_sha256: bytes) -> KnownKey:
        """The key of any tenant that has this secret.

        Raises:
            NotFoundError: there is none.
        """
        rows = await self._database.fetch("select * from oneton_key_by_secret($1)", secret_sha256)
        if not rows:
            raise NotFoundError("key", "of this secret")
        return _known_key(rows[0])

    async def find(self, key_id: UUID) -> KnownKey:
        """A key of any tenant.

        Raises:
            NotFoundError: there is none.
        """
        rows = await self._database.fetch("select * from oneton_key($1)", key_id)
        if not rows:
            raise NotFoundError("key", key_id)
        return _known_key(rows[0])

    async def signing_secret(self, purpose: str, fresh: bytes) -> bytes:
        """The secret that every replica signs with; `fresh` becomes it when there is none."""
        await self._database.fetch(
            "insert into signing_secret (purpose, secret) values ($1, $2) on conflict do nothing",
            purpose,
            fresh,
        )
        rows = await self._database.fetch(
            "select secret from signing_secret where purpose = $1", purpose
        )
        return bytes(rows[0]["secret"])


def _tenant(row: asyncpg.Record) -> Tenant:
    return Tenant(
        tenant_id=TenantId(row["tenant_id"]),
        name=row["name"],
        created_at=row["created_at"],
        public_id=row["public_id"],
        credits=row["credits"],
        options=msgspec.json.decode(row["options"], type=TenantOptions),
        suspended_at=row["suspended_at"],
        deleted_at=row["deleted_at"],
        most_requests_a_day=row["most_requests_a_day"],
    )


def _key(row: asyncpg.Record) -> Key:
    return Key(
        key_id=row["key_id"],
        tenant_id=TenantId(row["tenant_id"]),
        label=row["label"],
        permissions=tuple(Permission(permission) for permission in row["permissions"]),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        sandbox=row["sandbox"],
        expires_at=row["expires_at"],
        addresses=tuple(str(each) for each in row["addresses"]),
    )


def _known_key(row: asyncpg.Record) -> KnownKey:
    return KnownKey(
        key=_key(row),
        secret_sha256=bytes(row["secret_sha256"]),
        suspended=row["suspended"],
        most_requests_a_day=row["most_requests_a_day"],
    )
