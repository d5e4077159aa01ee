"""The command line over HTTP: the same commands with the same output and exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from oneton.client import Client
from tests.fixtures.pictures import landscape
from tests.fixtures.servers import ONETON, Place, Server, new_tenant

pytestmark = pytest.mark.model


class Desk:
    """A folder with a key's file and no setting but the server."""

    def __init__(self, folder: Path, environ: dict[str, str], url: str, secret: str) -> None:
        self.folder = folder
        self.secret = secret
        self.url = url
        self.key_file = folder / "key"
        self.key_file.write_text(f"{secret}\n")
        self._environ = {name: v for name, v in environ.items() if not name.startswith("ONETON_")}

    def run(
        self, *arguments: str, key: bool = True, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        where = ["--url", self.url, "--key-file", str(self.key_file)] if key else []
        return subprocess.run(
            [*ONETON, *where, *arguments],
            cwd=self.folder,
            env={**self._environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def photo(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return name


@pytest.fixture
def desk(shared_place: Place, shared_server: Server, tmp_path: Path) -> Desk:
    secret = new_tenant(shared_place)["client_secret"]
    return Desk(tmp_path, dict(shared_place.environ), shared_server.url, secret)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_search_says_the_same_here_and_there(
    shared_place: Place, shared_server: Server, tmp_path: Path, people: dict[str, bytes]
) -> None:
    credentials = new_tenant(shared_place, "here-and-there")
    environ = dict(shared_place.environ)
    desk = Desk(tmp_path, environ, shared_server.url, credentials["client_secret"])
    with Client(desk.url, key=desk.secret) as client:
        client.enroll(people["ada"])
    photo = desk.photo("ada.jpg", people["ada"])
    there = desk.run("search", photo)
    here = subprocess.run(
        [*ONETON, "search", photo, "--tenant", "here-and-there"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (there.returncode, here.returncode) == (0, 0), there.stderr + here.stderr
    assert there.stdout == here.stdout
    there_json = json.loads(desk.run("search", photo, "--json").stdout)
    assert there_json["match"]
    assert set(there_json) == {"match", "threshold", "candidates", "faces"}
    assert set(there_json["candidates"][0]) == {"rank", "face_id", "score"}


def test_a_search_that_finds_nobody_exits_with_1(desk: Desk, people: dict[str, bytes]) -> None:
    done = desk.run("search", desk.photo("bea.jpg", people["bea"]))
    assert done.returncode == 1
    assert "no match at threshold 50" in done.stdout
    refused = desk.run("search", desk.photo("sea.jpg", landscape()))
    assert (refused.returncode, refused.stderr) == (1, "oneton: no face found\n")


def test_galleries_are_made_listed_shown_and_set(desk: Desk) -> None:
    made = desk.run("gallery", "create", "watch", "--kind", "blocklist", "--target-fpir", "0.01")
    assert (made.returncode, made.stdout) == (0, "gallery watch created\n"), made.stderr
    again = desk.run("gallery", "create", "watch")
    assert again.returncode == 3
    assert again.stderr.count("\n") == 1
    listed = json.loads(desk.run("gallery", "list", "--json").stdout)
    assert [(each["gallery"]["gallery_id"], each["faces"]) for each in listed] == [
        ("default", 0),
        ("watch", 0),
    ]
    assert "target FPIR 0.01" in desk.run("gallery", "list").stdout
    shown = json.loads(desk.run("gallery", "set", "watch", "--threshold", "60", "--json").stdout)
    assert (shown["threshold"], shown["gallery"]["threshold"]) == (60, 60)
    assert "score 60" in desk.run("gallery", "show", "watch").stdout
    assert desk.run("gallery", "show", "nowhere").returncode == 3


def test_a_face_is_purged(desk: Desk, people: dict[str, bytes]) -> None:
    with Client(desk.url, key=desk.secret) as client:
        face_id = client.enroll(people["ada"]).face_id
    done = desk.run("purge", str(face_id), "--json")
    assert UUID(json.loads(done.stdout)["oneToNVerificationId"]) == face_id
    gone = desk.run("purge", str(face_id))
    assert (gone.returncode, gone.stderr) == (3, f"oneton: no such face record: {face_id}\n")


def test_the_server_and_its_key_may_come_from_variables(desk: Desk) -> None:
    by_secret = {"ONETON_URL": desk.url, "ONETON_KEY": desk.secret}
    by_file = {"ONETON_URL": desk.url, "ONETON_KEY_FILE": str(desk.key_file)}
    for environ in (by_secret, by_file):
        assert desk.run("gallery", "list", key=False, **environ).returncode == 0
    both = desk.run("gallery", "list", key=False, **by_secret, ONETON_KEY_FILE="key")
    assert both.returncode == 2
    assert desk.secret not in both.stderr


def test_a_key_that_is_unknown_is_one_line(desk: Desk) -> None:
    desk.key_file.write_text("no-such-key")
    done = desk.run("search", desk.photo("a.jpg", b"x"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("oneton: ")
