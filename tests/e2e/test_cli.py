"""The command line: what it says, to people and machines, and its exit codes."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import stat
import subprocess
import time
from collections import Counter
from pathlib import Path

import cv2
import httpx
import numpy as np
import psutil
import pytest
from _photos import variations

from tests.fixtures.servers import (
    ONETON,
    Client,
    MakeClient,
    MakePlace,
    Place,
    Server,
    as_base64,
    run_server,
)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]

COMMANDS = [
    [],
    ["serve"],
    ["tenant"],
    ["tenant", "create"],
    ["tenant", "list"],
    ["key"],
    ["key", "create"],
    ["key", "list"],
    ["key", "revoke"],
    ["key", "rotate-signing"],
    ["import"],
    ["export"],
    ["search"],
    ["duplicates"],
    ["purge"],
    ["sweep"],
    ["snapshot"],
    ["snapshot", "list"],
    ["snapshot", "verify"],
    ["snapshot", "take"],
    ["doctor"],
]


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    return make_place()


@pytest.fixture(scope="module")
def tenant(place: Place) -> str:
    place.command("tenant", "create", "acme")
    return "acme"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(place: Place, command: list[str]) -> None:
    said = place.command(*command, "--help").stdout
    assert "Usage:" in said
    if command not in ([], ["tenant"], ["key"], ["snapshot"]):
        assert "Example: " in " ".join(said.split())


def test_tenant_create_twice_is_exit_3(place: Place, tenant: str) -> None:
    again = place.command("tenant", "create", tenant, check=False)
    assert again.returncode == 3
    assert again.stderr.strip() == "oneton: there is a tenant named acme already"
    assert tenant in [each["name"] for each in place.json("tenant", "list")]


def test_key_is_created_listed_and_revoked(place: Place, tenant: str) -> None:
    made = place.json("key", "create", "--tenant", tenant, "--allow", "search", "--label", "till")
    assert made["allow"] == ["search"]
    listed = {each["key_id"]: each for each in place.json("key", "list", "--tenant", tenant)}
    assert listed[made["client_id"]]["label"] == "till"
    assert made["client_secret"] not in json.dumps(listed)
    place.command("key", "revoke", made["client_id"], "--tenant", tenant)
    listed = {each["key_id"]: each for each in place.json("key", "list", "--tenant", tenant)}
    assert listed[made["client_id"]]["revoked_at"] is not None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["key", "list", "--tenant", "nobody"], 3),
        (["key", "create", "--allow", "everything"], 2),
        (["purge", "not-a-uuid"], 2),
        (["search", "no-such-file.jpg"], 2),
        (["fly"], 2),
    ],
)
def test_wrong_use_has_its_exit_code_and_no_traceback(
    place: Place, tenant: str, arguments: list[str], code: int
) -> None:
    done = place.command(*arguments, check=False)
    assert done.returncode == code
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_import_is_resumable_and_reports_every_refused_file(
    place: Place, tenant: str, people: dict[str, bytes], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for name, photo in people.items():
        (photos / name).mkdir(parents=True)
        (photos / name / "1.jpg").write_bytes(photo)
        (photos / name / "2.jpg").write_bytes(variations(photo, 1, 9)[0])
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (photos / "text.png").write_bytes(b"text")
    report = tmp_path / "refused.csv"
    arguments = ["import", str(photos), "--tenant", tenant, "--report", str(report), "--json"]
    arguments.append("--always")
    first = place.command(*arguments, "--first-of-folder", check=False)
    assert first.returncode == 1
    assert "exception" not in first.stderr.lower()
    said = json.loads(first.stdout)
    assert (said["enrolled"], said["already"]) == (len(people), 0)
    whole = json.loads(place.command(*arguments, check=False).stdout)
    assert (whole["enrolled"], whole["already"]) == (len(people), len(people))
    with report.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["outcome"] for row in rows) == {"added": 10, "exists": 10, "refused": 2}
    refused = {row["file"]: row["reason"] for row in rows if row["outcome"] == "refused"}
    assert refused == {"broken.jpg": "BadImage", "text.png": "UnsupportedType"}
    listing = tmp_path / "list.csv"
    listing.write_text("image,name\nphotos/ada/1.jpg,Ada\nphotos/none.jpg,None\n")
    by_list = json.loads(
        place.command(
            "import", str(listing), "--tenant", tenant, "--report", str(report),
            "--json", check=False,
        ).stdout
    )  # fmt: skip
    assert (by_list["enrolled"], by_list["matched"], len(by_list["refused"])) == (0, 1, 1)

    found = place.json("search", str(photos / "ada" / "2.jpg"), "--tenant", tenant, "--attributes")
    (face,) = found["faces"]
    assert face["attributes"]["gender"] in ("female", "male")
    candidates = found["candidates"]
    assert [each["rank"] for each in candidates] == [1, 2, 3, 4, 5]
    assert candidates[0]["score"] > 90
    assert candidates[2]["score"] < 50


def test_a_gallery_with_a_floor_enrolls_no_blurred_face(
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    place.command("tenant", "create", "strict", "--least-sharpness", "60")
    sharp = cv2.imdecode(np.frombuffer(people["eve"], np.uint8), cv2.IMREAD_COLOR)
    assert sharp is not None
    cv2.imwrite(str(tmp_path / "blurred.jpg"), cv2.GaussianBlur(sharp, (0, 0), 4))
    (tmp_path / "sharp.jpg").write_bytes(people["eve"])
    report = json.loads(
        place.command(
            "import", str(tmp_path), "--tenant", "strict", "--json",
            "--report", str(tmp_path / "refused.csv"), check=False,
        ).stdout
    )  # fmt: skip
    assert list(report["enrolled_as"]) == ["sharp.jpg"]
    assert [(each["file"], each["reason"]) for each in report["refused"]] == [
        ("blurred.jpg", "LowQuality")
    ]


def test_search_of_a_stranger_is_exit_1(
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    place.command("tenant", "create", "empty")
    photo = tmp_path / "stranger.jpg"
    photo.write_bytes(people["jon"])
    done = place.command("search", str(photo), "--tenant", "empty", check=False)
    assert (done.returncode, "no match" in done.stdout) == (1, True)


def test_doctor_finds_everything_well(place: Place, tenant: str) -> None:
    findings = place.json("doctor")
    assert [each["part"] for each in findings if not each["well"]] == []
    assert {"settings", "model pack", "database", "object store", "snapshots"} <= {
        each["part"] for each in findings
    }


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"ONETON_PORT": "x"}, "settings"),
        ({"ONETON_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "database"),
        ({"ONETON_MODEL_PACK": "no_such_pack"}, "model pack"),
        (
            {
                "ONETON_S3_ENDPOINT": "http://127.0.0.1:1",
                "ONETON_S3_ACCESS_KEY": "a",
                "ONETON_S3_SECRET_KEY": "b",
            },
            "object store",
        ),
    ],
)
def test_doctor_says_what_is_ill_and_what_to_do(
    place: Place, settings: dict[str, str], part: str
) -> None:
    broken = Place(place.folder, {**place.environ, **settings}, place.dsns)
    done = broken.command("doctor", "--json", check=False)
    assert done.returncode == 1
    (ill,) = [each for each in json.loads(done.stdout) if not each["well"]]
    assert ill["part"] == part
    assert ill["todo"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ONETON_PORT": "x"}, "ONETON_PORT=x"),
        ({"ONETON_PROT": "1"}, "did you mean ONETON_PORT?"),
        ({"ONETON_MODEL_PACK": "no_such_pack"}, "no_such_pack"),
        ({"ONETON_HOST": "203.0.113.7"}, "ONETON_HOST=203.0.113.7"),
        ({"ONETON_DATA_DIR": "/proc/nowhere"}, "ONETON_DATA_DIR=/proc/nowhere"),
    ],
)
def test_serve_with_a_wrong_setting_is_one_line_and_exit_2(
    bare_place: Place, tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    broken = Place(tmp_path, {**bare_place.environ, "ONETON_PORT": "0", **settings}, None)
    done = broken.command("serve", check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in done.stderr
    assert not (tmp_path / ".oneton" / "postgres").exists()


def test_serve_with_a_port_in_use_is_exit_2(shared_server: Server, shared_place: Place) -> None:
    port = shared_server.url.rsplit(":", 1)[1]
    taken = Place(shared_place.folder, {**shared_place.environ, "ONETON_PORT": port}, None)
    done = taken.command("serve", check=False)
    assert (done.returncode, f"ONETON_PORT={port}" in done.stderr) == (2, True)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The PostgreSQL processes whose data lies below a folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in argument for argument in process.info["cmdline"] or ())
    ]


def wait_until_gone(folder: Path) -> None:
    psutil.wait_procs(processes_of(folder), timeout=10)
    assert processes_of(folder) == []


def test_serve_without_settings_starts_everything_and_sigterm_stops_it(
    tmp_path: Path, bare_place: Place, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    place = Place(tmp_path, bare_place.environ, None)
    with run_server(place) as server:
        secrets = tmp_path / ".oneton" / "demo-credentials.json"
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
        credentials = json.loads(secrets.read_text())
        greeting = server.log.read_text()
        assert credentials["client_id"] in greeting
        assert credentials["client_secret"] in greeting
        assert processes_of(tmp_path)
        client: Client = make_client(server.url, credentials)
        face_id = client.insert(people["ada"])
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
    wait_until_gone(tmp_path)
    with run_server(place) as server:
        assert make_client(server.url, credentials).search(people["ada"]) == {
            "oneToNVerificationId": face_id,
            "oneToNVerificationMatch": True,
        }
        server.kill()
    with run_server(place) as server:
        assert make_client(server.url, credentials).search(people["ada"])["oneToNVerificationMatch"]
    wait_until_gone(tmp_path)


def test_sigterm_lets_running_requests_finish(
    place: Place, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    made = place.json("key", "create", "--tenant", "acme")
    with run_server(place) as server:
        client = make_client(server.url, made)

        async def many() -> list[int]:
            async with httpx.AsyncClient(timeout=60) as http:
                headers = {"Authorization": client.http.headers["Authorization"]}
                photos = variations(people["hal"], 24, 3)
                calls = [
                    asyncio.create_task(
                        http.post(
                            server.url + "/api/v1/face/one-to-n/insert",
                            json={"idPhoto": as_base64(photo)},
                            headers=headers,
                        )
                    )
                    for photo in photos
                ]
                await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                server.process.send_signal(signal.SIGTERM)
                done = await asyncio.gather(*calls, return_exceptions=True)
                return [each.status_code for each in done if isinstance(each, httpx.Response)]

        answered = asyncio.run(many())
        assert len(answered) >= 20
        assert set(answered) == {200}
        assert server.process.wait(timeout=30) == 0


def test_sigterm_during_the_start_leaves_nothing_running(tmp_path: Path, bare_place: Place) -> None:
    process = subprocess.Popen(
        [*ONETON, "serve"],
        cwd=tmp_path,
        env={**bare_place.environ, "ONETON_PORT": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    pid_file = tmp_path / ".oneton" / "postgres" / "postmaster.pid"
    while not pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pid_file.exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    wait_until_gone(tmp_path)
