"""A clock that is set an hour ahead or back: what was dated before it, and what is swept.

Rows that are dated an hour later are what is there after Postgres's clock was set back, and those
dated earlier what is there after it was set ahead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import asyncpg
import jwt
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.errors import RateLimitedError, UnauthenticatedError
from oneton.domain.model import DEFAULT_GALLERY, FaceId, Permission, image_key
from oneton.images.files import FileStore
from oneton.records.clock import PostgresClock
from oneton.records.database import Database
from oneton.records.idempotency import Answer, Idempotency
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.rates import Rates
from oneton.records.requests import Pictures
from oneton.records.tenants import Keys, Tenants
from oneton.records.trail import Trail
from oneton.verbs.answer_once import AnswerOnce
from oneton.verbs.authenticate import TOKEN_LIFE_S, Authenticate, CreateKey
from oneton.verbs.sweep import Sweep
from oneton.verbs.watch_clock import WatchClock
from tests.fixtures.postgres import Dsns
from tests.records.conftest import House

pytestmark = pytest.mark.anyio

HOUR_S = 3600.0
GRACE = timedelta(seconds=900)
JPEG = b"\xff\xd8\xff picture"
SECRET = b"s" * 32
OWNER = uuid7()


class _Ahead(datetime):
    """Of a process whose clock was set an hour ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(seconds=HOUR_S)


async def run(dsns: Dsns, sql: str) -> None:
    connection = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.mark.parametrize("by", ["+ '1 hour'", "- '1 hour'"])
async def test_a_rate_begins_anew_when_the_clock_is_set(
    house: House, database: Database, dsns: Dsns, by: str
) -> None:
    key, _ = await CreateKey(Keys(database))(
        house.tenant.tenant_id, label="", permissions=list(Permission)
    )
    rates = Rates(database)
    for _ in range(3):
        await rates.count(key.key_id, "call", 3)
    with pytest.raises(RateLimitedError):
        await rates.count(key.key_id, "call", 3)
    await run(dsns, f"update rate_window set started_at = started_at {by}::interval")
    for _ in range(3):
        await rates.count(key.key_id, "call", 3)
    with pytest.raises(RateLimitedError) as refused:
        await rates.count(key.key_id, "call", 3)
    assert refused.value.retry_after_s <= 60


@pytest.mark.parametrize("by", ["+ '1 hour'", "- '1 hour'"])
async def test_a_key_of_a_crashed_call_is_free_when_the_clock_is_set(
    house: House, database: Database, dsns: Dsns, by: str
) -> None:
    tenant, idempotency = house.tenant.tenant_id, Idempotency(database)
    assert await idempotency.claim(tenant, "k", b"f", OWNER) is None
    await run(dsns, f"update idempotency set claimed_at = claimed_at {by}::interval")
    assert await idempotency.claim(tenant, "k", b"f", OWNER, within_s=0) is None


async def test_a_kept_answer_stays_when_the_clock_is_set_back(
    house: House, database: Database, dsns: Dsns
) -> None:
    tenant, idempotency = house.tenant.tenant_id, Idempotency(database)
    answer = Answer(201, {"a": "b"}, b"c")
    assert await idempotency.claim(tenant, "k", b"f", OWNER) is None
    await idempotency.keep(tenant, "k", OWNER, answer)
    await run(dsns, "update idempotency set claimed_at = claimed_at + interval '1 hour'")
    assert await idempotency.claim(tenant, "k", b"f", OWNER) == answer


