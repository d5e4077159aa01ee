"""Erase and purge, on two replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from _photos import variations

from tests.fixtures.servers import (
    Client,
    MakeClient,
    MakePlace,
    Place,
    Server,
    new_tenant,
    run_server,
)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", params=["files", "s3"])
def place(make_place: MakePlace, request: pytest.FixtureRequest) -> Place:
    settings = request.getfixturevalue("s3_settings") if request.param == "s3" else {}
    return make_place(**settings)


@pytest.fixture(scope="module")
def replicas(place: Place) -> Iterator[list[Server]]:
    with run_server(place) as one, run_server(place) as other:
        yield [one, other]


@pytest.fixture
def clients(place: Place, replicas: list[Server], make_client: MakeClient) -> list[Client]:
    credentials = new_tenant(place)
    return [make_client(server.url, credentials) for server in replicas]


def has_object(place: Place, face_id: str) -> bool:
    return any(key.endswith(f"/{face_id}") for key in asyncio.run(place.objects()))


def test_erase_deletes_the_object_and_every_replica_still_matches(
    place: Place, clients: list[Client], people: dict[str, bytes]
) -> None:
    face_id = clients[0].insert(people["ada"])
    assert has_object(place, face_id)
    assert clients[1].erase(face_id) == 204
    assert not has_object(place, face_id)
    for client in clients:
        assert client.search(variations(people["ada"], 1, 5)[0]) == {
            "oneToNVerificationId": face_id,
            "oneToNVerificationMatch": True,
        }
        assert client.erase(face_id) == 204


def test_purge_leaves_no_trace_in_rows_objects_or_replicas(
    place: Place, clients: list[Client], people: dict[str, bytes]
) -> None:
    face_id = clients[0].insert(people["bea"])
    kept = clients[0].insert(people["cas"])
    for client in clients:
        assert client.search(people["bea"])["oneToNVerificationId"] == face_id
    templates = asyncio.run(place.count("template"))
    tenant = next(key for key in asyncio.run(place.objects()) if key.endswith(face_id)).split("/")[
        0
    ]
    name = next(
        each["name"] for each in place.json("tenant", "list") if each["tenant_id"] == tenant
    )
    place.command("purge", face_id, "--tenant", name)
    for client in clients:
        assert client.search(people["bea"])["oneToNVerificationMatch"] is False
        assert client.erase(face_id) == 404
        assert client.search(people["cas"])["oneToNVerificationId"] == kept
    assert not has_object(place, face_id)
    assert asyncio.run(place.count("face", f"face_id = '{face_id}'")) == 0
    assert asyncio.run(place.count("template")) == templates - 1
    assert place.command("purge", face_id, "--tenant", name, check=False).returncode == 3


def test_a_search_that_follows_an_insert_on_the_other_replica_sees_it(
    clients: list[Client], people: dict[str, bytes]
) -> None:
    here, there = clients
    for name in ("dan", "eve", "fay", "gus"):
        face_id = here.insert(people[name])
        assert there.search(people[name])["oneToNVerificationId"] == face_id
        here, there = there, here
