"""`oneton backup` and `oneton doctor --deep`, beside a server that is at work."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.fixtures.servers import (
    INSERT,
    Client,
    MakeClient,
    MakePlace,
    Place,
    as_base64,
    new_tenant,
    run_server,
)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(240)]

SAMPLE = int(os.environ.get("ONETON_TEST_BACKUP_SAMPLE", "50"))


def own_index(place: Place) -> Place:
    """Snapshots in the place's own folder."""
    return Place(
        place.folder, {**place.environ, "ONETON_INDEX_DIR": str(place.folder / "index")}, place.dsns
    )


def first_photo(folder: Path) -> bytes:
    return min(folder.glob("*.jpg")).read_bytes()


@contextmanager
def changing(client: Client, photos: list[bytes]) -> Iterator[list[str]]:
    """Enrol and erase until the block ends; yields the ids that were enrolled."""
    going, ids = threading.Event(), list[str]()

    def change() -> None:
        while not going.is_set():
            for photo in photos:
                ids.append(client.insert(photo))
                if len(ids) % 3 == 0:
                    assert client.erase(ids[-2]) < 300

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield ids
    finally:
        going.set()
        thread.join()


def test_a_backup_under_load_is_restored_and_proved(
    make_place: MakePlace,
    make_client: MakeClient,
    people: dict[str, bytes],
    s3_settings: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    place, target = own_index(make_place()), own_index(make_place(**s3_settings))
    backup = str(tmp_path / "backup")
    with run_server(place) as server:
        client = make_client(server.url, new_tenant(place, "acme"))
        for name in sorted(people):
            client.insert(people[name])
        if SAMPLE > 50:
            folders = sorted(request.getfixturevalue("lfw").iterdir())
            for folder in folders[: SAMPLE + SAMPLE // 5]:
                client.http.post(INSERT, json={"idPhoto": as_base64(first_photo(folder))})
        with changing(client, [people["ada"], people["bea"]]) as ids:
            made = place.json("backup", "create", backup)
            deep = json.loads(place.command("doctor", "--deep", "--json", check=False).stdout)
            assert deep["clean"], deep
        assert ids
        assert made["objects"]["missing"] == 0
    assert place.json("backup", "verify", backup) == {"whole": True, "damages": []}

    proof = target.json("backup", "restore", backup, "--sample", str(SAMPLE))
    assert proof["proved"]
    print(proof["sampled"], made["objects"])
    assert proof["sampled"]["agreed"] == proof["sampled"]["searched"] > 5
    deep = target.json("doctor", "--deep", "--checksums")
    assert deep["clean"], deep
    again = target.command("backup", "restore", backup, check=False)
    assert again.returncode == 3
    assert "the database is not empty: 1 tenants" in again.stderr


def run_sql(place: Place, sql: str) -> None:
    async def work() -> None:
        assert place.dsns is not None
        connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
        await connection.execute(sql)
        await connection.close()

    asyncio.run(work())


def test_a_lost_template_is_made_again_and_a_running_server_finds_the_face(
    make_place: MakePlace, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    place = own_index(make_place())
    with run_server(place) as server:
        client = make_client(server.url, new_tenant(place, "acme"))
        ids = {name: client.insert(people[name]) for name in sorted(people)}
        run_sql(place, "delete from template where face_no in (2, 3)")
        run_sql(
            place, "update face set metadata = '{\"a\": 1}', external_id = 'x' where face_no = 2"
        )
        done = place.command("doctor", "--deep", check=False)
        assert done.returncode == 1
        assert done.stdout.count("template missing: ") == 2
        deep = place.json("doctor", "--deep", "--repair")
        assert deep["clean"]
        assert {each["said"] for each in deep["repairs"]} == {"embedded again"}
        assert place.json("doctor", "--deep")["clean"]
        for name, face_id in ids.items():
            assert client.search(people[name])["oneToNVerificationId"] == face_id
    assert asyncio.run(place.count("face", "external_id = 'x' and face_id is not null")) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["doctor", "--repair"], 2, "need --deep"),
        (["doctor", "--deep", "--accept-lost-images"], 2, "needs --repair"),
        (["backup", "verify", "nothing"], 3, "no such backup: nothing"),
        (["backup", "restore", "nothing"], 3, "no such backup: nothing"),
        (["backup", "create", "new", "--incremental-from", "no"], 3, "no such backup: no"),
    ],
)
def test_a_wrong_call_is_one_line(
    shared_place: Place, arguments: list[str], code: int, says: str
) -> None:
    done = shared_place.command(*arguments, check=False)
    assert done.returncode == code
    assert says in done.stderr


def test_the_embedded_database_is_backed_up_beside_its_server(
    bare_place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    backup, restored = str(tmp_path / "backup"), tmp_path / "restored"
    photo = tmp_path / "photos" / "ada.jpg"
    photo.parent.mkdir()
    photo.write_bytes(people["ada"])
    restored.mkdir()
    there = Place(restored, bare_place.environ, None)
    with run_server(bare_place) as server:
        bare_place.command("tenant", "create", "backed-up")
        bare_place.command("import", str(photo.parent), "--tenant", "backed-up")
        made = bare_place.json("backup", "create", backup)
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    proof = json.loads(there.command("backup", "restore", backup, "--json").stdout)
    assert proof["proved"]
    assert proof["restored"]["rows"] == sum(e["rows"] for e in made["rows"]["tables"].values())
    assert there.command("search", str(photo), "--tenant", "backed-up").returncode == 0
