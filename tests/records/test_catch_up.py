"""Indexes that follow Postgres."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest

from oneton.biometrics.calibration import FOLDER, Calibration
from oneton.domain.errors import IndexLoadingError, NotFoundError
from oneton.domain.model import DEFAULT_GALLERY, Changes, GalleryId
from oneton.records.database import Database
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.identify import Find
from tests.records.conftest import Hands, House, add, unit_rows

pytestmark = pytest.mark.anyio


async def test_an_answer_is_current_however_many_ask_at_once(
    house: House, catch_up: CatchUp, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    for count, row in enumerate(unit_rows(rng, 12), start=1):
        await add(house.faces, house.gallery, row)
        asked = [catch_up(tenant, DEFAULT_GALLERY) for _ in range(8)]
        for current in await asyncio.gather(*asked):
            assert current.index.head == count
            assert len(current.index) == count
            assert current.index.search(row[np.newaxis], 1)[0][0, 0] > 0.999


async def test_questions_at_many_heads_share_the_rounds(
    house: House,
    catch_up: CatchUp,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tenant = house.tenant.tenant_id
    current = await catch_up(tenant, DEFAULT_GALLERY)
    first, again, rounds = asyncio.Event(), asyncio.Event(), []
    changes = house.faces.changes

    async def slow(*asked: Any, **more: Any) -> AsyncGenerator[Changes, None]:
        rounds.append(asked)
        first.set()
        await again.wait()
        async for each in changes(*asked, **more):
            yield each

    monkeypatch.setattr(house.faces, "changes", slow)
    asking = []
    for row in unit_rows(rng, 9):
        await add(house.faces, house.gallery, row)
        asking.append(asyncio.create_task(catch_up(tenant, DEFAULT_GALLERY)))
        await asyncio.wait_for(first.wait(), 5)
        while len(asking) > 1 and catch_up.held()[0].newest.head < len(asking):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    again.set()
    heads = [(await each).index.head for each in asking]
    assert len(rounds) == 2
    assert heads[-1] == current.index.head == 9


async def test_a_question_that_comes_as_a_round_ends_begins_another(
    house: House, catch_up: CatchUp, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    current = await catch_up(tenant, DEFAULT_GALLERY)
    over = asyncio.create_task(asyncio.sleep(0))
    await over
    catch_up._tasks["bring", catch_up.held()[0].key] = over
    await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    assert (await catch_up(tenant, DEFAULT_GALLERY)).index is current.index
    assert current.index.head == 1


async def test_a_question_that_is_given_up_ends_nobody_elses(
    house: House,
    catch_up: CatchUp,
    hands: Hands,
    rng: np.random.Generator,
) -> None:
    tenant = house.tenant.tenant_id
    current = await catch_up(tenant, DEFAULT_GALLERY)
    await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    done = threading.Event()
    blocking = [asyncio.create_task(hands.cpu.run_upkeep(partial(done.wait, 10))) for _ in "ab"]
    given_up = asyncio.create_task(catch_up(tenant, DEFAULT_GALLERY))
    while not catch_up.held()[0].is_moving:  # noqa: ASYNC110 - the index is no event
        await asyncio.sleep(0.01)
    other = asyncio.create_task(catch_up(tenant, DEFAULT_GALLERY))
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    done.set()
    assert (await other).index.head == current.index.head == 1
    await asyncio.gather(*blocking)


async def test_an_index_that_cannot_catch_up_in_time_is_said(
    house: House, hands: Hands, rng: np.random.Generator
) -> None:
    catch_up = CatchUp(
        house.galleries,
        house.faces,
        hands.cpu,
        hands.upkeep,
        hands.store,
        house.packs,
        load_within_s=0.2,
    )
    tenant = house.tenant.tenant_id
    await catch_up(tenant, DEFAULT_GALLERY)
    await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    done = threading.Event()
    blocking = [asyncio.create_task(hands.cpu.run_upkeep(partial(done.wait, 10))) for _ in "ab"]
    with pytest.raises(IndexLoadingError):
        await catch_up(tenant, DEFAULT_GALLERY)
    done.set()
    await asyncio.gather(*blocking)
    assert (await catch_up(tenant, DEFAULT_GALLERY)).index.head == 1
    await catch_up.close()


async def test_an_unknown_gallery_is_not_found(house: House, catch_up: CatchUp) -> None:
    with pytest.raises(NotFoundError):
        await catch_up(house.tenant.tenant_id, GalleryId("none"))


async def test_hear_brings_a_held_gallery_up_without_a_question(
    house: House, catch_up: CatchUp, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    current = await catch_up(tenant, DEFAULT_GALLERY)
    await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    catch_up.hear(tenant, DEFAULT_GALLERY)
    async with asyncio.timeout(5):
        while current.index.head == 0:  # noqa: ASYNC110 - the index is no event
            await asyncio.sleep(0.01)
    assert len(current.index) == 1


async def test_close_ends_what_was_heard_before_the_threads_end(
    house: House, catch_up: CatchUp, hands: Hands, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    await catch_up(tenant, DEFAULT_GALLERY)
    await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    catch_up.hear(tenant, DEFAULT_GALLERY)
    await catch_up.close()
    hands.cpu.close()
    assert catch_up._tasks == {}


async def test_find_gives_the_next_best_when_one_was_purged_meanwhile(
    house: House, catch_up: CatchUp, hands: Hands, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    probe = unit_rows(rng, 1)[0]
    gone = await add(house.faces, house.gallery, probe)
    kept = await add(house.faces, house.gallery, probe)
    current = await catch_up(tenant, DEFAULT_GALLERY)
    stale = current.index.search(probe[np.newaxis], 2)
    async with house.faces.locked(tenant, house.gallery) as locked:
        await locked.purge(gone)
    find = Find(catch_up, hands.cpu, house.faces)
    found = await find(tenant, current, a_calibration(), probe, stale)
    assert [each.face_id for each in found] == [kept]


async def test_an_index_that_knows_more_than_postgres_is_loaded_anew(
    house: House, catch_up: CatchUp, hands: Hands, database: Database, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    probe = unit_rows(rng, 1)[0]
    await add(house.faces, house.gallery, probe)
    current = await catch_up(tenant, DEFAULT_GALLERY)
    async with database.transaction(tenant) as connection:
        # As after a restore: the row is gone, and no head says so.
        await connection.execute("delete from template")
        await connection.execute(
            """update face set removed_at_head = added_at_head, face_id = null,
                 image_content_type = null, created_at = null"""
        )
    find = Find(catch_up, hands.cpu, house.faces)
    with pytest.raises(IndexLoadingError):
        await find(
            tenant, current, a_calibration(), probe, current.index.search(probe[np.newaxis], 1)
        )
    current = await catch_up(tenant, DEFAULT_GALLERY)
    assert len(current.index) == 0


def a_calibration() -> Calibration:
    return msgspec.json.decode((FOLDER / "buffalo_sc.json").read_bytes(), type=Calibration)
