"""`oneton duplicates`: from real photos to a page, and on after an interruption."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import cv2
import numpy as np
import pytest
from _photos import variations
from uuid_utils.compat import uuid7

from oneton.records.templates import encode_template
from tests.fixtures.servers import ONETON, MakePlace, Place

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]

TWICE = ("ada", "bea", "gus", "hal")
MANY = 4000
PLANTED = 300
DIMENSION = 512


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    return make_place()


@pytest.fixture(scope="module")
def tenant(place: Place) -> str:
    place.command("tenant", "create", "acme")
    return "acme"


def enroll(place: Place, tenant: str, folder: Path, photos: dict[str, bytes]) -> dict[str, str]:
    """Import photos through the command; returns the id of each name."""
    folder.mkdir()
    for name, photo in photos.items():
        (folder / f"{name}.jpg").write_bytes(photo)
    report = place.json("import", str(folder), "--tenant", tenant, "--always")
    assert report["refused"] == []
    return {name.removesuffix(".jpg"): face_id for name, face_id in report["enrolled_as"].items()}


def report(place: Place, *arguments: str, code: int) -> dict[str, Any]:
    done = place.command("duplicates", "default", *arguments, "--json", check=False)
    assert done.returncode == code, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def groups_in(folder: Path) -> set[frozenset[str]]:
    """The ids of each group of a report's table."""
    groups: dict[str, set[str]] = {}
    with (folder / "pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            groups.setdefault(row["group"], set()).update((row["a"], row["b"]))
            assert float(row["score"]) >= 50
    return {frozenset(group) for group in groups.values()}


def test_people_who_were_enrolled_twice_are_on_the_page(
    place: Place, tenant: str, people: dict[str, bytes], tmp_path: Path
) -> None:
    first = enroll(place, tenant, tmp_path / "first", people)
    folder = place.folder / "duplicates-default"
    said = report(place, code=0)
    assert (said["faces"], said["searched"], said["pairs"]) == (10, 10, 0)
    assert "No two faces" in (folder / "index.html").read_text()

    again = {f"{name}-again": variations(people[name], 1, 5)[0] for name in TWICE}
    second = enroll(place, tenant, tmp_path / "second", again)
    said = report(place, code=1)
    assert (said["faces"], said["searched"], said["pairs"], said["groups"]) == (14, 4, 4, 4)
    assert said["page"] == "duplicates-default/index.html"
    assert groups_in(folder) == {
        frozenset({first[name], second[f"{name}-again"]}) for name in TWICE
    }
    page = (folder / "index.html").read_text()
    for name in TWICE:
        for face_id in (first[name], second[f"{name}-again"]):
            assert f'src="photos/{face_id}.jpg"' in page
            small = cv2.imread(str(folder / "photos" / f"{face_id}.jpg"))
            assert small is not None
            assert max(small.shape) == 240
    assert len(list((folder / "photos").iterdir())) == 8
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {
        0o600
    }

    wrong = place.command("duplicates", "default", "--score", "70", check=False)
    assert (wrong.returncode, "score 50, not 70" in wrong.stderr) == (2, True)
    assert len(wrong.stderr.strip().splitlines()) == 1

    place.command("purge", second["ada-again"], "--tenant", tenant)
    asyncio.run(erase(place, first["bea"]))
    (place.folder / ".oneton/images" / key_of(place, first["gus"])).unlink()
    said = report(place, code=1)
    assert (said["faces"], said["searched"], said["pairs"]) == (13, 0, 3)
    assert len(groups_in(folder)) == 3
    page = (folder / "index.html").read_text()
    assert first["ada"] not in page
    assert "The image was erased." in page
    assert "The image is missing in the object store." in page
    assert sorted(path.stem for path in (folder / "photos").iterdir()) == sorted(
        [second["bea-again"], second["gus-again"], first["hal"], second["hal-again"]]
    )


def key_of(place: Place, face_id: str) -> str:
    (key,) = [key for key in asyncio.run(place.objects()) if key.endswith(face_id)]
    return key


async def erase(place: Place, face_id: str) -> None:
    """As the API's delete does, which the command line has not."""
    assert place.dsns is not None
    connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
    await connection.execute(
        "update face set image_erased_at = now() where face_id = $1", UUID(face_id)
    )
    await connection.close()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nobody"], 3, "no such gallery: nobody"),
        (["../x"], 3, "no such gallery"),
        (["default", "--tenant", "nobody"], 3, "no such tenant"),
        (["default", "--out", "/proc/report"], 2, "--out /proc/report"),
        (["default", "--out", "."], 2, "name a folder of the report's own"),
        (["default", "--score", "5"], 2, "--score"),
        ([], 2, "GALLERY"),
    ],
)
def test_wrong_use_has_its_exit_code_and_one_reason(
    place: Place, tenant: str, arguments: list[str], code: int, says: str
) -> None:
    (place.folder / "mine.txt").write_text("mine")
    done = place.command("duplicates", *arguments, check=False)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_duplicates_has_help_with_an_example(place: Place) -> None:
    said = " ".join(place.command("duplicates", "--help").stdout.split())
    assert "Example: oneton duplicates" in said
    assert "Exit 1 when pairs were found" in said


