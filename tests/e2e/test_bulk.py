"""`oneton import` and `oneton export`: real photos in, out, and in again."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import subprocess
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import numpy as np
import pytest
from _photos import variations
from minio import Minio

from tests.fixtures.objects import S3Server
from tests.fixtures.servers import ONETON, MakePlace, Place

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    return make_place()


def new_tenant(place: Place, name: str) -> tuple[str, ...]:
    place.command("tenant", "create", name)
    return ("--tenant", name)


def run_import(place: Place, source: object, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = place.command("import", str(source), *arguments, "--json", check=False)
    assert done.returncode == code, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def lines_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def faces_of(place: Place, tenant: str) -> int:
    where = f"tenant_id in (select tenant_id from tenant where name = '{tenant}')"
    return asyncio.run(place.count("face", f"removed_at_head is null and {where}"))


def write_photos(folder: Path, photos: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, photo in photos.items():
        (folder / f"{name}.jpg").write_bytes(photo)
    return folder


def test_what_is_exported_can_be_imported_again_and_finds_the_same_people(  # noqa: PLR0915
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    tenant = new_tenant(place, "round")
    archive = tmp_path / "people.zip"
    with zipfile.ZipFile(archive, "w") as made:
        text = "file,external_id,metadata,metadata.team\n"
        for number, (name, photo) in enumerate(people.items()):
            made.writestr(f"{name}.jpg", photo)
            metadata = json.dumps({"n": number, "ö": [None, 0.1]}).replace('"', '""')
            text += f'{name}.jpg,"id {name}","{metadata}",red\n'
        made.writestr("broken.jpg", b"\xff\xd8\xff\xe0 broken")
        made.writestr("manifest.csv", text + "broken.jpg,,,\nnone.jpg,,,\nada.jpg,,{,\n")
    report = tmp_path / "report.csv"
    first = run_import(place, archive, *tenant, "--report", str(report), code=1)
    assert first["enrolled"] == len(people)
    assert {each["reason"] for each in first["refused"]} == {
        "BadImage",
        "FileNotFound",
        "BadMetadata",
    }
    ids = first["enrolled_as"]
    erased = ids["bea.jpg"]
    asyncio.run(erase(place, erased))

    out, folder = tmp_path / "out.zip", tmp_path / "out"
    said = place.json("export", "default", *tenant, "--out", str(out), "--templates")
    counts = [said[name] for name in ("faces", "images", "erased", "missing", "templates")]
    assert counts == [10, 9, 1, 0, 10]
    assert said["head"] == 10
    again = place.command("export", "default", *tenant, "--out", str(out), check=False)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    place.command("export", "default", *tenant, "--out", str(folder))
    with zipfile.ZipFile(out) as made:
        rows = [json.loads(line) for line in made.read("faces.jsonl").splitlines()]
        templates = np.load(BytesIO(made.read("templates.npy")))
        names = made.read("templates.txt").decode().split()
        about = json.loads(made.read("export.json"))
        assert {row["file"] for row in rows if row["file"]} <= set(made.namelist())
        for row in rows:
            assert (row["file"] is None) == (row["oneToNVerificationId"] == erased)
            if row["file"] is not None:
                assert made.read(row["file"]) == (folder / row["file"]).read_bytes()
    assert templates.shape == (10, 512)
    assert templates.dtype == np.float16
    assert np.allclose(np.linalg.norm(templates.astype(float), axis=1), 1, atol=0.01)
    assert sorted(names) == sorted(ids.values())
    assert about["model_pack"]["name"] == "buffalo_sc"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out",
        "out.zip",
        "people.zip",
        "report.csv",
    ]

    other = new_tenant(place, "again")
    second = run_import(place, out, *other, "--report", str(report), code=1)
    assert (second["enrolled"], second["matched"]) == (9, 0)
    assert [(each["file"], each["reason"]) for each in second["refused"]] == [
        ("(id bea)", "NoFile")
    ]
    unpacked = run_import(place, folder, *other, "--report", str(report), "--dry-run", code=1)
    assert (unpacked["already"], len(unpacked["refused"])) == (9, 1)
    place.command("export", "default", *other, "--out", str(tmp_path / "second"))
    text = (tmp_path / "second/faces.jsonl").read_text()
    new_rows = {row["external_id"]: row for row in map(json.loads, text.splitlines())}
    assert {name: row["metadata"] for name, row in new_rows.items()} == {
        row["external_id"]: row["metadata"] for row in rows if row["file"] is not None
    }
    assert new_rows["id ada"]["metadata"]["team"] == "red"
    other_photo = tmp_path / "ada.jpg"
    other_photo.write_bytes(variations(people["ada"], 1, 5)[0])
    found = place.json("search", str(other_photo), *other)
    assert found["candidates"][0]["face_id"] == new_rows["id ada"]["oneToNVerificationId"]


async def erase(place: Place, face_id: str) -> None:
    """As the API's delete does."""
    assert place.dsns is not None
    connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
    await connection.execute("update face set image_erased_at = now() where face_id = $1", face_id)
    await connection.close()


