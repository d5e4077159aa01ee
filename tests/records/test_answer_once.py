"""Which answers an idempotency key keeps."""

from __future__ import annotations

from uuid import uuid4

import pytest

from oneton.domain.errors import UnavailableError
from oneton.records.database import Database
from oneton.records.idempotency import Answer, Idempotency
from oneton.records.trail import Trail
from oneton.verbs.answer_once import AnswerOnce
from tests.records.conftest import House


@pytest.mark.parametrize(
    ("status", "calls"), [(201, 1), (422, 1), (403, 1), (429, 2), (500, 2), (503, 2)]
)
async def test_an_answer_to_try_again_later_frees_its_key(
    database: Database, house: House, status: int, calls: int
) -> None:
    once = AnswerOnce(Idempotency(database), Trail(database))
    made = 0

    async def work() -> Answer:
        nonlocal made
        made += 1
        return Answer(status, {}, b"")

    for _ in range(2):
        answer = await once(house.tenant.tenant_id, "key", b"call", work)
        assert answer.status == status
    assert made == calls


async def test_one_that_lost_its_key_changes_nothing_of_it(
    database: Database, house: House
) -> None:
    tenant, keys = house.tenant.tenant_id, Idempotency(database, lease_s=0)
    slow, fast, late = uuid4(), uuid4(), uuid4()
    second = Answer(200, {}, b"second")
    for owner in (slow, fast):
        assert await keys.claim(tenant, "k", b"call", owner) is None
    await keys.renew(tenant, "k", slow)
    await keys.release(tenant, "k", slow)
    await keys.keep(tenant, "k", slow, Answer(200, {}, b"first"))
    with pytest.raises(UnavailableError, match="under way"):
        await Idempotency(database).claim(tenant, "k", b"call", late, within_s=0)
    await keys.keep(tenant, "k", fast, second)
    await keys.keep(tenant, "k", slow, Answer(200, {}, b"first"))
    assert await keys.claim(tenant, "k", b"call", late) == second
