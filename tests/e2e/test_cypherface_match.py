"""CypherFace's face match over HTTP, with real photos."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from _photos import variations

from oneton.records.database import Database
from tests.fixtures.merchants import Merchant, NewMerchant, new_merchant, refused
from tests.fixtures.servers import Place, Server, run_server

pytestmark = pytest.mark.model

MATCH = "/api/face/match/"


def conforms(call: str, what: str, how: str = "exact") -> pytest.MarkDecorator:
    return pytest.mark.conforms("cypherface", call, what, how)


@pytest.fixture
def merchant(shared_place: Place, shared_server: Server) -> Iterator[Merchant]:
    with Merchant(shared_server.url, new_merchant(shared_place)) as made:
        yield made


@pytest.fixture
def lenient(shared_place: Place, shared_server: Server) -> Iterator[Merchant]:
    """A caller of a server that answers 200 to a mismatch."""
    with (
        run_server(shared_place, ONETON_CYPHERFACE_MISMATCH_200="true") as server,
        Merchant(server.url, new_merchant(shared_place)) as made,
    ):
        yield made


@conforms(f"POST {MATCH}", "a match: 200 with match, similarity, message")
@conforms("POST /api/face-match/", "the heading's spelling answers alike")
@pytest.mark.parametrize("path", [MATCH, "/api/face-match/"])
def test_one_person_matches(merchant: Merchant, people: dict[str, bytes], path: str) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["cas"])
    merchant.send(user, "match", variations(people["cas"], 1, seed=7)[0])
    reply = merchant.match(user, path)
    assert reply.status_code == 200
    said = reply.json()
    assert set(said) == {"success", "match", "similarity", "message"}
    assert (said["success"], said["match"]) == (True, True)
    assert said["message"] == "Face matched successfully"
    assert 80 <= said["similarity"] <= 100


@conforms(f"POST {MATCH}", "no match: 422 FACE_MISMATCH", "chosen")
def test_another_person_does_not_match(merchant: Merchant, people: dict[str, bytes]) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["cas"])
    merchant.send(user, "match", people["dan"])
    reply = merchant.match(user)
    assert reply.status_code == 422
    said = reply.json()
    assert set(said) == {"success", "match", "similarity", "message", "error"}
    assert (said["success"], said["match"], said["error"]) == (False, False, "FACE_MISMATCH")
    assert said["message"] == "Face mismatch"
    assert 0 <= said["similarity"] < 80


@conforms(f"POST {MATCH}", "a switch answers 200 to a mismatch", "chosen")
def test_a_switch_answers_200_to_a_mismatch(lenient: Merchant, people: dict[str, bytes]) -> None:
    user = lenient.register()
    lenient.send(user, "upload", people["cas"])
    lenient.send(user, "match", people["dan"])
    reply = lenient.match(user)
    assert (reply.status_code, reply.json()["match"]) == (200, False)
    assert reply.json()["error"] == "FACE_MISMATCH"


@conforms(
    f"POST {MATCH}",
    "no source: 422 SOURCE_IMAGE_MISSING; no target: TARGET_IMAGE_MISSING",
    "chosen",
)
@conforms(f"POST {MATCH}", "a target is used up, and erased, by the call", "chosen")
def test_source_and_target_are_needed_and_a_target_is_good_once(
    shared_place: Place, merchant: Merchant, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "match", people["eve"])
    refused(merchant.match(user), 422, "SOURCE_IMAGE_MISSING")
    merchant.send(user, "upload", people["eve"])
    assert merchant.match(user).status_code == 200
    refused(merchant.match(user), 422, "TARGET_IMAGE_MISSING")
    for photo in (people["fay"], people["eve"]):
        merchant.send(user, "match", photo)
    reply = merchant.match(user)
    assert (reply.status_code, reply.json()["match"]) == (200, True)
    mine = str(merchant.new.tenant_id)
    left = [key for key in asyncio.run(shared_place.objects()) if key.startswith(mine)]
    assert len(left) == 1


@conforms(f"POST {MATCH}", "of simultaneous calls one gets the target", "chosen")
def test_a_target_is_good_for_one_of_several_simultaneous_calls(
    merchant: Merchant, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["jon"])
    merchant.send(user, "match", people["jon"])
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: merchant.match(user), range(4)))
    missing = [each for each in replies if each.status_code == 422]
    assert len(missing) == 3
    for reply in missing:
        refused(reply, 422, "TARGET_IMAGE_MISSING")


@conforms(f"POST {MATCH}", "the merchant's own threshold counts", "chosen")
def test_the_threshold_is_the_merchants(
    shared_place: Place, shared_server: Server, people: dict[str, bytes]
) -> None:
    for threshold, status in (("0", 200), ("100", 422)):
        new = new_merchant(shared_place)
        changed = shared_place.json("tenant", "payment-threshold", new.name, threshold)
        assert changed["options"]["payment_threshold"] == float(threshold)
        merchant = Merchant(shared_server.url, new)
        with merchant:
            user = merchant.register()
            merchant.send(user, "upload", people["gus"])
            merchant.send(user, "match", people["hal"])
            assert merchant.match(user).status_code == status


@conforms(f"POST {MATCH}", "a target of more than 24 hours counts as missing", "chosen")
def test_an_old_target_counts_as_missing(
    shared_place: Place, merchant: Merchant, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["ian"])
    merchant.send(user, "match", people["ian"])
    asyncio.run(_a_day_later(shared_place, merchant.new))
    refused(merchant.match(user), 422, "TARGET_IMAGE_MISSING")


async def _a_day_later(place: Place, new: NewMerchant) -> None:
    assert place.dsns is not None
    database = await Database.connect(place.dsns.app, size=2)
    try:
        async with database.transaction(new.tenant_id) as connection:
            await connection.execute("update picture set due_at = due_at - interval '24 hours'")
    finally:
        await database.close()
