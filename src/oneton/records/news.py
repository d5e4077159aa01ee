"""News of changed galleries, and of snapshots that are asked for, by LISTEN/NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import asyncpg
import structlog

from oneton.domain.model import GalleryId, TenantId
from oneton.records.database import SERVER_SETTINGS, Database

log = structlog.get_logger()

RETRY_S = 1.0
HEAD = "oneton_head"
"""A gallery changed; its payload is, as of every channel, the tenant's id, a space, the name."""
SNAPSHOT = "oneton_snapshot"
"""A snapshot of a gallery is wanted."""
CLOSED = "oneton_closed"
"""A tenant's keys were destroyed; no gallery is named."""

Told = Callable[[TenantId, GalleryId], None]


class HeadNews:
    """Calls back for every gallery that any process changed, for as long as it runs.

    Notifications may be lost while Postgres is away. That delays work done ahead of time and never
    an answer, for every answer reads the head itself.

    Args:
        asked: called for every gallery of which a snapshot is wanted.
        closed: called for every tenant whose keys were destroyed.
    """

    def __init__(
        self,
        dsn: str,
        heard: Told,
        asked: Told | None = None,
        closed: Told | None = None,
    ) -> None:
        self._dsn = dsn
        told = {HEAD: heard, SNAPSHOT: asked, CLOSED: closed}
        self._told = {channel: each for channel, each in told.items() if each is not None}

    async def run(self) -> None:
        """Listen until cancelled, connecting again whenever the connection ends."""
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("listening to Postgres failed", error=str(error), again_in_s=RETRY_S)
            await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._dsn, timeout=10, server_settings={**SERVER_SETTINGS, "tcp_keepalives_idle": "30"}
        )
        ended = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _connection: ended.set())
            for channel in self._told:
                await connection.add_listener(channel, self._on_notification)
            await ended.wait()
        finally:
            await connection.close(timeout=2)

    def _on_notification(
        self, _connection: object, _pid: int, channel: str, payload: object
    ) -> None:
        tenant, _, gallery = str(payload).partition(" ")
        try:
            tenant_id = TenantId(UUID(tenant))
        except ValueError:
            log.warning("a notification is not ours", channel=channel)
        else:
            self._told[channel](tenant_id, GalleryId(gallery))


async def ask_for_snapshot(database: Database, tenant: TenantId, gallery: GalleryId) -> None:
    """Tell every running server that a snapshot of a gallery is wanted; nothing says who heard.

    Raises:
        StoreDownError: Postgres does not answer.
    """
    await database.fetch("select pg_notify($1, $2)", SNAPSHOT, f"{tenant} {gallery}")
