"""Which answers an idempotency key keeps."""

from __future__ import annotations

import pytest

from oneton.records.database import Database
from oneton.records.idempotency import Answer, Idempotency
from oneton.verbs.answer_once import AnswerOnce
from tests.records.conftest import House


@pytest.mark.parametrize(
    ("status", "calls"), [(201, 1), (422, 1), (403, 1), (429, 2), (500, 2), (503, 2)]
)
async def test_an_answer_to_try_again_later_frees_its_key(
    database: Database, house: House, status: int, calls: int
) -> None:
    once = AnswerOnce(Idempotency(database))
    made = 0

    async def work() -> Answer:
        nonlocal made
        made += 1
        return Answer(status, {}, b"")

    for _ in range(2):
        answer = await once(house.tenant.tenant_id, "key", b"call", work)
        assert answer.status == status
    assert made == calls
