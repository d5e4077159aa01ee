"""News of heads, and migrations."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from oneton.domain.errors import SettingError, StoreDownError
from oneton.domain.model import DEFAULT_GALLERY, GalleryId, TenantId
from oneton.records.database import Database
from oneton.records.migrate import migrate
from oneton.records.news import HeadNews
from tests.fixtures.postgres import Dsns, PostgresServer
from tests.records.conftest import House, add, unit_rows

pytestmark = pytest.mark.anyio


async def test_every_change_is_heard_after_its_commit_even_when_the_connection_broke(
    house: House, dsns: Dsns, postgres: PostgresServer, rng: np.random.Generator
) -> None:
    heard: asyncio.Queue[tuple[TenantId, GalleryId]] = asyncio.Queue()
    news = HeadNews(dsns.app, lambda *what: heard.put_nowait(what))
    listening = asyncio.create_task(news.run())
    own = (house.tenant.tenant_id, DEFAULT_GALLERY)

    async def change_until_heard() -> None:
        while heard.empty():
            await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
            await asyncio.sleep(0.05)
        assert heard.get_nowait() == own

    try:
        await asyncio.wait_for(change_until_heard(), 10)
        await postgres.run(
            """select pg_terminate_backend(pid) from pg_stat_activity
               where query ilike 'listen %'"""
        )
        while not heard.empty():
            heard.get_nowait()
        await asyncio.wait_for(change_until_heard(), 10)
    finally:
        listening.cancel()


async def test_migrate_twice_and_at_once_is_no_error(dsns: Dsns) -> None:
    await asyncio.gather(migrate(dsns.owner), migrate(dsns.owner))


async def test_a_server_that_is_away_is_one_clear_error() -> None:
    with pytest.raises(StoreDownError, match="Postgres"):
        await Database.connect("postgresql://nobody@127.0.0.1:1/none", timeout_s=2)
    with pytest.raises((StoreDownError, SettingError)):
        await migrate("postgresql://nobody@127.0.0.1:1/none")


async def test_a_read_survives_connections_that_died_while_idle(
    database: Database, postgres: PostgresServer, dsns: Dsns
) -> None:
    await asyncio.gather(*(database.fetch("select pg_sleep(0.05)") for _ in range(4)))
    name = dsns.app.split("?")[0].rsplit("/", 1)[1]
    await postgres.run(
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    )
    assert (await database.fetch("select 1"))[0][0] == 1
