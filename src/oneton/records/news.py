"""News of changed galleries, by LISTEN/NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import asyncpg
import structlog

from oneton.domain.model import GalleryId, TenantId
from oneton.records.database import SERVER_SETTINGS

log = structlog.get_logger()

RETRY_S = 1.0


class HeadNews:
    """Calls back for every gallery that any process changed, for as long as it runs.

    Notifications may be lost while Postgres is away. That delays work done ahead of time and never
    an answer, for every answer reads the head itself.
    """

    def __init__(self, dsn: str, heard: Callable[[TenantId, GalleryId], None]) -> None:
        self._dsn = dsn
        self._heard = heard

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
            await connection.add_listener("oneton_head", self._on_notification)
            await ended.wait()
        finally:
            await connection.close(timeout=2)

    def _on_notification(
        self, _connection: object, _pid: int, _channel: str, payload: object
    ) -> None:
        tenant, _, gallery = str(payload).partition(" ")
        self._heard(TenantId(UUID(tenant)), GalleryId(gallery))
