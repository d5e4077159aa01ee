"""A gallery changes its model pack while it answers, through kill -9, and back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from _photos import variations

from tests.fixtures.servers import (
    ONETON,
    Client,
    MakeClient,
    MakePlace,
    Place,
    new_tenant,
    run_server,
)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(240)]

STATES = ("filling", "filled")


@contextmanager
def run_worker(place: Place, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `oneton worker` until the block ends."""
    with (place.folder / "worker.log").open("ab") as output:
        process = subprocess.Popen(
            [*ONETON, "worker"],
            cwd=place.folder,
            env={**place.environ, **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)


def status(place: Place) -> dict[str, Any]:
    (work,) = place.json("reindex", "status")
    found: dict[str, Any] = work
    return found


def wait_for(place: Place, *states: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        work = status(place)
        if work["state"] in states:
            return work
        time.sleep(0.3)
    pytest.fail(f"still {work}: {(place.folder / 'worker.log').read_text()[-3000:]}")


def enroll(client: Client, people: dict[str, bytes]) -> dict[str, str]:
    return {name: client.insert(photo) for name, photo in people.items()}


def found_as(client: Client, people: dict[str, bytes]) -> dict[str, str | None]:
    found = {}
    for name, photo in people.items():
        reply = client.search(variations(photo, 1, seed=5)[0])
        found[name] = reply.get("oneToNVerificationId")
    return found


@pytest.fixture(scope="module")
def people_now(people: dict[str, bytes]) -> dict[str, bytes]:
    return dict(list(people.items())[:8])


@pytest.fixture(scope="module")
def people_later(people: dict[str, bytes]) -> dict[str, bytes]:
    return dict(list(people.items())[8:])


def test_a_gallery_moves_to_another_pack_and_back(
    make_place: MakePlace,
    make_client: MakeClient,
    turned_pack: Path,
    people_now: dict[str, bytes],
    people_later: dict[str, bytes],
) -> None:
    place = make_place()
    with run_server(place) as server:
        credentials = new_tenant(place, "acme")
        client = make_client(server.url, credentials)
        ids = enroll(client, people_now)
        erased, purged, *kept = people_now
        assert client.erase(ids[erased]) == 204
        place.command("purge", ids[purged], "--tenant", "acme")
        place.command("models", "add", str(turned_pack))
        plan = place.json("reindex", "plan", "--to", "turned")
        (planned,) = plan["plan"]["galleries"]
        assert (planned["plan"]["to_embed"], planned["plan"]["to_drop"]) == (len(kept), 1)
        before = found_as(client, people_now)
        assert before == {name: ids[name] if name != purged else None for name in people_now}

        place.command("reindex", "start", "--to", "turned", "--rate", "100")
        (first_later,) = list(people_later)[:1]
        later = enroll(client, {first_later: people_later[first_later]})
        with run_worker(place):
            work = wait_for(place, "kept", "stopped")
        assert (work["state"], work["dropped"], work["failed"]) == ("kept", 1, 0)
        assert work["agreed"] == work["compared"]

        (run,) = client.http.get("/v1/reindex-runs").json()["items"]
        assert run["to_pack"] == "turned"
        (gallery,) = run["galleries"]
        assert (gallery["state"], gallery["embedded"], gallery["dropped"]) == ("kept", len(kept), 1)
        assert client.http.get(f"/v1/reindex-runs/{run['run_id']}").json() == run
        stranger = make_client(server.url, new_tenant(place))
        assert stranger.http.get("/v1/reindex-runs").json() == {"items": []}
        refused = stranger.http.get(f"/v1/reindex-runs/{run['run_id']}")
        assert refused.headers["content-type"] == "application/problem+json"
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")

        after = found_as(client, people_now)
        assert after == {name: ids[name] if name in kept else None for name in people_now}
        assert found_as(client, {first_later: people_later[first_later]}) == later
        shown = place.json("gallery", "show", "--tenant", "acme")
        assert (shown["pack"]["name"], shown["second_pack"]["name"]) == ("turned", "buffalo_sc")
        assert client.erase(ids[erased]) == 404

        (last,) = list(people_later)[1:2]
        later |= enroll(client, {last: people_later[last]})
        back = place.json("reindex", "rollback")
        assert back == {"rolled_back": {"default": 1}}
        assert place.json("gallery", "show", "--tenant", "acme")["pack"]["name"] == "buffalo_sc"
        assert found_as(client, people_now) == before
        assert found_as(client, people_later) == later
        assert place.command("reindex", "rollback", check=False).returncode == 3
    log = server.log.read_text()
    assert "Traceback" not in log


def test_a_server_that_is_alone_does_the_work_and_goes_on_after_kill_9(
    make_place: MakePlace,
    make_client: MakeClient,
    small_pack: Path,
    people_now: dict[str, bytes],
) -> None:
    place = make_place()
    with run_server(place) as server:
        credentials = new_tenant(place, "acme")
        client = make_client(server.url, credentials)
        ids = enroll(client, people_now)
        place.command("models", "add", str(small_pack))
        place.command("reindex", "start", "--to", "small", "--rate", "20", "--keep-old", "1s")
        server.kill()
    with run_server(place) as server:
        client = make_client(server.url, credentials)
        assert found_as(client, people_now) == ids
        work = wait_for(place, "kept", "finished", "stopped")
        assert work["state"] != "stopped", work["why"]
        assert found_as(client, people_now) == ids
        wait_for(place, "finished")
        assert found_as(client, people_now) == ids
        shown = place.json("gallery", "show", "--tenant", "acme")
        assert (shown["pack"]["name"], shown["second_pack"]) == ("small", None)


def test_a_cancelled_run_leaves_everything_as_it_was(
    make_place: MakePlace,
    make_client: MakeClient,
    turned_pack: Path,
    people_now: dict[str, bytes],
) -> None:
    place = make_place()
    with run_server(place) as server:
        client = make_client(server.url, new_tenant(place, "acme"))
        ids = enroll(client, people_now)
        place.command("models", "add", str(turned_pack))
        place.command("reindex", "start", "--to", "turned")
        place.command("reindex", "pause")
        assert status(place)["run_state"] == "paused"
        assert place.command("models", "remove", "turned", check=False).returncode == 3
        place.command("reindex", "cancel")
        assert found_as(client, people_now) == ids
        assert place.json("gallery", "show", "--tenant", "acme")["second_pack"] is None
        assert status(place)["state"] == "cancelled"
