"""Searches and pictures read are noted in batches, and none is lost while Postgres is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.acting import Actor, acting_as
from oneton.domain.audit import Act, Action, AuditFilter
from oneton.domain.errors import StoreDownError, UnavailableError
from oneton.domain.model import DEFAULT_GALLERY, FaceId, TenantId
from oneton.records.audit import Audit
from oneton.records.database import Database
from oneton.records.trail import Trail
from tests.records.conftest import House

pytestmark = pytest.mark.anyio


def face() -> FaceId:
    return FaceId(UUID(str(uuid7())))


@pytest.fixture
async def trail(database: Database) -> AsyncIterator[Trail]:
    made = Trail(database)
    yield made
    await made.close()


async def searches(database: Database, tenant: TenantId) -> list[tuple[FaceId, ...]]:
    which = AuditFilter(action=Action.SEARCH)
    return [each.face_ids async for each in Audit(database).every(tenant, which)]


async def test_notes_of_several_tenants_are_written_in_their_order(
    house: House, database: Database, trail: Trail
) -> None:
    one, other = house.tenant.tenant_id, house.other.tenant_id
    faces = [face() for _ in range(6)]
    with acting_as(Actor("key 9", "2001:db8::1", "r9")):
        for number, each in enumerate(faces):
            act = Act(Action.SEARCH, (each,), DEFAULT_GALLERY, {"candidates": 1})
            trail.note(one if number % 2 else other, act)
    trail.note(one, Act(Action.SEARCH, (faces[0], faces[1])))
    trail.note(one, Act(Action.MATCH))
    await trail.flush()
    assert await searches(database, other) == [(faces[0],), (faces[2],), (faces[4],)]
    expected = [(faces[1],), (faces[3],), (faces[5],), (faces[0], faces[1])]
    assert await searches(database, one) == expected
    newest, *_, first = await Audit(database).page(
        one, limit=5, which=AuditFilter(face_id=faces[1])
    )
    assert newest.actor == "system"
    assert (first.actor, first.address, first.request_id) == ("key 9", "2001:db8::1", "r9")
    assert (first.gallery_id, bytes(first.details)) == (DEFAULT_GALLERY, b'{"candidates": 1}')
    assert len(trail) == 0


async def test_searches_are_left_out_when_asked_and_pictures_read_are_not(
    house: House, database: Database
) -> None:
    tenant = house.tenant.tenant_id
    trail = Trail(database, searches=False)
    trail.note(tenant, Act(Action.SEARCH))
    trail.note(tenant, Act(Action.MATCH))
    trail.note(tenant, Act(Action.READ_IMAGE, (face(),)))
    await trail.close()
    actions = {each.action for each in await Audit(database).page(tenant, limit=50)}
    assert Action.READ_IMAGE in actions
    assert not actions & {Action.SEARCH, Action.MATCH}


async def test_what_is_noted_is_written_soon_without_being_asked(
    house: House, database: Database, trail: Trail
) -> None:
    trail.start()
    trail.note(house.tenant.tenant_id, Act(Action.SEARCH, (seen := face(),)))
    async with asyncio.timeout(10):
        while not await searches(database, house.tenant.tenant_id):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await searches(database, house.tenant.tenant_id) == [(seen,)]


async def test_the_end_of_the_process_writes_what_is_left(house: House, database: Database) -> None:
    trail = Trail(database)
    trail.start()
    noted = [face() for _ in range(2500)]
    for each in noted:
        trail.note(house.tenant.tenant_id, Act(Action.SEARCH, (each,)))
    await trail.close()
    assert await searches(database, house.tenant.tenant_id) == [(each,) for each in noted]


async def test_events_wait_while_postgres_is_away_and_past_the_bound_calls_fail(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, trail = house.tenant.tenant_id, Trail(database, most=3)
    fetch = Database.fetch

    async def away(self: Database, sql: str, *arguments: object) -> list[object]:
        raise StoreDownError("Postgres: away")

    monkeypatch.setattr(Database, "fetch", away)
    trail.start()
    noted = [face() for _ in range(3)]
    for each in noted:
        trail.note(tenant, Act(Action.SEARCH, (each,)))
    with pytest.raises(StoreDownError):
        await trail.flush()
    with pytest.raises(UnavailableError):
        trail.note(tenant, Act(Action.SEARCH, (face(),)))
    monkeypatch.setattr(Database, "fetch", fetch)
    async with asyncio.timeout(10):
        while len(trail):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await searches(database, tenant) == [(each,) for each in noted]
    trail.note(tenant, Act(Action.SEARCH))
    await trail.close()


async def test_an_event_that_postgres_refuses_keeps_no_other_out(
    house: House, database: Database, trail: Trail
) -> None:
    tenant, noted = house.tenant.tenant_id, [face() for _ in range(5)]
    for number, each in enumerate(noted):
        details = {"text": "\x00"} if number == 2 else {}
        trail.note(tenant, Act(Action.SEARCH, (each,), details=details))
    await trail.flush()
    del noted[2]
    assert await searches(database, tenant) == [(each,) for each in noted]


async def test_events_wait_while_postgres_is_read_only(
    house: House, database: Database, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, noted = house.tenant.tenant_id, [face() for _ in range(3)]
    for each in noted:
        trail.note(tenant, Act(Action.SEARCH, (each,)))
    read_only = await Database.connect(database.dsn, size=1)
    await read_only.fetch("set default_transaction_read_only = on")
    with monkeypatch.context() as away:
        away.setattr(trail, "_database", read_only)
        with pytest.raises(StoreDownError):
            await trail.flush()
    await read_only.close()
    await trail.flush()
    assert await searches(database, tenant) == [(each,) for each in noted]


async def test_an_error_that_is_not_of_an_event_loses_none_and_ends_nothing(
    house: House, database: Database, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, fetch, tries = house.tenant.tenant_id, Database.fetch, 0

    async def denied(self: Database, sql: str, *arguments: object) -> list[asyncpg.Record]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise asyncpg.InsufficientPrivilegeError("no")
        return await fetch(self, sql, *arguments)

    monkeypatch.setattr(Database, "fetch", denied)
    trail.note(tenant, Act(Action.SEARCH, (seen := face(),)))
    trail.start()
    async with asyncio.timeout(10):
        while len(trail):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await searches(database, tenant) == [(seen,)]