async def test_a_call_that_takes_long_keeps_its_key(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneton.verbs.answer_once.RENEW_S", 0.1)
    tenant = house.tenant.tenant_id
    once = AnswerOnce(Idempotency(database, lease_s=0.5), Trail(database))
    answer = Answer(200, {}, b"first")

    async def long() -> Answer:
        # Longer than the lease: whoever comes meanwhile waits until its end, and gets nothing.
        for _ in range(3):
            with pytest.raises(Exception, match="under way"):
                await Idempotency(database, lease_s=0.5).claim(
                    tenant, "k", b"f", OWNER, within_s=0.3
                )
        return answer

    assert await once(tenant, "k", b"f", long) == answer
    assert await Idempotency(database).claim(tenant, "k", b"f", OWNER) == answer


@pytest.fixture
async def token(house: House, database: Database) -> str:
    key, secret = await CreateKey(Keys(database))(
        house.tenant.tenant_id, label="", permissions=list(Permission)
    )
    return (await Authenticate(Keys(database), SECRET).issue(str(key.key_id), secret)).text


def dated(token: str, by_s: float) -> str:
    """The token that a replica would have issued whose clock is off by so much."""
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    moved = {**claims, "iat": claims["iat"] + by_s, "exp": claims["exp"] + by_s}
    return jwt.encode(moved, SECRET, algorithm="HS256")


async def test_a_token_of_a_clock_that_is_ahead_is_good(database: Database, token: str) -> None:
    """As after this clock was set back, or when another replica's is ahead."""
    await Authenticate(Keys(database), SECRET).check(dated(token, HOUR_S))


async def test_a_token_is_over_when_the_clock_is_set_ahead(database: Database, token: str) -> None:
    assert TOKEN_LIFE_S < HOUR_S
    with pytest.raises(UnauthenticatedError):
        await Authenticate(Keys(database), SECRET).check(dated(token, -HOUR_S))


@pytest.fixture
def make_sweep(
    house: House, database: Database, tmp_path: Path
) -> Callable[[WatchClock], tuple[Sweep, FileStore]]:
    store = FileStore(tmp_path / "images")

    def make(clock: WatchClock) -> tuple[Sweep, FileStore]:
        sweep = Sweep(
            Tenants(database),
            house.galleries,
            house.faces,
            Pictures(database),
            JobsOfTenants(database),
            store,
            clock=clock,
        )
        return sweep, store

    return make


async def test_an_enrolment_under_way_is_not_swept_when_the_clock_is_set_ahead(
    house: House,
    database: Database,
    make_sweep: Callable[[WatchClock], tuple[Sweep, FileStore]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began_s, ahead_s = time.time(), 0.0
    clock = WatchClock(now=lambda: began_s + ahead_s, monotonic=lambda: 0.0)
    sweep, store = make_sweep(clock)
    under_way = image_key(house.tenant.tenant_id, DEFAULT_GALLERY, FaceId(uuid7()))
    await store.put(under_way, JPEG, "image/jpeg")
    ahead_s = HOUR_S
    monkeypatch.setattr("oneton.verbs.sweep.datetime", _Ahead)
    report = await sweep(GRACE)
    assert (report.leftovers, report.deleted) == ([under_way], 0)
    assert report.doubt is not None
    assert [each.key async for each in store.list(f"{house.tenant.tenant_id}/")] == [under_way]


async def test_a_sweep_agrees_with_the_clock_of_postgres(
    house: House,
    database: Database,
    make_sweep: Callable[[WatchClock], tuple[Sweep, FileStore]],
) -> None:
    sweep, store = make_sweep(WatchClock(PostgresClock(database)))
    leftover = image_key(house.tenant.tenant_id, DEFAULT_GALLERY, FaceId(uuid7()))
    await store.put(leftover, JPEG, "image/jpeg")
    assert (await sweep(timedelta(0))).deleted == 1
    ahead = WatchClock(PostgresClock(database), now=lambda: time.time() + HOUR_S)
    sweep, store = make_sweep(ahead)
    await store.put(leftover, JPEG, "image/jpeg")
    report = await sweep(timedelta(0))
    assert (report.deleted, report.leftovers) == (0, [leftover])


async def test_an_object_of_a_store_whose_clock_is_behind_is_as_old_as_its_id(
    house: House, make_sweep: Callable[[WatchClock], tuple[Sweep, FileStore]], tmp_path: Path
) -> None:
    sweep, store = make_sweep(WatchClock())
    under_way = image_key(house.tenant.tenant_id, DEFAULT_GALLERY, FaceId(uuid7()))
    await store.put(under_way, JPEG, "image/jpeg")
    before_s = time.time() - HOUR_S
    os.utime(tmp_path / "images" / under_way, (before_s, before_s))
    report = await sweep(GRACE)
    assert (report.spared, report.deleted) == (1, 0)