def test_an_import_that_was_killed_goes_on_and_adds_no_face_twice(
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    tenant = new_tenant(place, "killed")
    photos = {
        f"{number:03} {name}": photo
        for name in people
        for number, photo in enumerate(variations(people[name], 8, 3))
    }
    source = write_photos(tmp_path / "photos", photos)
    report = tmp_path / "report.csv"
    arguments = (str(source), *tenant, "--always", "--report", str(report))
    for _ in range(2):
        before = faces_of(place, "killed")
        process = subprocess.Popen(
            [*ONETON, "import", *arguments],
            cwd=place.folder,
            env=dict(place.environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while faces_of(place, "killed") == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 0 < faces_of(place, "killed") < len(photos)
    assert not report.exists()

    other = place.command("import", str(tmp_path), *arguments[1:], check=False)
    assert (other.returncode, "is of another import" in other.stderr) == (2, True)
    whole = run_import(place, arguments[0], *arguments[1:], code=0)
    assert whole["enrolled"] + whole["already"] == len(photos)
    assert faces_of(place, "killed") == len(photos)
    rows = lines_of(report)
    assert set(rows) == {f"{name}.jpg" for name in photos}
    assert len({row["oneToNVerificationId"] for row in rows.values()}) == len(photos)


def test_two_imports_of_the_same_people_at_once_add_each_once(
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    tenant = new_tenant(place, "twice")
    processes = []
    for number in (1, 2):
        photos = {name: variations(photo, 1, number)[0] for name, photo in people.items()}
        photos |= {f"z {name}": photo for name, photo in people.items()}
        source = write_photos(tmp_path / str(number), photos)
        report = tmp_path / f"{number}.csv"
        processes.append(
            subprocess.Popen(
                [*ONETON, "import", str(source), *tenant, "--report", str(report)],
                cwd=place.folder,
                env=dict(place.environ),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
    for process in processes:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
    assert faces_of(place, "twice") == len(people)
    rows = [row for number in (1, 2) for row in lines_of(tmp_path / f"{number}.csv").values()]
    assert sum(row["outcome"] == "added" for row in rows) == len(people)
    assert len({row["oneToNVerificationId"] for row in rows}) == len(people)
    assert all(float(row["score"]) >= 50 for row in rows if row["outcome"] == "exists")
    keys = asyncio.run(place.objects())
    ids = {row["oneToNVerificationId"] for row in rows}
    assert len([key for key in keys if key.rpartition("/")[2] in ids]) == len(people)


def test_a_dry_run_says_what_the_import_then_does(
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    tenant = new_tenant(place, "dry")
    known = write_photos(tmp_path / "known", {"ada": people["ada"]})
    run_import(place, known, *tenant, "--report", str(tmp_path / "known.csv"))
    photos = {f"1 {name}": people[name] for name in ("ada", "bea", "eve")}
    photos["2 bea"] = variations(people["bea"], 1, 4)[0]
    source = write_photos(tmp_path / "photos", photos)
    (source / "3.jpg").write_bytes(b"text")
    report = tmp_path / "report.csv"
    arguments = (str(source), *tenant, "--report", str(report))
    tried = run_import(place, *arguments, "--dry-run", code=1)
    assert faces_of(place, "dry") == 1
    assert (tried["enrolled"], tried["matched"], len(tried["refused"])) == (2, 2, 1)
    trial = lines_of(tmp_path / "report.csv.trial")
    assert "the same person as 1 bea.jpg" in trial["2 bea.jpg"]["message"]

    failed = place.command("import", *arguments, "--on-duplicate", "fail", check=False)
    assert (failed.returncode, "1 ada.jpg is" in failed.stderr) == (3, True)
    done = run_import(place, *arguments, "--on-duplicate", "report", code=1)
    assert (done["enrolled"], done["matched"], len(done["refused"])) == (2, 2, 1)
    rows = lines_of(report)
    assert {name: row["outcome"] for name, row in rows.items()} == {
        name: row["outcome"] for name, row in trial.items()
    }
    assert rows["2 bea.jpg"]["oneToNVerificationId"] == rows["1 bea.jpg"]["oneToNVerificationId"]
    assert not (tmp_path / "report.csv.partial").exists()
    assert not (tmp_path / "report.csv.trial.partial").exists()


def test_rows_go_to_the_galleries_that_they_name(
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    tenant = new_tenant(place, "many")
    place.command("gallery", "create", "staff", *tenant)
    write_photos(tmp_path / "photos", people)
    table = tmp_path / "list.jsonl"
    wanted = [("ada", "staff"), ("bea", None), ("eve", "none"), ("ada", None)]
    table.write_text(
        "".join(
            json.dumps({"file": f"photos/{name}.jpg", "gallery": gallery, "idempotency_key": key})
            + "\n"
            for key, (name, gallery) in zip("abcd", wanted, strict=True)
        )
    )
    said = run_import(place, table, *tenant, "--report", str(tmp_path / "r.csv"), code=1)
    assert (said["enrolled"], [each["reason"] for each in said["refused"]]) == (3, ["NotFound"])
    in_staff = "gallery_no in (select gallery_no from gallery where gallery_id = 'staff')"
    assert asyncio.run(place.count("face", f"{in_staff} and idempotency_key = 'a'")) == 1


def test_an_s3_prefix_is_imported_by_its_own_credentials(
    place: Place, s3_server: S3Server, people: dict[str, bytes], tmp_path: Path
) -> None:
    tenant = new_tenant(place, "s3")
    url = httpx.URL(s3_server.endpoint)
    admin = Minio(
        url.netloc.decode(),
        s3_server.access_key,
        s3_server.secret_key,
        secure=url.scheme == "https",
        region="us-east-1",
    )
    bucket = f"import-{tmp_path.name.replace('_', '-')}"[:60].lower()
    admin.make_bucket(bucket)
    objects = {f"new/faces/{name}.jpg": people[name] for name in ("ada", "bea")}
    objects |= {"new/notes.txt": b"", "other/eve.jpg": people["eve"], "new/big.jpg": b"text"}
    for key, data in objects.items():
        admin.put_object(bucket, key, BytesIO(data), len(data))
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[default]\naws_access_key_id = {s3_server.access_key}\n"
        f"aws_secret_access_key = {s3_server.secret_key}\n"
    )
    store = ("--s3-endpoint", s3_server.endpoint, "--s3-credentials", str(credentials))
    report = ("--report", str(tmp_path / "r.csv"))
    said = run_import(place, f"s3://{bucket}/new", *tenant, *store, *report, code=1)
    assert set(said["enrolled_as"]) == {"faces/ada.jpg", "faces/bea.jpg"}
    assert [each["file"] for each in said["refused"]] == ["big.jpg"]

    table = b"file,external_id\nfaces/bea.jpg,B\nfaces/none.jpg,\n"
    admin.put_object(bucket, "new/manifest.csv", BytesIO(table), len(table))
    named = run_import(place, f"s3://{bucket}/new/", *tenant, *store, *report, "--always", code=1)
    assert (named["already"], [each["reason"] for each in named["refused"]]) == (
        1,
        ["FileNotFound"],
    )
    listing = tmp_path / "list.csv"
    listing.write_text(f"file\ns3://{bucket}/other/eve.jpg\n")
    assert run_import(place, listing, *tenant, *store, *report)["enrolled"] == 1

    credentials.write_text("[default]\naws_access_key_id = me\naws_secret_access_key = wrong\n")
    wrong = place.command("import", f"s3://{bucket}/new", *tenant, *store, *report, check=False)
    assert (wrong.returncode, wrong.stderr.count("oneton: ")) == (2, 1)
    assert "Traceback" not in wrong.stderr
    assert "wrong" not in wrong.stderr


def test_a_quota_stops_an_import_that_goes_on_when_there_is_room(
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    tenant = new_tenant(place, "small")
    source = write_photos(tmp_path / "photos", people)
    report = ("--report", str(tmp_path / "r.csv"))
    place.command("tenant", "quota", "small", "--faces", "4")
    stopped = place.command("import", str(source), *tenant, *report, check=False)
    said = [line for line in stopped.stderr.splitlines() if line.startswith("oneton: ")]
    assert (stopped.returncode, len(said)) == (1, 1), stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert faces_of(place, "small") == 4
    place.command("tenant", "quota", "small", "--faces", "none")
    assert run_import(place, source, *tenant, *report)["enrolled"] == len(people)
    assert faces_of(place, "small") == len(people)
