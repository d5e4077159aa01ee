"""Many tenants with a hundred faces each: no file, no thread, and memory within its budget."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import numpy as np
import psutil
import pytest
from _fill import fill
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.domain.model import DEFAULT_GALLERY, Gallery, ModelPack, TenantId
from oneton.index.store import LOCK
from oneton.index.templates import unit_rows
from oneton.records.database import Database
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.model_packs import ModelPacks
from oneton.settings import Settings
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.keep_up import KeepUp
from tests.fixtures.postgres import Dsns
from tests.records.conftest import open_hands

GALLERIES = int(os.environ.get("ONETON_TEST_GALLERIES", "200"))
FACES = 100
DIMENSION = 512
PACK = ModelPack("many", "0" * 64, DIMENSION)
WARM, COLD = range(10), range(10, GALLERIES)
AT_ONCE = 100
"""Galleries filled at once, and asked about between two rounds of upkeep."""

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(60 + GALLERIES / 10)]


class Taken(msgspec.Struct, frozen=True):
    """What this process has taken of the machine."""

    memory_bytes: int
    files: int
    threads: int

    @classmethod
    def now(cls) -> Taken:
        gc.collect()
        status = Path("/proc/self/status").read_text().splitlines()
        anonymous = next(line.split()[1] for line in status if line.startswith("RssAnon"))
        process = psutil.Process()
        return cls(int(anonymous) * 1024, process.num_fds(), process.num_threads())


def templates(number: int) -> NDArray[np.float32]:
    """(FACES, D) of a gallery, as Postgres gives them back."""
    rows = np.random.default_rng(number).standard_normal((FACES, DIMENSION), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return unit_rows(rows.astype(np.float16))


@pytest.fixture
async def galleries(dsns: Dsns, database: Database) -> list[Gallery]:
    """A tenant each, by COPY."""
    pack_no = await ModelPacks(database).number(PACK)
    tenants = [TenantId(uuid7()) for _ in range(GALLERIES)]
    connection = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        await connection.copy_records_to_table(
            "tenant", records=[(each, str(each)) for each in tenants], columns=["tenant_id", "name"]
        )
        await connection.copy_records_to_table(
            "gallery",
            records=[(each, DEFAULT_GALLERY, "enrollment", pack_no, 50.0) for each in tenants],
            columns=["tenant_id", "gallery_id", "kind", "model_pack_no", "threshold"],
        )
    finally:
        await connection.close()
    made = [await Galleries(database).read(each, DEFAULT_GALLERY) for each in tenants]
    for start in range(0, GALLERIES, AT_ONCE):
        some = made[start : start + AT_ONCE]
        rows = [templates(number) for number in range(start, start + len(some))]
        await fill(dsns.owner, some, np.concatenate(rows))
    return made


@asynccontextmanager
async def holding(
    database: Database, gallery: Gallery, folder: Path, memory_bytes: int
) -> AsyncIterator[tuple[CatchUp, KeepUp]]:
    """Indexes as a server with these settings has them."""
    settings = Settings()
    with open_hands(folder, least_faces=settings.snapshot_least_faces) as hands:
        catch_up = CatchUp(
            Galleries(database),
            Faces(database),
            hands.cpu,
            hands.upkeep,
            hands.store,
            ModelPacks(database),
        )
        keep_up = KeepUp(
            catch_up,
            hands.store,
            hands.upkeep,
            memory_bytes,
            settings.snapshot_interval_s,
            settings.snapshot_changes,
        )
        yield catch_up, keep_up
        await keep_up.close()
        await catch_up.close()


async def ask_all(
    catch_up: CatchUp, keep_up: KeepUp, galleries: Sequence[Gallery], numbers: range
) -> tuple[list[float], int]:
    """Search some galleries for one face of each.

    Returns:
        took_ms: by each search.
        most_bytes: that the indexes took after a round of upkeep.
    """
    took_ms: list[float] = []
    most_bytes = 0
    for number in numbers:
        gallery, rows, which = galleries[number], templates(number), number % FACES
        started_s = time.perf_counter()
        current = await catch_up(gallery.tenant_id, gallery.gallery_id)
        cosines, face_nos = current.index.search(rows[which : which + 1], 2)
        took_ms.append((time.perf_counter() - started_s) * 1000)
        held = current.index.view.tail.face_nos[: current.index.view.tail.size]
        assert len(current.index) == FACES
        assert face_nos[0, 0] == np.sort(held)[which]
        assert cosines[0, 0] > 0.9999
        assert cosines[0, 1] == pytest.approx(np.sort(rows @ rows[which])[-2], abs=1e-4)
        if number % AT_ONCE == AT_ONCE - 1:
            await keep_up.once()
            most_bytes = max(most_bytes, catch_up.size_bytes)
    return took_ms, most_bytes


def shown(what: str, took_ms: Sequence[float], before: Taken, after: Taken) -> str:
    low, high = np.percentile(took_ms, (50, 95))
    grown = after.memory_bytes - before.memory_bytes
    return (
        f"{what}: first search p50 {low:.2f} ms, p95 {high:.2f} ms; {grown / 1e6:+.0f} MB,"
        f" {after.files - before.files:+} files, {after.threads - before.threads:+} threads"
    )


async def test_many_small_galleries_cost_neither_files_nor_threads(
    galleries: list[Gallery], database: Database, tmp_path: Path
) -> None:
    async with holding(database, galleries[0], tmp_path, Settings().index_memory) as (
        catch_up,
        keep_up,
    ):
        await ask_all(catch_up, keep_up, galleries, WARM)
        before = Taken.now()
        took_ms, all_bytes = await ask_all(catch_up, keep_up, galleries, COLD)
        after = Taken.now()
        held = len(catch_up.held())
    print(f"\n{GALLERIES:,} galleries of {FACES} faces, {all_bytes / 1e6:.0f} MB by their count")
    print(shown("all fit", took_ms, before, after))
    assert held == GALLERIES
    assert after.files <= before.files + 4
    assert after.threads <= before.threads + 4
    assert os.listdir(tmp_path) == [LOCK]


async def test_galleries_that_do_not_fit_go_and_come_back(
    galleries: list[Gallery], database: Database, tmp_path: Path
) -> None:
    one = FACES * DIMENSION * np.dtype(np.float32).itemsize
    budget = GALLERIES * one // 4
    async with holding(database, galleries[0], tmp_path, budget) as (catch_up, keep_up):
        await ask_all(catch_up, keep_up, galleries, WARM)
        before = Taken.now()
        for turn in ("a quarter fits", "again"):
            took_ms, most_bytes = await ask_all(catch_up, keep_up, galleries, COLD)
            after = Taken.now()
            print(f"\n{shown(turn, took_ms, before, after)}; {len(catch_up.held())} are held")
            assert most_bytes <= budget
            assert 0 < len(catch_up.held()) <= GALLERIES // 4
    assert os.listdir(tmp_path) == [LOCK]
