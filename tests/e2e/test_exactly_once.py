"""Insert if missing: of any number of concurrent calls with one person's photos, one adds."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from _fill import fill
from _photos import variations
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.biometrics.analyse import Analyser
from oneton.domain.errors import NoFaceError, SnapshotError
from oneton.domain.model import DEFAULT_GALLERY, FaceId, Gallery
from oneton.index.manifest import read_manifest
from oneton.index.store import replica_folders
from oneton.records.database import Database
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.tenants import Tenants
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

SEAL_FACES = 64
TINY_LIMITS = {
    "ONETON_INDEX_SEAL_FACES": str(SEAL_FACES),
    "ONETON_SNAPSHOT_LEAST_FACES": "1",
    "ONETON_SNAPSHOT_CHANGES": "10",
    "ONETON_SNAPSHOT_INTERVAL_S": "1",
}
STRANGERS = 300
SOME_PEOPLE = max(2, PEOPLE // 4)


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
    servers: list[Server],
    credentials: dict[str, str],
    photos: list[list[bytes]],
    count: int = CALLS,
) -> list[list[tuple[str, bool]]]:
    """For each person so many calls at once, in turn to each server."""
    # Left at 5 s, the client now and then closes a connection that a request was just given.
    limits = httpx.Limits(max_connections=count, keepalive_expiry=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as http:
        form = {"grant_type": "client_credentials", **credentials}
        reply = await http.post(servers[0].url + TOKEN, data=form)
        token = reply.json()["access_token"]
        answers = []
        for alike_photos in photos:
            bodies = [f'{{"idPhoto":"{as_base64(photo)}","insert":true}}' for photo in alike_photos]
            calls = [
                call(http, servers[n % len(servers)].url, bodies[n % len(bodies)], token)
                for n in range(count)
            ]
            answers.append(await asyncio.gather(*calls))
        return answers


@pytest.mark.conforms(
    "uqudo", "POST /api/v1/face/one-to-n/search", "insert at once adds each person once", "chosen"
)
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


class Strangers(msgspec.Struct):
    """Random templates, far from every face, that come and go in a gallery all the time.

    Attributes:
        present: their ids, the oldest first.
        leaving: whether no more should come.
        first: by folder, the segments of the first snapshot that had some.
        merged: folders whose newest snapshot has none of these any more.
    """

    database: Database
    gallery: Gallery
    index_dir: Path
    present: list[FaceId]
    leaving: bool = False
    first: dict[Path, set[str]] = msgspec.field(default_factory=dict)
    merged: set[Path] = msgspec.field(default_factory=set)

    async def come_and_go(self, rng: np.random.Generator) -> None:
        """Each that comes sends the oldest away, until told to leave."""
        faces = Faces(self.database)
        for number, row in enumerate(random_rows(rng, 100_000)):
            if self.leaving:
                return
            async with faces.locked(self.gallery.tenant_id, self.gallery) as locked:
                self.present.append(FaceId(uuid7()))
                await locked.add(
                    self.present[-1], row, content_type="image/jpeg", idempotency_key=None
                )
            async with faces.locked(self.gallery.tenant_id, self.gallery) as locked:
                assert await locked.purge(self.present.pop(0))
            if number % 10 == 0:
                await asyncio.to_thread(self._look)

    async def wait_for_merges(self) -> None:
        """Until both servers have written segments anew."""
        async with asyncio.timeout(60):
            while len(self.merged) < 2:  # noqa: ASYNC110 - other processes write them
                await asyncio.sleep(0.1)

    def _look(self) -> None:
        for folder in replica_folders(self.index_dir):
            for path in sorted(folder.glob(f"{DEFAULT_GALLERY}.*/*/*.json"))[-1:]:
                with suppress(SnapshotError):
                    segments = {meta.name for meta in read_manifest(path).segments}
                    if segments and not segments & self.first.setdefault(folder, segments):
                        self.merged.add(folder)


def random_rows(rng: np.random.Generator, count: int) -> Iterator[NDArray[np.float32]]:
    for _ in range(count):
        row = rng.standard_normal(512, dtype=np.float32)
        yield row / np.linalg.norm(row)


async def storm_among_strangers(
    place: Place, servers: list[Server], photos: list[list[bytes]], rng: np.random.Generator
) -> tuple[list[list[tuple[str, bool]]], list[list[tuple[str, bool]]], int]:
    """Storm before and after segments were merged.

    Returns:
        both answers, and how many strangers there are at the end.
    """
    assert place.dsns is not None
    credentials = await asyncio.to_thread(new_tenant, place)
    database = await Database.connect(place.dsns.app, size=2)
    try:
        (tenant,) = await Tenants(database).list()
        gallery = await Galleries(database).read(tenant.tenant_id, DEFAULT_GALLERY)
        rows = np.stack(list(random_rows(rng, STRANGERS)))
        filled = await fill(place.dsns.owner, [gallery], rows)
        strangers = Strangers(database, gallery, place.folder / "index_snapshots", list(filled))
        coming = asyncio.create_task(strangers.come_and_go(rng))
        first = await storm(servers, credentials, photos)
        await strangers.wait_for_merges()
        second = await storm(servers, credentials, photos, LEAST_PHOTOS)
        strangers.leaving = True
        await coming
        return first, second, len(strangers.present)
    finally:
        await database.close()


def test_each_person_is_added_once_while_segments_are_sealed_and_merged(
    make_place: MakePlace, photos: list[list[bytes]], rng: np.random.Generator
) -> None:
    place, some = make_place(**TINY_LIMITS), photos[:SOME_PEOPLE]
    with run_server(place) as one, run_server(place) as other:
        first, second, strangers = asyncio.run(
            storm_among_strangers(place, [one, other], some, rng)
        )
    ids = [{face_id for face_id, _ in person} for person in first]
    assert [len(each) for each in ids] == [1] * len(some)
    assert len(set.union(*ids)) == len(some)
    assert all(sum(not matched for _, matched in person) == 1 for person in first)
    assert [set(person) for person in second] == [{(*each, True)} for each in ids]
    assert asyncio.run(place.count("face", "removed_at_head is null")) == len(some) + strangers
    assert len(asyncio.run(place.objects())) == len(some)
