"""Snapshots of a database that was restored from a backup are not answered from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import numpy as np
import pytest
from structlog.testing import capture_logs

from oneton.domain.model import Gallery, GalleryId, TenantId
from oneton.index import ranking, templates
from oneton.index.inspection import find_snapshots
from oneton.records.galleries import Galleries
from tests.fixtures.postgres import Dsns
from tests.records.conftest import House, add, unit_rows
from tests.records.processes import enroll, now, process, purge

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def every_face_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the margin leaves out is judged in `tests/accuracy`; here nothing is."""
    monkeypatch.setattr(ranking, "MARGIN", 1e6)


@asynccontextmanager
async def owner(dsns: Dsns) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        yield connection
    finally:
        await connection.close()


async def back_up(dsns: Dsns) -> None:
    async with owner(dsns) as connection:
        for table in ("gallery", "face", "template"):
            await connection.execute(f"create table saved_{table} as table {table}")


async def restore(dsns: Dsns) -> None:
    """Rows and sequences as the backup has them."""
    async with owner(dsns) as connection:
        await connection.execute(
            """truncate face, template cascade;
               insert into face overriding system value select * from saved_face;
               insert into template select * from saved_template;
               update gallery set head = saved.head from saved_gallery saved
                 where saved.gallery_no = gallery.gallery_no;
               select setval(pg_get_serial_sequence('face', 'face_no'), max(face_no)) from face"""
        )


async def enroll_two(house: House, rng: np.random.Generator) -> None:
    await enroll(house, rng, 2)


async def enroll_and_purge(house: House, rng: np.random.Generator) -> None:
    await enroll(house, rng, 1)
    await purge(house, -1)


async def purge_two(house: House, rng: np.random.Generator) -> None:
    await purge(house, 2, 70)


async def purge_two_others(house: House, rng: np.random.Generator) -> None:
    await purge(house, 5, 75)


CHANGES = {
    "enrolments": enroll_two,
    "an enrolment and its purge": enroll_and_purge,
    "purges": purge_two,
    "other purges": purge_two_others,
}


@pytest.mark.parametrize("lost", CHANGES)
@pytest.mark.parametrize("instead", [*CHANGES, "nothing"])
async def test_a_snapshot_of_changes_that_a_restore_lost_is_not_used(
    house: House, dsns: Dsns, tmp_path: Path, rng: np.random.Generator, lost: str, instead: str
) -> None:
    await enroll(house, rng, 80)
    await back_up(dsns)
    await CHANGES[lost](house, rng)
    async with process(house, tmp_path) as here:
        assert await here.take()
        assert here.held().snapshot_head == 82
    await restore(dsns)
    same = lost == instead and lost != "enrolments"
    if instead != "nothing":
        await CHANGES[instead](house, rng)
    with capture_logs() as logs:
        async with process(house, tmp_path) as here:
            assert await here.answers() == 0
            assert (here.held().snapshot_head == 82) == same
            assert await here.take()
    said = [line for line in logs if line["log_level"] == "warning"]
    assert len(said) == (0 if same else 1)
    if not same:
        assert said[0]["event"] == "snapshot set aside"
        assert "0000000000000000082-" in said[0]["snapshot"]
        assert "Postgres" in said[0]["why"]


async def test_of_two_snapshots_the_one_that_a_restored_database_confirms_is_used(
    house: House, dsns: Dsns, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, 80)
    async with process(house, tmp_path) as here:
        assert await here.take()
        await back_up(dsns)
        await enroll(house, rng, 10)
        assert await here.take()
    await restore(dsns)
    with capture_logs() as logs:
        async with process(house, tmp_path) as here:
            assert await here.answers() == 0
            assert here.held().snapshot_head == 80
    (said,) = [line for line in logs if line["log_level"] == "warning"]
    assert said["why"] == "its head 90 is past Postgres's 80"


async def test_what_another_process_left_of_a_lost_database_is_refused_once_and_our_own_used(
    house: House, dsns: Dsns, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, 80)
    await back_up(dsns)
    async with process(house, tmp_path), process(house, tmp_path) as second:
        await enroll(house, rng, 20)
        assert await second.take()
    await restore(dsns)
    async with process(house, tmp_path) as first:
        assert await first.answers() == 0
        assert await first.take()
    for _ in range(2):
        with capture_logs() as logs:
            async with process(house, tmp_path) as first:
                assert await first.answers() == 0
                assert first.held().snapshot_head == 80
                await first.index()
        (said,) = [line for line in logs if line["log_level"] == "warning"]
        assert said["why"] == "its head 100 is past Postgres's 80"
    kept = [each for each in find_snapshots(tmp_path) if not each.set_aside]
    assert [each.writer.name for each in kept][-1] == "replica-2"


async def test_a_snapshot_taken_after_the_head_was_read_is_used(
    house: House, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, 70)
    stale = await now(house)
    await enroll(house, rng, 5)
    async with process(house, tmp_path) as here:
        assert await here.take()

    class Late(Galleries):
        """What it reads first is older than what another process wrote meanwhile."""

        reads = 0

        async def read(self, tenant: TenantId, gallery: GalleryId) -> Gallery:
            self.reads += 1
            return stale if self.reads == 1 else await super().read(tenant, gallery)

    with capture_logs() as logs:
        async with process(house, tmp_path) as here:
            here.catch_up._galleries = Late(house.galleries._database)
            assert (await here.index()).head == 75
            assert await here.answers() == 0
    assert [line for line in logs if line["log_level"] == "warning"] == []


async def test_a_template_that_rounds_otherwise_at_unit_length_is_the_same_face(
    house: House, tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = unit_rows(rng, 20_000).astype(np.float16)
    moved = (templates.unit_rows(rows).astype(np.float16) != rows).any(axis=1)
    assert moved.any()
    for row in rows[moved][:3]:
        await add(house.faces, house.gallery, row.astype(np.float32))
    async with process(house, tmp_path) as here:
        assert await here.take()
    async with process(house, tmp_path) as here:
        assert await here.answers() == 0
        assert here.held().snapshot_head == 3
