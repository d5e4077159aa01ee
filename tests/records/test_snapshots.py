"""Every kind of damage of a snapshot is set aside, said in one line, and repaired from Postgres."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _fill import fill
from structlog.testing import capture_logs

from oneton.index import ranking
from oneton.index.inspection import check_snapshot, find_leftovers, find_snapshots
from oneton.verbs import keep_up
from tests.fixtures.damage import DAMAGES, KINDS, MANIFESTS, flip
from tests.fixtures.postgres import Dsns
from tests.records.conftest import House, unit_rows
from tests.records.processes import Process, enroll, process, purge

pytestmark = pytest.mark.anyio

Line = MutableMapping[str, Any]


@pytest.fixture(autouse=True)
def every_face_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the margin leaves out is judged in `tests/accuracy`; here nothing is."""
    monkeypatch.setattr(ranking, "MARGIN", 1e6)


@pytest.fixture
async def taken(house: House, dsns: Dsns, tmp_path: Path, rng: np.random.Generator) -> Path:
    """A snapshot of two segments, a tail and removed faces, which Postgres has gone on from."""
    folder = tmp_path / "taken"
    await fill(dsns.owner, [house.gallery], unit_rows(rng, 200))
    async with process(house, folder) as first:
        await first.index()
        await first.keep_up.once()
        await enroll(house, rng, 64)
        await first.index()
        await first.keep_up.once()
        await enroll(house, rng, 6)
        await purge(house, 3, 230, 265)
        assert await first.take()
        assert (len((await first.index()).view.parts), first.held().snapshot_head) == (2, 273)
    await enroll(house, rng, 4)
    await purge(house, 7, 240)
    return folder


def warnings(logs: list[Line]) -> list[Line]:
    return [line for line in logs if line["log_level"] not in ("info", "debug")]


def files(folder: Path, kind: str = "") -> list[Path]:
    return sorted(path for path in folder.rglob(f"*{kind}") if path.is_file())


def gallery_folder(folder: Path) -> Path:
    (path,) = folder.glob("default.*/*")
    return path


async def check_repaired(here: Process, folder: Path) -> None:
    """The next snapshot is whole, and opened by the next process without a word."""
    assert await here.take()
    here.store.close()
    for each in find_snapshots(folder):
        assert each.set_aside or sum(check_snapshot(each, set())) >= 0
    with capture_logs() as logs:
        async with process(here.house, folder) as after:
            assert await after.answers() == 0
            assert after.held().snapshot_head == here.held().snapshot_head
    assert warnings(logs) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_damage_of_any_kind_is_set_aside_said_once_and_repaired(
    house: House, taken: Path, tmp_path: Path, kind: str
) -> None:
    damages = DAMAGES | (MANIFESTS if kind == ".json" else {})
    for name, damage in damages.items():
        folder = shutil.copytree(taken, tmp_path / name)
        damaged = damage(min(gallery_folder(folder).rglob(f"*{kind}")))
        with capture_logs() as logs:
            async with process(house, folder) as here:
                refused = await here.answers()
                assert refused == 0 or (refused == 1 and kind == ".templates"), name
                said = warnings(logs)
                if (kind, name) == (".json", "missing"):
                    assert said == []
                else:
                    assert [line["event"] for line in said] == ["snapshot set aside"], name
                    assert damaged.name in said[0]["snapshot"] + said[0]["why"], name
                    assert len(list(gallery_folder(folder).glob("*.set-aside"))) == 1, name
                await check_repaired(here, folder)
                assert find_leftovers(find_snapshots(folder), folder).files == 0, name


async def test_a_template_that_is_damaged_while_it_is_searched_is_never_answered_with(
    house: House, taken: Path
) -> None:
    async with process(house, taken) as here:
        assert await here.answers() == 0
        flip(0.4)(files(taken, ".templates")[0])
        with capture_logs() as logs:
            assert await here.answers() == 1
        (said,) = warnings(logs)
        assert said["event"] == "snapshot set aside"
        assert ".templates: a template is not what was written" in said["why"]
        assert (await here.index()).damage is None
        await check_repaired(here, taken)


