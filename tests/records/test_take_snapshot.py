"""Snapshots that are asked for while servers run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from oneton.domain.errors import ConflictError, NotFoundError, UnavailableError
from oneton.domain.model import DEFAULT_GALLERY, GalleryId
from oneton.index.inspection import check_snapshot, find_snapshots
from oneton.index.store import is_held
from oneton.records.database import Database
from oneton.records.news import SNAPSHOT, HeadNews
from oneton.verbs.take_snapshot import AskForSnapshot
from tests.records.conftest import House
from tests.records.processes import Process, enroll, process

pytestmark = pytest.mark.anyio

SOON_S = 20.0


@asynccontextmanager
async def server(house: House, database: Database, folder: Path) -> AsyncIterator[Process]:
    """A process that hears, and keeps up."""
    before = await listeners(database)
    async with process(house, folder) as here:
        news = HeadNews(database.dsn, here.catch_up.hear, here.keep_up.ask)
        tasks = [asyncio.create_task(work) for work in (news.run(), here.keep_up.run())]
        try:
            async with asyncio.timeout(10):
                while await listeners(database) == before:  # noqa: ASYNC110 - Postgres knows
                    await asyncio.sleep(0.02)
            yield here
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def listeners(database: Database) -> int:
    """How many connections wait for snapshots to be asked for."""
    rows = await database.fetch(
        """select pid from pg_stat_activity
           where datname = current_database() and query ilike $1""",
        f"listen%{SNAPSHOT}%",
    )
    return len(rows)


@pytest.fixture
def ask(house: House, database: Database, tmp_path: Path) -> AskForSnapshot:
    return AskForSnapshot(database, house.galleries, tmp_path)


async def test_a_server_takes_a_snapshot_of_a_gallery_that_it_holds_and_another_of_the_same_head(
    house: House, database: Database, ask: AskForSnapshot, tmp_path: Path, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    await enroll(house, rng, 5)
    async with server(house, database, tmp_path) as here:
        await here.index()
        await enroll(house, rng, 2)
        first = await ask(tenant, DEFAULT_GALLERY, SOON_S)
        second = await ask(tenant, DEFAULT_GALLERY, SOON_S)
    for taken in (first, second):
        assert taken.manifest is not None
        assert (taken.manifest.head, taken.manifest.faces, taken.writer) == (7, 7, tmp_path)
        list(check_snapshot(taken, set()))
    assert first.path < second.path


async def test_a_gallery_that_nobody_holds_is_loaded_by_the_machines_first_process(
    house: House, database: Database, ask: AskForSnapshot, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, 5)
    async with (
        server(house, database, tmp_path) as first,
        server(house, database, tmp_path) as second,
    ):
        await ask(house.tenant.tenant_id, DEFAULT_GALLERY, SOON_S)
        assert (len(first.catch_up.held()), len(second.catch_up.held())) == (1, 0)
    assert [each.writer for each in find_snapshots(tmp_path)] == [tmp_path]


async def test_what_nobody_takes_in_time_is_one_clear_error(
    house: House, ask: AskForSnapshot, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    with pytest.raises(ConflictError, match="has no faces"):
        await ask(tenant, DEFAULT_GALLERY, 0.5)
    with pytest.raises(NotFoundError):
        await ask(tenant, GalleryId("none"), 0.5)
    await enroll(house, rng, 1)
    with pytest.raises(UnavailableError, match=r"no server took .* of default within 0\.5 s"):
        await ask(tenant, DEFAULT_GALLERY, 0.5)


async def test_notifications_that_are_not_ours_and_galleries_that_are_not_there_harm_nothing(
    house: House, database: Database, ask: AskForSnapshot, tmp_path: Path,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    tenant = house.tenant.tenant_id
    await enroll(house, rng, 3)
    async with server(house, database, tmp_path):
        with capture_logs() as logs:
            for payload in ("", "nonsense", "not-a-uuid default", f"{tenant}", f"{tenant} ../x"):
                await database.fetch("select pg_notify($1, $2)", SNAPSHOT, payload)
                await database.fetch("select pg_notify('oneton_head', $1)", payload)
            taken = await ask(tenant, DEFAULT_GALLERY, SOON_S)
    assert taken.manifest is not None
    events = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert events.count("a notification is not ours") == 6
    assert events.count("no snapshot was taken") == 2
    assert len(events) == 8


async def test_the_folder_is_held_while_a_process_writes_there(
    house: House, tmp_path: Path
) -> None:
    root = tmp_path / "snapshots"
    assert not is_held(root)
    async with process(house, root):
        assert is_held(root)
    assert not is_held(root)
