"""`oneton snapshot`: taken with and without a server, listed and verified without a database."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from tests.fixtures.damage import flip
from tests.fixtures.servers import (
    MakeClient,
    MakePlace,
    Place,
    new_tenant,
    run_server,
)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def place(
    make_place: MakePlace, people: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """A tenant with three faces."""
    made = make_place()
    made.command("tenant", "create", "acme")
    photos = tmp_path_factory.mktemp("photos")
    for name in ("ada", "bea", "gus"):
        (photos / f"{name}.jpg").write_bytes(people[name])
    assert made.json("import", str(photos), "--tenant", "acme")["enrolled"] == 3
    return made


@pytest.fixture
def alone(place: Place, tmp_path: Path) -> Place:
    """The same with a folder of its own for snapshots."""
    return Place(
        place.folder, {**place.environ, "ONETON_INDEX_DIR": str(tmp_path / "index")}, place.dsns
    )


def without_database(place: Place) -> Place:
    """Where neither database nor models can be found."""
    away = {
        "ONETON_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x",
        "ONETON_MODEL_PACK": "no_such_pack",
    }
    environ = {**place.environ, **away}
    del environ["ONETON_DATABASE_OWNER_URL"]
    return Place(place.folder, environ, None)


def test_without_a_server_the_command_takes_the_snapshot_itself(alone: Place) -> None:
    taken = alone.json("snapshot", "take", "--tenant", "acme")
    assert (taken["gallery"], taken["head"], taken["faces"]) == ("default", 3, 3)
    bare = without_database(alone)
    (listed,) = bare.json("snapshot", "list")
    assert {**listed, "age_s": 0} == {**taken, "age_s": 0}
    assert listed["state"] == "kept"
    said = bare.command("snapshot", "list").stdout
    assert listed["tenant_id"] in said
    assert "buffalo_sc" in said
    verified = bare.json("snapshot", "verify", "default", "--tenant", listed["tenant_id"])
    assert (verified["damaged"], verified["leftover_files"]) == (0, 0)
    assert bare.command("snapshot", "verify").stdout.startswith("1 snapshots whole, 0 damaged")


def test_verify_names_what_is_damaged_and_changes_nothing(alone: Place) -> None:
    path = Path(alone.json("snapshot", "take", "--tenant", "acme")["path"])
    state = path.with_suffix(".state")
    flip(0.5)(state)
    (path.parent / "of-a-crash.json.writing").write_bytes(b"half")
    before = sorted(path.parent.rglob("*"))
    done = without_database(alone).command("snapshot", "verify", check=False)
    assert done.returncode == 1
    damaged, summary = done.stdout.splitlines()
    assert damaged.startswith(f"damaged: {path}: {state.name} (")
    assert damaged.endswith("is not what was written")
    assert summary == "0 snapshots whole, 1 damaged; 1 files (4 bytes) that none of them names"
    assert sorted(path.parent.rglob("*")) == before
    assert json.loads(alone.command("snapshot", "verify", "--json", check=False).stdout)[
        "snapshots"
    ][0]["why"]


def test_a_running_server_takes_it_and_the_next_one_opens_it(
    place: Place, make_client: MakeClient, people: dict[str, bytes], tmp_path: Path
) -> None:
    index_dir = str(tmp_path / "index")
    asker = Place(place.folder, {**place.environ, "ONETON_INDEX_DIR": index_dir}, place.dsns)
    with run_server(place, ONETON_INDEX_DIR=index_dir) as server:
        credentials = new_tenant(place, "fresh")
        client = make_client(server.url, credentials)
        found = [client.insert(people[name]) for name in ("hal", "jon")]
        taken = asker.json("snapshot", "take", "--tenant", "fresh")
        assert (taken["head"], taken["faces"], taken["folder"]) == (2, 2, index_dir)
        assert "snapshot taken" in server.log.read_text()
        unheld = asker.json("snapshot", "take", "default", "--tenant", "acme")
        assert unheld["faces"] == 3
        assert asker.command("snapshot", "take", "none", "--tenant", "acme", check=False).stderr
    listed = asker.json("snapshot", "list")
    assert {each["faces"] for each in listed} == {2, 3}
    with run_server(place, ONETON_INDEX_DIR=index_dir) as server:
        client = make_client(server.url, credentials)
        assert client.search(people["jon"])["oneToNVerificationId"] == found[1]
        assert "snapshot set aside" not in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["take", "none", "--tenant", "acme"], 3, "no such gallery: none"),
        (["take", "--tenant", "nobody"], 3, "no such tenant: nobody"),
        (["take", "--within", "0"], 2, "--within"),
        (["verify", "none"], 3, "no such snapshot: none"),
        (["verify", "--tenant", "acme"], 2, "not a valid UUID"),
        (["list", "none"], 2, "none"),
    ],
)
def test_wrong_use_has_its_exit_code(
    alone: Place, arguments: list[str], code: int, says: str
) -> None:
    done = alone.command("snapshot", *arguments, check=False)
    assert (done.returncode, says in done.stderr) == (code, True)
    assert "Traceback" not in done.stderr


def test_a_gallery_without_faces_has_no_snapshot(alone: Place) -> None:
    alone.command("tenant", "create", "empty", check=False)
    done = alone.command("snapshot", "take", "--tenant", "empty", check=False)
    assert (done.returncode, done.stderr) == (3, "oneton: gallery default has no faces\n")


def test_a_holder_that_takes_none_in_time_is_exit_4(alone: Place) -> None:
    index_dir = Path(alone.environ["ONETON_INDEX_DIR"])
    index_dir.mkdir()
    lock = os.open(index_dir / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        done = alone.command("snapshot", "take", "--tenant", "acme", "--within", "0.5", check=False)
    finally:
        os.close(lock)
    assert done.returncode == 4
    assert done.stderr.startswith("oneton: no server took a snapshot of default within 0.5 s")


def test_a_folder_that_cannot_be_read_is_exit_4(alone: Place, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("not a folder")
    for command in (["list"], ["verify"], ["take", "--tenant", "acme"]):
        done = alone.command("snapshot", *command, check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (4, 1), done.stderr
        assert "Not a directory" in done.stderr


def test_doctor_counts_snapshots(alone: Place) -> None:
    alone.command("snapshot", "take", "--tenant", "acme")
    said = {each["part"]: each["said"] for each in alone.json("doctor")}
    assert said["snapshots"] == "1 of 1 galleries, 0 set aside"
