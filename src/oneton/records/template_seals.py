"""Templates in and out of Postgres, which may have them sealed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from oneton.domain.errors import KeyDestroyedError, SealBrokenError, SettingError
from oneton.domain.model import TenantId
from oneton.domain.sealing import Ring
from oneton.records.templates import is_sealed, open_templates, seal_template

if TYPE_CHECKING:
    from oneton.records.database import Connection, Database
    from oneton.records.tenant_keys import TenantKeys

_AT_ONCE = 64
"""Opening fewer is done before a thread has started."""


class TemplateSeals:
    """What a database's templates are sealed with.

    Args:
        keys: None where encryption is off.
    """

    def __init__(self, keys: TenantKeys | None = None) -> None:
        self._keys = keys

    async def prepare(self, tenant: TenantId) -> None:
        """Make sure that the tenant has a key, before the transaction in which `seal` is called."""
        if self._keys is not None:
            # Of a closed tenant something may still be purged; `seal` refuses the rest.
            with suppress(KeyDestroyedError):
                await self._keys.ring(tenant)

    async def seal(
        self, connection: Connection, tenant: TenantId, templates: Sequence[bytes]
    ) -> list[bytes]:
        """Seal what a transaction writes; the key is not retired before it ends.

        Raises:
            KeyDestroyedError: the tenant's keys were destroyed.
        """
        if self._keys is None or not templates:
            return list(templates)
        ring = await self._keys.in_force(connection, tenant)
        return [seal_template(ring, each) for each in templates]

    async def keep_key(self, connection: Connection, tenant: TenantId) -> None:
        """As `seal`, for a transaction that copies templates as they are."""
        if self._keys is not None:
            await self._keys.in_force(connection, tenant)

    async def open(
        self,
        tenant: TenantId,
        stored: bytes,
        face_nos: Sequence[int],
        *,
        sizes: Sequence[int] | None = None,
        connection: Connection | None = None,
    ) -> bytes:
        """Templates, one after another, in plain; many are opened in a thread.

        Args:
            sizes: in bytes; None where all are alike.
            connection: of a transaction that the caller is in.

        Raises:
            SealBrokenError: one does not open; it names the face.
            KeyDestroyedError: the tenant's keys were destroyed.
        """
        if sizes is not None and len(set(sizes)) <= 1:
            sizes = None
        if sizes is None and not is_sealed(stored):
            return stored
        if self._keys is None:
            raise SealBrokenError(f"the template of face {face_nos[0]}")
        missing = 0
        for fresh in (False, True):
            ring = await self._ring(tenant, connection, fresh=fresh)
            work = partial(open_templates, ring, stored, sizes, face_nos)
            try:
                if len(face_nos) <= _AT_ONCE:
                    return work()
                return await anyio.to_thread.run_sync(work)
            except KeyError as error:
                # Perhaps of a key that another process made a moment ago.
                missing = int(error.args[0])
        raise SealBrokenError(f"a template of key {missing}, of face {face_nos[0]} or after it,")

    async def _ring(self, tenant: TenantId, connection: Connection | None, *, fresh: bool) -> Ring:
        assert self._keys is not None
        if connection is None:
            return await self._keys.ring(tenant, fresh=fresh)
        return await self._keys.ring_within(connection, tenant, fresh=fresh)


PLAIN = TemplateSeals()


async def refuse_keys(database: Database) -> None:
    """Refuse to start without a master key over a database that has tenants' keys.

    Raises:
        SettingError: it has.
    """
    if await database.fetch("select key_no from oneton_wrapped_keys(1)"):
        raise SettingError(
            "this database has tenants' encryption keys: set ONETON_MASTER_KEY, which wraps them"
        )