async def fill(place: Place, tenant: str, rng: np.random.Generator) -> None:
    """Enroll random templates, some of them near an earlier one, without images."""
    assert place.dsns is not None
    rows = rng.normal(size=(MANY, DIMENSION))
    for planted in rng.choice(np.arange(100, MANY), PLANTED, replace=False):
        rows[planted] = rows[rng.integers(100)] + rng.normal(scale=0.3, size=DIMENSION)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
    try:
        found = await connection.fetchrow(
            "select tenant_id, gallery_no, model_pack_no from gallery join tenant using (tenant_id)"
            " where name = $1",
            tenant,
        )
        assert found is not None
        owner, gallery, pack = found
        await connection.copy_records_to_table(
            "face",
            columns=["tenant_id", "gallery_no", "added_at_head", "face_id", "image_content_type"],
            records=[
                (owner, gallery, head, UUID(str(uuid7())), "image/jpeg")
                for head in range(1, MANY + 1)
            ],
        )
        face_nos = await connection.fetch(
            "select face_no from face where gallery_no = $1 order by added_at_head", gallery
        )
        await connection.copy_records_to_table(
            "template",
            columns=["model_pack_no", "face_no", "tenant_id", "embedding"],
            records=[
                (pack, face_no[0], owner, encode_template(row.astype(np.float32)))
                for face_no, row in zip(face_nos, rows, strict=True)
            ],
        )
        await connection.execute(
            "update gallery set head = $1 where gallery_no = $2", MANY, gallery
        )
    finally:
        await connection.close()


def start_and_stop(place: Place, folder: Path, kind: signal.Signals) -> tuple[int, int, str]:
    """Stop a run once it has got further; returns its exit code, its head and what it said."""
    before = head_of(folder)
    # A shell's background job ignores SIGINT, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*ONETON, "duplicates", "default", "--tenant", "many", "--out", str(folder)],
        cwd=place.folder,
        env={**place.environ, "ONETON_CPU_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while head_of(folder) <= before and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(kind)
    _, said = process.communicate(timeout=60)
    return process.returncode, head_of(folder), said


def head_of(folder: Path) -> int:
    state = folder / "state.json"
    return int(json.loads(state.read_bytes())["head"]) if state.exists() else 0


def test_a_run_that_was_stopped_goes_on_to_the_same_report(
    place: Place, tmp_path: Path, rng: np.random.Generator
) -> None:
    place.command("tenant", "create", "many")
    asyncio.run(fill(place, "many", rng))
    folder, whole = tmp_path / "stopped", tmp_path / "whole"
    code, first, said = start_and_stop(place, folder, signal.SIGINT)
    assert (code, 0 < first < MANY) == (130, True), said
    assert "the same command goes on" in said
    code, second, said = start_and_stop(place, folder, signal.SIGKILL)
    assert (code, first < second < MANY) == (-signal.SIGKILL, True), said
    arguments = ["--tenant", "many", "--groups", "0"]
    resumed = report(place, *arguments, "--out", str(folder), code=1)
    at_once = report(place, *arguments, "--out", str(whole), code=1)
    assert (resumed["searched"], at_once["searched"]) == (MANY - second, MANY)
    assert resumed["pairs"] == at_once["pairs"] >= PLANTED
    assert groups_in(folder) == groups_in(whole)
