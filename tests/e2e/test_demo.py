"""`scripts/demo` from the outside, and its judgement."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import ANY

import psutil
import pytest
from _demo_page import Kind, Step, cast_of_folder, judge
from _photos import package_people, variations

from tests.fixtures.servers import Client, MakeClient, MakePlace, Place, Server, new_tenant

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo"
EXACT = Step("part", "asked", "expected", "answered", 1.0, right=True)


def plays(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs the demo."""
    for mark in (pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)):
        test = mark(test)
    return test


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder, of a path short enough for a socket, with no process left when the test ends."""
    folder = Path(tempfile.mkdtemp(prefix="test-"))
    (folder / "tmp").mkdir()
    yield folder
    for process in processes_in(folder):
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def run_demo(
    work: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DEMO), *arguments],
        cwd=work,
        env=demo_environ(work, environ),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def demo_environ(work: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ONETON_")}
    return {**bare, **(environ or {}), "TMPDIR": str(work / "tmp")}


def processes_in(folder: Path) -> list[psutil.Process]:
    """Those that work in the folder or name it: the demo, its server, that one's PostgreSQL."""
    found = []
    for process in psutil.process_iter():
        try:
            places = [process.cwd(), *process.cmdline()]
        except psutil.Error:
            continue
        if any(str(folder) in place for place in places):
            found.append(process)
    return found


def table_rows(output: str) -> list[list[str]]:
    """Asked, expected, answered, ms and verdict of each step; wrapped lines are left out."""
    lines = [line for line in output.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return [row[1:] for row in cells if row[-1]]


class Page(HTMLParser):
    """What a page holds and what it would fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.resources: list[str] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = [value or "" for name, value in attributes if name in ("src", "href", "srcset")]
        self.resources += named


@plays
def test_demo_plays_on_an_empty_machine_and_leaves_only_its_page(work: Path) -> None:
    done = run_demo(work, "--page", "shown/page.html")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table_rows(done.stdout)
    assert {row[-1] for row in rows} == {"right"}
    asked = {row[0]: row[2] for row in rows}
    assert asked["photo 2 of ada"] == "ada, match"
    assert asked["photo of jon"] == "nobody"
    assert asked["another of hal"] == "hal, match"
    assert asked["delete ada's photo"] == asked["delete it again"] == "204"
    assert asked["photo 2 of ada again"] == "ada, match"
    assert asked["ada and another photo"] == "match, level 5"
    assert f"{len(rows)} answers, {len(rows)} right" in done.stdout
    page = Page(work / "shown" / "page.html")
    assert page.tags.count("article") == len(rows)
    assert page.tags.count("img") == len(page.resources) > 40
    assert all(each.startswith("data:image/jpeg;base64,") for each in page.resources)
    assert not re.search(r"<(script|link|iframe)|@import|url\(", page.text)
    assert page.tags.count("i") == page.tags.count("img")
    assert list((work / "tmp").glob("oneton-demo-*")) == []
    assert processes_in(work) == []


@plays
def test_demo_keeps_the_server_and_prints_curl_lines_that_work(work: Path) -> None:
    done = run_demo(work, "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"stop it with: kill (\d+)", done.stdout)
    assert found is not None
    server = psutil.Process(int(found[1]))
    lines = [line for line in done.stdout.splitlines() if line.startswith(("TOKEN=", "curl "))]
    assert len(lines) == 3
    if shutil.which("curl"):
        replies = subprocess.run(
            ["bash", "-ec", "\necho\n".join(lines)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert [*map(json.loads, replies)] == [
            {"oneToNVerificationId": ANY, "oneToNVerificationMatch": True},
            {"match": True, "matchLevel": 5},
        ]
    (folder,) = (work / "tmp").glob("oneton-demo-*")
    assert {each.name for each in folder.iterdir()} == {"demo.html", "server"}
    server.terminate()
    assert ended(server)
    assert processes_in(work) == []


def ended(process: psutil.Process) -> bool:
    """Wait for a process of anybody's; one that nobody has waited for counts too."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@plays
def test_demo_ends_with_1_when_a_stranger_is_found(
    work: Path, shared_place: Place, shared_server: Server, make_client: MakeClient
) -> None:
    credentials = new_tenant(shared_place)
    client: Client = make_client(shared_server.url, credentials)
    client.insert(package_people()["ian"])
    done = run_demo(work, "--page", "page.html", *of_server(shared_server, credentials))
    assert done.returncode == 1, done.stdout + done.stderr
    rows = table_rows(done.stdout)
    assert [row[0] for row in rows if row[-1] != "right"] == ["photo of ian"]
    assert "1 of 3 for strangers found somebody" in done.stdout
    page = Page(work / "page.html")
    assert page.text.count("false match") == 1
    assert "There are wrong answers" in page.text


def of_server(server: Server, credentials: Mapping[str, str]) -> list[str]:
    options = {"url": server.url, **credentials}
    return [
        part for name, value in options.items() for part in (f"--{name}".replace("_", "-"), value)
    ]


@plays
def test_demo_takes_a_folder_of_photos_and_escapes_its_names(
    work: Path, shared_place: Place, shared_server: Server
) -> None:
    for no, (name, photo) in enumerate(package_people().items()):
        folder = work / "photos" / f"[red]<b>{name}&"
        folder.mkdir(parents=True)
        others = variations(photo, 6, seed=no) if no < 6 else []
        for other, data in enumerate([photo, *others]):
            (folder / f"{other}.JPG").write_bytes(data)
    arguments = ("--photos", "photos", *of_server(shared_server, new_tenant(shared_place)))
    done = run_demo(work, "--page", "page.html", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 24 searches for enrolled people" in done.stdout
    assert "0 of 4 for strangers" in done.stdout
    assert "[red]<b>hal&" in done.stdout
    page = Page(work / "page.html")
    assert "[red]&lt;b&gt;ada&amp;" in page.text
    assert "<b>ada" not in page.text


@plays
def test_demo_plays_on_a_given_database(work: Path, make_place: MakePlace) -> None:
    place = make_place()
    done = run_demo(work, environ=place.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each["name"][:5] for each in place.json("tenant", "list")] == ["demo-"]
    assert processes_in(work / "tmp") == []


@plays
def test_demo_shows_the_log_of_a_server_that_does_not_start(work: Path) -> None:
    done = run_demo(work, environ={"ONETON_CPU_THREADS": "many"})
    assert done.returncode == 1
    assert "serve.log" in done.stderr
    assert "ONETON_CPU_THREADS" in done.stderr
    assert list((work / "tmp").glob("oneton-demo-*")) == []


@plays
def test_demo_leaves_no_server_when_it_is_terminated(work: Path) -> None:
    demo = subprocess.Popen(
        [str(DEMO)],
        env=demo_environ(work),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None
    with demo, demo.stderr:
        for line in demo.stderr:
            if "starting a server" in line:
                break
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) != 0
    assert processes_in(work) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--unknown"],
        ["--url", "http://127.0.0.1:9"],
        ["--keep", "--url", "http://x", "--client-id", "a", "--client-secret", "b"],
        ["--photos", "missing"],
        ["--photos", "."],
        ["--limit", "2"],
        ["--page", "."],
    ],
)
@pytest.mark.model
def test_demo_ends_with_2_for_wrong_usage(work: Path, arguments: list[str]) -> None:
    done = run_demo(work, *arguments)
    assert done.returncode == 2
    assert "scripts/demo: error: " in done.stderr


