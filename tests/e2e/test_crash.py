"""Kill -9 in the middle of inserts: what was acknowledged is there, once, and no more."""

from __future__ import annotations

import asyncio
import os

import httpx
import pytest
from _photos import variations
from uuid_utils.compat import uuid7

from oneton.parts import make_image_store
from oneton.records.database import Database
from oneton.records.tenants import Tenants
from oneton.settings import read_settings
from tests.fixtures.servers import (
    INSERT,
    SEARCH,
    TOKEN,
    MakePlace,
    Place,
    Server,
    as_base64,
    new_tenant,
    run_server,
)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]

INSERTS = int(os.environ.get("ONETON_TEST_INSERTS", "200"))


async def token(http: httpx.AsyncClient, url: str, credentials: dict[str, str]) -> dict[str, str]:
    form = {"grant_type": "client_credentials", **credentials}
    reply = await http.post(url + TOKEN, data=form)
    return {"Authorization": f"Bearer {reply.json()['access_token']}"}


async def insert_until_killed(
    server: Server, credentials: dict[str, str], photos: list[bytes], kill_after: int
) -> dict[str, bytes]:
    """Insert all at once, kill the server after some answers; returns what was acknowledged."""
    acknowledged: dict[str, bytes] = {}
    limits = httpx.Limits(max_connections=len(photos))
    async with httpx.AsyncClient(timeout=120, limits=limits) as http:
        headers = await token(http, server.url, credentials)

        async def insert(photo: bytes) -> None:
            body = {"idPhoto": as_base64(photo)}
            try:
                reply = await http.post(server.url + INSERT, json=body, headers=headers)
                while reply.status_code == 503:
                    await asyncio.sleep(0.2)
                    reply = await http.post(server.url + INSERT, json=body, headers=headers)
            except httpx.TransportError:
                return
            assert reply.status_code == 200
            acknowledged[reply.json()["oneToNVerificationId"]] = photo
            if len(acknowledged) == kill_after:
                server.kill()

        await asyncio.gather(*(insert(photo) for photo in photos))
    return acknowledged


async def find_all(
    server: Server, credentials: dict[str, str], photos: dict[str, bytes]
) -> dict[str, str | None]:
    """Search with each photo; returns the id that was wanted and the one that was found."""
    async with httpx.AsyncClient(timeout=120) as http:
        headers = await token(http, server.url, credentials)
        found = {}
        for face_id, photo in photos.items():
            body = {"idPhoto": as_base64(photo)}
            reply = await http.post(server.url + SEARCH, json=body, headers=headers)
            found[face_id] = reply.json()["oneToNVerificationId"]
        return found


async def leave_leftover(place: Place) -> str:
    """What a crash between image and row leaves behind."""
    assert place.dsns is not None
    database = await Database.connect(place.dsns.app, size=2)
    store = make_image_store(read_settings(place.environ))
    try:
        (tenant,) = await Tenants(database).list()
        key = f"{tenant.tenant_id}/default/{uuid7()}"
        await store.put(key, b"\xff\xd8\xff leftover", "image/jpeg")
        return key
    finally:
        await store.close()
        await database.close()


def test_every_acknowledged_insert_survives_a_crash_and_leftovers_are_swept(
    make_place: MakePlace, people: dict[str, bytes]
) -> None:
    place = make_place(ONETON_SWEEP_GRACE_S="4", ONETON_SWEEP_INTERVAL_S="1")
    originals = list(people.values())
    each = INSERTS // len(originals)
    photos = [
        photo for seed, one in enumerate(originals) for photo in variations(one, each, 100 + seed)
    ]
    with run_server(place) as server:
        credentials = new_tenant(place)
        acknowledged = asyncio.run(
            insert_until_killed(server, credentials, photos, len(photos) // 2)
        )
    assert len(photos) // 2 <= len(acknowledged) < len(photos)
    leftover = asyncio.run(leave_leftover(place))
    with run_server(place) as server:
        # The same photo is the best match of itself, so each id is found by its own photo.
        found = asyncio.run(find_all(server, credentials, acknowledged))
        assert found == {face_id: face_id for face_id in acknowledged}

        keys = set(asyncio.run(settled_objects(place)))
        assert leftover not in keys
        ids = {key.rsplit("/", 1)[1] for key in keys}
        assert set(acknowledged) <= ids
        assert len(keys) == asyncio.run(place.count("face"))
        report = place.json("sweep", "--dry-run")
        assert (report["leftovers"], report["missing"]) == ([], [])


async def settled_objects(place: Place) -> list[str]:
    """Keys in the store, once the running server's sweeper has left as many as there are rows."""
    async with asyncio.timeout(30):
        # Another process sweeps, so there is nothing here to wait on.
        while len(keys := await place.objects()) != await place.count("face"):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    return keys
