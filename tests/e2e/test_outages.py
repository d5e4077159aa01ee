"""Kill -9 and restart of every part in the middle of mixed load: what callers see, what is left."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from _cluster import Cluster, Postgres, Process
from _seaweed import Seaweed

from oneton.domain.model import Permission
from tests.fixtures.outages import Outage, Traffic, summary
from tests.fixtures.servers import _bare_environ

SECONDS = float(os.environ.get("ONETON_TEST_OUTAGE_SECONDS", "20"))
PER_S = 200 / 60
LONGEST_S = 45.0
"""An answer takes no longer, whatever is down: a repeated key waits 30 s for the first call."""
READY_WITHIN_S = 20.0

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.timeout(240 + 2 * SECONDS),
]


class Parts:
    """Everything, over parts that can be killed."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.chmod(0o755)
        self.postgres = Postgres(folder / "postgres")
        stack.callback(self.postgres.stop)
        asyncio.run(self.postgres.create())
        (folder / "objects").mkdir()
        self.store = Seaweed(folder / "objects")
        stack.callback(self.store.kill)
        self.store.start()
        environ = {
            **_bare_environ(),
            **self.postgres.settings,
            **self.store.settings(f"oneton-{uuid4().hex[:8]}"),
            "ONETON_DATA_DIR": str(folder / ".oneton"),
            "ONETON_INDEX_DIR": str(folder / "index_snapshots"),
        }
        self.cluster = Cluster(folder, environ, servers=2, workers=2)
        stack.enter_context(self.cluster.running())
        every = [str(each) for each in Permission]
        self.always = self.cluster.credentials("always", *every)
        self.missing = self.cluster.credentials("missing", *every)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with ExitStack() as stack:
        yield Parts(tmp_path_factory.mktemp("cluster"), stack)


@asynccontextmanager
async def away(outages: list[Outage], part: str, server: str | None = None) -> AsyncIterator[None]:
    outage = Outage(part, server, time.monotonic())
    outages.append(outage)
    try:
        yield
    finally:
        outage.ended_s = time.monotonic()