def test_judge_accepts_no_wrong_exact_answer() -> None:
    assert judge([EXACT] * 9, 0.5).good
    assert not judge([*[EXACT] * 9, replace(EXACT, right=False)], 0.5).good
    assert not judge([], 0.5).good


@pytest.mark.parametrize("kind", ["enrolment", "mated", "stranger"])
def test_judge_accepts_a_rate_up_to_the_given_one(kind: Kind) -> None:
    right = replace(EXACT, kind=kind)
    wrong = replace(right, right=False)
    assert judge([wrong, *[right] * 19], 0.05).good
    assert not judge([wrong, *[right] * 18], 0.05).good
    assert not judge([wrong, *[right] * 99], 0.0).good
    # Many answers of other kinds make no rate smaller.
    assert not judge([wrong, right, *[EXACT] * 99], 0.05).good


def test_folder_without_single_photos_has_its_last_tenth_as_strangers(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for no in range(7):
            (tmp_path / name / f"{no}.png").write_bytes(bytes([no]))
        (tmp_path / name / "notes.txt").touch()
    cast = cast_of_folder(tmp_path, 40)
    assert [person.photo.name for person in cast.people] == ["a", "b"]
    assert [other.data for other in cast.people[0].others] == [b"\1", b"\2", b"\3", b"\4"]
    assert [stranger.name for stranger in cast.strangers] == ["c"]
