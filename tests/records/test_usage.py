"""Limits that hold exactly under concurrency, and calls that are counted in batches."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from oneton.domain.errors import DayQuotaError, QuotaError, StoreDownError
from oneton.domain.model import GalleryId, Permission, TenantId
from oneton.records.database import Database
from oneton.records.usage import DayUsage, Tally, Usage
from oneton.verbs import count_usage
from oneton.verbs.authenticate import Principal
from oneton.verbs.count_usage import CountUsage, kind_of
from tests.records.conftest import House, add, unit_rows

pytestmark = pytest.mark.anyio

NOON_S = datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp()
DAY = date(2026, 5, 4)
SEARCH = (Permission.SEARCH,)


def principal(house: House, limit: int | None = None) -> Principal:
    return Principal(house.tenant.tenant_id, uuid4(), frozenset(), False, limit)


async def count_faces(database: Database, tenant: TenantId) -> int:
    async with database.transaction(tenant) as connection:
        return int(await connection.fetchval("select count(*) from face where face_id is not null"))


async def test_concurrent_enrolments_in_several_galleries_stop_at_the_limit(
    house: House, database: Database, rng: np.random.Generator
) -> None:
    tenant, usage = house.tenant.tenant_id, Usage(database)
    second = await house.galleries.create(
        tenant, GalleryId("second"), model_pack_no=house.gallery.model_pack_no
    )
    rows = unit_rows(rng, 24)
    await add(house.faces, house.gallery, rows[0])
    await usage.limit(tenant, faces=7, requests_a_day=None)
    done = await asyncio.gather(
        *(
            add(house.faces, (house.gallery, second)[number % 2], row)
            for number, row in enumerate(rows[1:])
        ),
        return_exceptions=True,
    )
    assert {type(each) for each in done if isinstance(each, BaseException)} == {QuotaError}
    assert await count_faces(database, tenant) == 7
    assert await usage.holdings(tenant) == await usage.holdings(tenant)
    assert (await usage.holdings(tenant)).faces == 7
    # Another tenant has its own room.
    await add(house.faces, house.other_gallery, rows[0])


async def test_a_purged_face_makes_room_and_an_erased_image_does_not(
    house: House, database: Database, rng: np.random.Generator
) -> None:
    tenant, usage = house.tenant.tenant_id, Usage(database)
    rows = unit_rows(rng, 4)
    await usage.limit(tenant, faces=1, requests_a_day=None)
    face_id = await add(house.faces, house.gallery, rows[0])
    await house.faces.erase_image(tenant, face_id)
    with pytest.raises(QuotaError):
        await add(house.faces, house.gallery, rows[1])
    async with house.faces.locked(tenant, house.gallery) as locked:
        assert await locked.purge(face_id)
    await add(house.faces, house.gallery, rows[1])
    await usage.limit(tenant, faces=None, requests_a_day=None)
    await add(house.faces, house.gallery, rows[2])


async def test_a_limit_that_is_set_amid_enrolments_counts_every_one(
    house: House, database: Database, rng: np.random.Generator
) -> None:
    tenant, usage = house.tenant.tenant_id, Usage(database)
    adding = [
        asyncio.create_task(add(house.faces, house.gallery, row)) for row in unit_rows(rng, 30)
    ]
    for most in (1000, None, 1000):
        await usage.limit(tenant, faces=most, requests_a_day=None)
    await asyncio.gather(*adding)
    assert (await usage.holdings(tenant)).faces == await count_faces(database, tenant) == 30


async def test_calls_are_counted_by_day_dialect_and_kind(house: House, database: Database) -> None:
    usage, now_s = Usage(database), [NOON_S]
    count, who = CountUsage(usage, clock=lambda: now_s[0]), principal(house)
    for _ in range(3):
        await count(who, "native", SEARCH)
    await count(who, "uqudo", (Permission.SEARCH, Permission.INSERT))
    await count.flush()
    await count(who, "native", SEARCH)
    now_s[0] += 86_400
    await count(who, "native", ())
    await count.flush()
    await count.flush()
    found = await usage.days(house.tenant.tenant_id, DAY, date(2026, 5, 5))
    assert found == [
        DayUsage(DAY, "native", "search", 4),
        DayUsage(DAY, "uqudo", "enroll", 1),
        DayUsage(date(2026, 5, 5), "native", "other", 1),
    ]
    assert await usage.days(house.other.tenant_id, DAY, DAY) == []


async def test_a_days_limit_is_exact_in_a_process_and_ends_at_midnight(
    house: House, database: Database
) -> None:
    now_s = [NOON_S]
    count, who = CountUsage(Usage(database), clock=lambda: now_s[0]), principal(house, 5)
    done = await asyncio.gather(
        *(count(who, "native", SEARCH) for _ in range(9)), return_exceptions=True
    )
    refused = [each for each in done if isinstance(each, DayQuotaError)]
    assert (len(refused), refused[0].retry_after_s) == (4, 12 * 3600 + 1)
    await count.flush()
    with pytest.raises(DayQuotaError):
        await count(who, "native", SEARCH)
    now_s[0] += 12 * 3600
    await count(who, "native", SEARCH)


async def test_a_replica_knows_of_anothers_calls_once_both_have_added_theirs(
    house: House, database: Database
) -> None:
    one, other = (CountUsage(Usage(database), clock=lambda: NOON_S) for _ in range(2))
    who = principal(house, 4)
    for each in (one, other, one):
        await each(who, "native", SEARCH)
    await one.flush()
    await other.flush()
    await one.flush()
    await other(who, "native", SEARCH)
    with pytest.raises(DayQuotaError):
        await other(who, "native", SEARCH)
    # A process that begins now has read what was added, and not what the other counted since.
    fresh = CountUsage(Usage(database), clock=lambda: NOON_S)
    await other.flush()
    with pytest.raises(DayQuotaError):
        await fresh(who, "native", SEARCH)


async def test_counts_outlive_a_postgres_that_is_away(house: House, database: Database) -> None:
    class Away(Usage):
        down = True

        async def add(self, counts: dict[Tally, int]) -> None:  # type: ignore[override]
            if self.down:
                raise StoreDownError("away")
            await super().add(counts)

    usage = Away(database)
    count = CountUsage(usage, clock=lambda: NOON_S)
    await count(principal(house), "native", SEARCH)
    with pytest.raises(StoreDownError):
        await count.flush()
    await count(principal(house), "native", SEARCH)
    usage.down = False
    await count.flush()
    assert [each.calls for each in await usage.days(house.tenant.tenant_id, DAY, DAY)] == [2]


async def test_no_error_ends_the_counting(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_usage, "FLUSH_S", 0)
    errors = [asyncpg.InsufficientPrivilegeError("no"), StoreDownError("away"), ValueError("odd")]

    class Broken(Usage):
        async def add(self, counts: dict[Tally, int]) -> None:  # type: ignore[override]
            if errors:
                raise errors.pop()
            await super().add(counts)

    usage = Broken(database)
    count = CountUsage(usage, clock=lambda: NOON_S)
    await count(principal(house), "native", SEARCH)
    running = asyncio.create_task(count.run())
    async with asyncio.timeout(10):
        while not await usage.days(house.tenant.tenant_id, DAY, DAY):
            assert not running.done()
    running.cancel()
    assert not errors


async def test_calls_of_a_tenant_that_is_gone_are_left_out(
    house: House, database: Database
) -> None:
    usage, gone = Usage(database), TenantId(uuid4())
    own = house.tenant.tenant_id
    await usage.add({Tally(each, DAY, "native", "read"): 1 for each in (gone, own)})
    assert await usage.calls_on([gone, own], DAY) == {gone: 0, own: 1}


@pytest.mark.parametrize(
    ("permissions", "kind"),
    [((), "other"), (SEARCH, "search"), ((Permission.SEARCH, Permission.INSERT), "enroll")],
)
def test_the_kind_of_a_call_follows_its_permissions(
    permissions: tuple[Permission, ...], kind: str
) -> None:
    assert kind_of(permissions) == kind