async def until_ready(parts: Parts) -> None:
    """Return once every server says that it can work."""
    async with asyncio.timeout(READY_WITHIN_S), httpx.AsyncClient(timeout=30) as http:
        for url in parts.cluster.urls:
            # Another process gets ready, so there is nothing here to wait on.
            while (await http.get(f"{url}/readyz")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def restart(process: Process, down_s: float) -> None:
    await asyncio.to_thread(process.kill)
    await asyncio.sleep(down_s)
    process.start()
    await asyncio.to_thread(process.wait)


async def kill_everything_once(parts: Parts, outages: list[Outage]) -> None:
    """Each part in turn, with quiet before and after."""
    quiet_s = down_s = SECONDS / 9
    await asyncio.sleep(quiet_s)
    async with away(outages, "postgres"):
        await asyncio.to_thread(parts.postgres.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(parts.postgres.start)
        await until_ready(parts)
    await asyncio.sleep(quiet_s)
    async with away(outages, "object store"):
        await asyncio.to_thread(parts.store.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(parts.store.start)
        await until_ready(parts)
    await asyncio.sleep(quiet_s)
    async with away(outages, "worker"):
        await restart(parts.cluster.workers[0], down_s)
    await asyncio.sleep(quiet_s)
    server = parts.cluster.servers[0]
    async with away(outages, "server", server.url):
        await restart(server, down_s)
    await asyncio.sleep(quiet_s)


async def test_errors_are_clear_and_no_acknowledged_change_is_lost_when_parts_are_killed(
    parts: Parts, people: dict[str, bytes]
) -> None:
    traffic = Traffic(parts.cluster.urls, people, parts.always, parts.missing)
    await traffic.open()
    outages: list[Outage] = []
    stop = asyncio.Event()
    running = asyncio.create_task(traffic.run(stop, PER_S))
    try:
        job = await delete_a_gallery(traffic, parts, people)
        await kill_everything_once(parts, outages)
    finally:
        stop.set()
        await running
    print("\n" + summary(traffic.calls, outages))
    failed = [call for call in traffic.calls if not 200 <= call.status < 300]
    assert [call for call in traffic.calls if call.wrong] == []
    unexcused = [
        (call.began_s - outages[0].began_s, call)
        for call in failed
        if call.status != 404 and not any(each.excuses(call) for each in outages)
    ]
    spans = [(o.part, o.began_s - outages[0].began_s, o.ended_s - o.began_s) for o in outages]
    assert unexcused == [], spans
    assert max(call.ended_s - call.began_s for call in traffic.calls) < LONGEST_S
    await check_what_is_left(parts, traffic)
    await check_the_job(parts, job)
    await traffic.close()
    await check_rows(parts, traffic)
    check_consistency(parts)


async def delete_a_gallery(traffic: Traffic, parts: Parts, people: dict[str, bytes]) -> str:
    """Give the workers something to do; returns the job's id."""
    headers = {"Authorization": f"Bearer {parts.always['client_secret']}"}
    async with httpx.AsyncClient(
        base_url=parts.cluster.urls[1], headers=headers, timeout=60
    ) as http:
        (await http.post("/v1/galleries", json={"name": "old"})).raise_for_status()
        for photo in people.values():
            files = {"image": photo}
            (await http.post("/v1/galleries/old/faces", files=files)).raise_for_status()
        reply = await http.delete("/v1/galleries/old", params={"confirm": "old"})
        return str(reply.raise_for_status().json()["job_id"])


async def check_the_job(parts: Parts, job: str) -> None:
    headers = {"Authorization": f"Bearer {parts.always['client_secret']}"}
    async with (
        asyncio.timeout(40),
        httpx.AsyncClient(base_url=parts.cluster.urls[0], headers=headers) as http,
    ):
        while (await http.get(f"/v1/jobs/{job}")).json()["state"] != "done":  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def check_what_is_left(parts: Parts, traffic: Traffic) -> None:
    """By photo, by id and by image, on both servers in turn."""
    ledger = traffic.ledger
    assert ledger.keyed <= set(ledger.enrolled)
    headers = {"Authorization": f"Bearer {parts.always['client_secret']}"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as http:
        for number, (name, face_id) in enumerate(ledger.enrolled.items()):
            url = parts.cluster.urls[number % 2]
            files = {"image": ledger.photos[name]}
            reply = await http.post(f"{url}/v1/identify", files=files, data={"limit": "1"})
            best = [each["face_id"] for each in reply.raise_for_status().json()["candidates"]]
            shown = await http.get(f"{url}/v1/faces/{face_id}")
            link = await http.get(f"{url}/v1/faces/{face_id}/image-link")
            if face_id in ledger.purged:
                assert (shown.status_code, link.status_code) == (404, 404)
                assert best != [face_id]
                continue
            assert best == [face_id], name
            assert shown.json()["external_id"] == name
            if face_id in ledger.erased:
                assert link.status_code == 404
            else:
                image = await http.get(link.raise_for_status().json()["url"])
                assert image.content == ledger.photos[name]
    for name, ids in ledger.ones.items():
        assert len(ids) == 1, name


async def check_rows(parts: Parts, traffic: Traffic) -> None:
    """Nothing twice, no head missing or used twice, no template without its face."""
    ledger = traffic.ledger
    connection = await asyncpg.connect(parts.postgres.owner_dsn, server_settings={"role": "none"})
    try:
        external = await connection.fetch(
            """select external_id, count(*) as rows from face
               where external_id is not null group by 1"""
        )
        assert {row["external_id"] for row in external if row["rows"] > 1} == set()
        known = {row["external_id"] for row in external}
        assert set(ledger.present.values()) <= known
        assert known <= set(ledger.photos) | set(ledger.staying)
        ones = await connection.fetchval(
            "select count(*) from face join tenant using (tenant_id) where name = 'missing'"
        )
        known_ones = len(set().union(*ledger.ones.values()))
        assert known_ones <= ones <= len(traffic.people)
        assert await connection.fetch(_WRONG_HEADS) == []
        assert await connection.fetchval(_WRONG_TEMPLATES) == 0
    finally:
        await connection.close()


def check_consistency(parts: Parts) -> None:
    """What calls that failed left in the store is swept; then there is nothing to be found."""
    swept: dict[str, Any] = json.loads(parts.cluster.oneton("sweep", "--older-than=0", "--json"))
    assert swept["missing"] == []
    again = json.loads(parts.cluster.oneton("sweep", "--older-than=0", "--dry-run", "--json"))
    assert (again["missing"], again["leftovers"], again["foreign"]) == ([], [], 0)
    parts.cluster.oneton("doctor", "--deep")


_WRONG_HEADS = """
with stamps as (
  select gallery_no, added_at_head as head from face
  union all select gallery_no, removed_at_head from face where removed_at_head is not null)
select gallery_no, gallery.head, count(*), count(distinct stamps.head), max(stamps.head)
from gallery join stamps using (gallery_no) where deleted_at is null
group by gallery_no, gallery.head
having count(*) <> gallery.head or count(distinct stamps.head) <> gallery.head
  or max(stamps.head) <> gallery.head or min(stamps.head) <> 1"""

_WRONG_TEMPLATES = """
select count(*) from face join gallery using (gallery_no)
left join template t on t.face_no = face.face_no and t.model_pack_no = gallery.model_pack_no
where deleted_at is null and (face_id is null) <> (t.face_no is null)"""
