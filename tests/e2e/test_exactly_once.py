"""Insert if missing: of any number of concurrent calls with one person's photos, one adds."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from _photos import variations
from numpy.typing import NDArray

from oneton.biometrics.analyse import Analyser
from oneton.domain.errors import NoFaceError
from tests.fixtures.servers import (
    SEARCH,
    TOKEN,
    MakePlace,
    Place,
    Server,
    as_base64,
    new_tenant,
    run_server,
)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1800)]

CALLS = 64
PEOPLE = int(os.environ.get("ONETON_TEST_PEOPLE", "12"))
LEAST_PHOTOS, LEAST_PEOPLE = 8, 8
# Cosines well to either side of the default threshold, which is 0.332.
APART, ALIKE = 0.3, 0.4


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    return make_place()


@pytest.fixture(scope="module")
def servers(place: Place) -> Iterator[list[Server]]:
    with run_server(place) as one, run_server(place) as other:
        yield [one, other]


def alike(analyser: Analyser, photo: bytes, seed: int) -> tuple[list[bytes], NDArray[np.float32]]:
    """Variations of one photo that all match each other, and their embeddings."""
    kept: list[bytes] = []
    embeddings: list[NDArray[np.float32]] = []
    for other in variations(photo, 16, seed):
        try:
            embedding = analyser.analyse(other).embedding
        except NoFaceError:
            continue
        if all(float(embedding @ each) > ALIKE for each in embeddings):
            kept.append(other)
            embeddings.append(embedding)
    return kept, np.array(embeddings)


def candidates(lfw: Path | None, people: dict[str, bytes]) -> list[bytes]:
    """One photo a person: of LFW where it is there, else of the packages."""
    if lfw is None:
        return list(people.values())
    return [min(folder.glob("*.jpg")).read_bytes() for folder in sorted(lfw.iterdir())[:600]]


@pytest.fixture(scope="module")
def photos(
    analyser: Analyser, people: dict[str, bytes], lfw_if_there: Path | None
) -> list[list[bytes]]:
    """For each person photos that match each other and nobody else's."""
    chosen: list[list[bytes]] = []
    taken = np.empty((0, analyser.pack.dimension), dtype=np.float32)
    for seed, photo in enumerate(candidates(lfw_if_there, people)):
        kept, embeddings = alike(analyser, photo, seed)
        if len(kept) >= LEAST_PHOTOS and (embeddings @ taken.T).max(initial=-1) < APART:
            chosen.append(kept)
            taken = np.vstack([taken, embeddings])
        if len(chosen) == PEOPLE:
            break
    assert len(chosen) >= min(PEOPLE, LEAST_PEOPLE)
    return chosen


async def call(http: httpx.AsyncClient, url: str, body: str, token: str) -> tuple[str, bool]:
    """Insert if missing, trying again while the server says that it is busy."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    while True:
        reply = await http.post(url + SEARCH, content=body, headers=headers)
        if reply.status_code != 503:
            assert reply.status_code == 200, reply.text
            found = reply.json()
            return found["oneToNVerificationId"], found["oneToNVerificationMatch"]
        assert int(reply.headers["retry-after"]) >= 1
        await asyncio.sleep(0.1)


async def storm(
    servers: list[Server], credentials: dict[str, str], photos: list[list[bytes]]
) -> list[list[tuple[str, bool]]]:
    """For each person `CALLS` calls at once, in turn to each server."""
    limits = httpx.Limits(max_connections=CALLS)
    async with httpx.AsyncClient(timeout=120, limits=limits) as http:
        form = {"grant_type": "client_credentials", **credentials}
        reply = await http.post(servers[0].url + TOKEN, data=form)
        token = reply.json()["access_token"]
        answers = []
        for alike_photos in photos:
            bodies = [f'{{"idPhoto":"{as_base64(photo)}","insert":true}}' for photo in alike_photos]
            calls = [
                call(http, servers[n % len(servers)].url, bodies[n % len(bodies)], token)
                for n in range(CALLS)
            ]
            answers.append(await asyncio.gather(*calls))
        return answers


def test_64_concurrent_calls_on_two_servers_add_each_person_once(
    place: Place, servers: list[Server], photos: list[list[bytes]]
) -> None:
    answers = asyncio.run(storm(servers, new_tenant(place), photos))
    first_ids = []
    for person in answers:
        ids = Counter(face_id for face_id, _ in person)
        assert len(ids) == 1, f"one person got {len(ids)} ids"
        assert sum(not matched for _, matched in person) == 1
        first_ids.append(next(iter(ids)))
    assert len(set(first_ids)) == len(photos)
    assert asyncio.run(place.count("face")) == len(photos)
    assert len(asyncio.run(place.objects())) == len(photos)


def test_mixed_people_at_once_each_get_their_own_id(
    place: Place, servers: list[Server], photos: list[list[bytes]]
) -> None:
    some = [person[:LEAST_PHOTOS] for person in photos[:LEAST_PEOPLE]]
    mixed = [photo for column in zip(*some, strict=True) for photo in column]
    (answers,) = asyncio.run(storm(servers, new_tenant(place), [mixed]))
    by_person: dict[int, set[str]] = {}
    for number, (face_id, _) in enumerate(answers):
        by_person.setdefault(number % len(mixed) % len(some), set()).add(face_id)
    assert all(len(ids) == 1 for ids in by_person.values())
    assert len(set.union(*by_person.values())) == len(some)
