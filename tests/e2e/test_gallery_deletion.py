"""A gallery that is deleted over HTTP: gone for every replica at once, erased soon after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.native import Native, check_problem
from tests.fixtures.servers import MakePlace, Place, as_base64, new_tenant, run_server

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(180)]

OLD = "/v1/galleries/old"


@pytest.fixture(scope="module", params=["files", "s3"])
def place(make_place: MakePlace, request: pytest.FixtureRequest) -> Place:
    settings = request.getfixturevalue("s3_settings") if request.param == "s3" else {}
    return make_place(ONETON_SNAPSHOT_COPY="true", **settings)


@contextmanager
def caller(url: str, secret: str) -> Iterator[Native]:
    api = Native(url, secret)
    try:
        yield api
    finally:
        api.http.close()


def ask(api: Native, photo: bytes) -> httpx.Response:
    body = {"image": as_base64(photo), "galleries": ["old"]}
    return api.http.post("/v1/identify", json=body)


def fill(api: Native, people: dict[str, bytes]) -> list[str]:
    api.create("old")
    return [api.enroll(photo, "old") for photo in people.values()]


def delete(api: Native) -> dict[str, Any]:
    reply = api.http.delete(OLD, params={"confirm": "old"})
    assert reply.status_code == 202, reply.text
    job: dict[str, Any] = reply.json()
    return job


def wait_for(api: Native, job: dict[str, Any]) -> dict[str, Any]:
    for _ in range(300):
        shown = api.json(f"/v1/jobs/{job['job_id']}")
        if shown["state"] not in ("queued", "running"):
            return shown
        time.sleep(0.1)
    pytest.fail(f"the job did not end: {shown}")


def snapshots(place: Place) -> list[Path]:
    return list((place.folder / "index_snapshots").rglob("old.*/*/*.json"))


def check_nothing_is_left(place: Place) -> None:
    assert not [key for key in asyncio.run(place.objects()) if "/old/" in key]
    rows = "gallery_no not in (select gallery_no from gallery where deleted_at is null)"
    assert asyncio.run(place.count("face", rows)) == 0
    assert asyncio.run(place.count("gallery", "deleted_at is not null")) == 0
    # Each process hears of it, or looks for it at its start.
    for _ in range(300):
        if not snapshots(place):
            return
        time.sleep(0.1)
    pytest.fail(f"left: {snapshots(place)}")


def test_a_deleted_gallery_is_gone_on_every_replica_and_its_name_can_be_used(
    place: Place, people: dict[str, bytes]
) -> None:
    with run_server(place) as one, run_server(place) as two:
        secret = new_tenant(place, "replicated")["client_secret"]
        with caller(one.url, secret) as api, caller(two.url, secret) as other:
            face_ids = fill(api, people)
            for each in (api, other):
                assert ask(each, people["ada"]).json()["candidates"][0]["face_id"] in face_ids
            place.command("snapshot", "take", "old", "--tenant", "replicated")
            assert snapshots(place)
            job = delete(api)
            for each in (api, other):
                check_problem(ask(each, people["ada"]), 404, "not_found")
                check_problem(each.http.get(f"/v1/faces/{face_ids[0]}"), 404, "not_found")
            ended = wait_for(other, job)
            assert (ended["state"], ended["done"], ended["total"]) == ("done", 10, 10)
            check_nothing_is_left(place)
            other.create("old")
            kept = other.enroll(people["ada"], "old")
            for each in (api, other):
                found = ask(each, people["ada"]).json()
                assert [each["face_id"] for each in found["candidates"]] == [kept]
                assert not ask(each, people["bea"]).json()["match"]
            assert wait_for(api, delete(api))["done"] == 1
            check_nothing_is_left(place)


def test_a_job_goes_on_after_every_server_was_killed(
    place: Place, people: dict[str, bytes]
) -> None:
    with run_server(place) as server:
        secret = new_tenant(place, "killed")["client_secret"]
        with caller(server.url, secret) as api:
            fill(api, people)
            assert ask(api, people["ada"]).json()["match"]
            place.command("snapshot", "take", "old", "--tenant", "killed")
            job = delete(api)
            server.kill()
    with run_server(place) as server, caller(server.url, secret) as api:
        check_problem(ask(api, people["ada"]), 404, "not_found")
        ended = wait_for(api, job)
        assert (ended["state"], ended["done"], ended["total"]) == ("done", 10, 10)
        assert api.json("/v1/jobs")["items"] == [ended]
        check_nothing_is_left(place)
