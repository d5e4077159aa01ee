"""An object store that is full, and a disk that is full for snapshots: real ones, over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from _photos import variations
from _seaweed import Seaweed

from tests.fixtures.native import DEFAULT, Native, check_problem
from tests.fixtures.servers import (
    INSERT,
    TOKEN,
    MakePlace,
    Place,
    Server,
    as_base64,
    new_tenant,
    run_server,
)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(150)]

IMAGES_BYTES, SNAPSHOTS_BYTES = 1 << 20, 1 << 18
RECOVERS_S = 40.0


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own, with no more room than this."""
    folder.mkdir(parents=True)
    option = f"size={size_bytes},mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", option, "oneton-test", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Take all the room that is left; give it back at the end."""
    filler = folder / ".filler"
    with filler.open("wb", buffering=0) as file:
        block = bytes(4096)
        try:
            while file.write(block):
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def native_of(server: Server, key: dict[str, str]) -> Iterator[Native]:
    api = Native(server.url, key["client_secret"])
    with api.http:
        yield api


def try_to_enroll(api: Native, photo: bytes) -> httpx.Response:
    return api.http.post(DEFAULT, json={"image": as_base64(photo)})


def check_refused(api: Native, key: dict[str, str], photo: bytes) -> None:
    """In the form of both APIs, and soon."""
    began_s = time.monotonic()
    reply = try_to_enroll(api, photo)
    assert time.monotonic() - began_s < RECOVERS_S
    check_problem(reply, 503, "unavailable")
    assert int(reply.headers["Retry-After"]) >= 1
    form = {"grant_type": "client_credentials", **key}
    token = api.http.post(TOKEN, data=form).json()["access_token"]
    reply = api.http.post(
        INSERT, json={"idPhoto": as_base64(photo)}, headers={"Authorization": f"Bearer {token}"}
    )
    assert reply.status_code == 503, reply.text
    assert reply.headers["Retry-After"].isdecimal()
    assert reply.json()["message"].startswith("UNAVAILABLE")


def check_nothing_more(place: Place, faces: int) -> None:
    assert asyncio.run(place.count("face")) == faces
    assert len(asyncio.run(place.objects())) == faces


def enroll_once_there_is_room(api: Native, photo: bytes) -> None:
    deadline = time.monotonic() + RECOVERS_S
    reply = try_to_enroll(api, photo)
    while reply.status_code == 503 and time.monotonic() < deadline:
        time.sleep(float(reply.headers["Retry-After"]))
        reply = try_to_enroll(api, photo)
    assert reply.status_code == 201, reply.text


def found(api: Native, photo: bytes) -> list[Any]:
    return [each["face_id"] for each in api.identify(photo, limit=1)["candidates"]]


def test_on_a_full_image_disk_searches_go_on_and_enrolments_wait_for_room(
    make_place: MakePlace, people: dict[str, bytes], tmp_path: Path
) -> None:
    ada, bea = people["ada"], people["bea"]
    place = make_place(ONETON_DATA_DIR=str(tmp_path / "data"))
    if "ONETON_S3_ENDPOINT" in place.environ:
        pytest.skip("images are no files here")
    with (
        small_disk(tmp_path / "data" / "images", IMAGES_BYTES) as disk,
        run_server(place) as server,
    ):
        key = new_tenant(place)
        with native_of(server, key) as api:
            face_id = api.enroll(ada)
            with filled(disk):
                check_refused(api, key, bea)
                check_nothing_more(place, 1)
                assert found(api, ada) == [face_id]
                # Erasing makes room, so it must not need any.
                assert api.http.delete(f"/v1/faces/{face_id}/image").status_code == 204
                assert found(api, ada) == [face_id]
            enroll_once_there_is_room(api, bea)
            assert len(asyncio.run(place.objects())) == 1


def test_with_a_full_object_store_searches_go_on_and_enrolments_wait_for_room(
    make_place: MakePlace, people: dict[str, bytes], tmp_path: Path
) -> None:
    """The store refuses to write as long as its disk has less room than it is told to keep."""
    ada, bea = people["ada"], people["bea"]
    (tmp_path / "store").mkdir()
    store = Seaweed(tmp_path / "store")
    store.start()
    try:
        place = make_place(**store.settings("oneton-full"))
        with run_server(place) as server:
            key = new_tenant(place)
            with native_of(server, key) as api:
                face_id = api.enroll(ada)
                store.kill()
                with store.full():
                    check_refused(api, key, bea)
                    assert found(api, ada) == [face_id]
                    link = api.json(f"/v1/faces/{face_id}/image-link")["url"]
                    assert api.http.get(link).content == ada
                    check_nothing_more(place, 1)
                store.start()
                enroll_once_there_is_room(api, bea)
                check_nothing_more(place, 2)
    finally:
        store.kill()


def test_on_a_full_disk_for_snapshots_answers_go_on_and_snapshots_are_taken_later(
    make_place: MakePlace, people: dict[str, bytes], tmp_path: Path
) -> None:
    # A quarter of what is sealed at: with fewer there is nothing to keep up.
    photos = [photo for one in people.values() for photo in variations(one, 2, 0)]
    with small_disk(tmp_path / "snapshots", SNAPSHOTS_BYTES) as disk:
        place = make_place(
            ONETON_INDEX_DIR=str(disk),
            ONETON_INDEX_SEAL_FACES="64",
            ONETON_SNAPSHOT_LEAST_FACES="1",
            ONETON_SNAPSHOT_CHANGES="1",
            ONETON_SNAPSHOT_INTERVAL_S="1",
        )
        with run_server(place) as server:
            key = new_tenant(place)
            with native_of(server, key) as api:
                with filled(disk):
                    ids = {api.enroll(photo): photo for photo in photos}
                    wait_for_line(server, "a snapshot cannot be written")
                    for face_id, photo in ids.items():
                        assert found(api, photo) == [face_id]
                    said = server.log.read_text()
                    assert said.count("cannot be written") == 1, said[-3000:]
                    assert not list(disk.rglob("*.json"))
                tenant = place.json("tenant", "list")[0]["name"]
                place.command("snapshot", "take", "--tenant", tenant)
                wait_for_line(server, "snapshot taken")
                assert list(disk.rglob("*.json"))
                assert not list(disk.rglob("*.writing"))


def wait_for_line(server: Server, words: str) -> None:
    deadline = time.monotonic() + RECOVERS_S
    while words not in server.log.read_text():
        assert time.monotonic() < deadline, server.log.read_text()[-3000:]
        time.sleep(0.1)