async def test_damage_that_upkeep_meets_is_repaired_before_anybody_asks(
    house: House, taken: Path, rng: np.random.Generator
) -> None:
    async with process(house, taken) as here:
        await here.index()
        for path in files(taken, ".templates"):
            flip(0.5)(path)
        await purge(house, *range(60))
        index = await here.index()
        with capture_logs() as logs:
            await here.keep_up.once()
            assert index.damage is not None
            await here.keep_up.once()
        assert here.held().index is not index
        assert len(warnings(logs)) == 1
        assert await here.answers() == 0
        await check_repaired(here, taken)


async def test_damage_that_a_snapshot_meets_is_repaired_and_no_snapshot_is_taken(
    house: House, taken: Path
) -> None:
    async with process(house, taken) as here:
        await here.index()
        for path in files(taken, ".templates"):
            flip(0.999)(path)
        with capture_logs() as logs:
            assert not await here.take()
            await here.keep_up.close()
            await here.keep_up.once()
        assert len(warnings(logs)) == 1
        assert await here.answers() == 0
        await check_repaired(here, taken)


async def test_a_disk_that_is_full_is_said_once_and_waited_for(
    house: House, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enroll(house, rng, 30)
    async with process(house, tmp_path, snapshot_changes=1) as here:
        await here.index()
        with capture_logs() as logs, pytest.MonkeyPatch.context() as full:
            full.setattr(os, "fsync", no_room)
            for _ in range(5):
                await here.keep_up.once()
                assert await here.answers() == 0
        assert [line["event"] for line in warnings(logs)] == ["a snapshot cannot be written"]
        assert [path.name for path in files(tmp_path)] == [".lock"]
        monkeypatch.setattr(keep_up, "RETRY_S", 0.0)
        await here.keep_up.once()
        assert here.held().snapshot_head == 30
        await check_repaired(here, tmp_path)


async def test_a_folder_that_cannot_be_used_is_said_once_and_searched_without(
    house: House, tmp_path: Path, rng: np.random.Generator
) -> None:
    await enroll(house, rng, 70)
    (tmp_path / "file").write_text("not a folder")
    with capture_logs() as logs:
        async with process(house, tmp_path / "file" / "snapshots", snapshot_changes=1) as here:
            await here.index()
            for _ in range(3):
                await here.keep_up.once()
            assert await here.answers() == 0
            assert len((await here.index()).view.parts) == 1
    assert [(line["event"], line["error"]) for line in warnings(logs)] == [
        ("no snapshots: the folder cannot be used", "Not a directory")
    ]


async def test_a_folder_that_becomes_unusable_under_a_running_process_is_said_and_searched_without(
    house: House, taken: Path, rng: np.random.Generator
) -> None:
    async with process(house, taken) as here:
        assert await here.answers() == 0
        folder = gallery_folder(taken)
        shutil.rmtree(folder)
        folder.write_text("not a folder")
        with capture_logs() as logs:
            assert not await here.take()
            await enroll(house, rng, 70)
            assert await here.answers() == 0
            await here.keep_up.once()
            assert await here.answers() == 0
        assert all(line["event"] != "keeping up failed" for line in logs)
        folder.unlink()
        (await here.index())._unwritten_since_s = None
        await check_repaired(here, taken)


async def test_a_replica_that_heard_no_notification_answers_for_every_change(
    house: House, tmp_path: Path, rng: np.random.Generator
) -> None:
    async with process(house, tmp_path) as one, process(house, tmp_path) as other:
        for _ in range(4):
            await enroll(house, rng, 25)
            assert await one.answers() == 0
            await purge(house, 2, 11)
            assert await other.answers() == 0
            assert other.held().index is not one.held().index


def no_room(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
