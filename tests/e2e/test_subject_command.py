"""`oneton subject`, with a real photo, beside a running server."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from uuid import uuid4

import msgspec
import pytest
from _photos import variations

from oneton.domain.model import Permission
from tests.fixtures.native import Native
from tests.fixtures.servers import Place, Server, new_tenant

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]


class Site(msgspec.Struct, frozen=True):
    """A tenant with Ada in two galleries, and Bea in one."""

    place: Place
    name: str
    native: Native
    adas: tuple[str, str]
    bea: str

    def subject(self, *arguments: str) -> tuple[int, dict[str, object]]:
        done = self.place.command(
            "subject", *arguments, "--tenant", self.name, "--json", check=False
        )
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def site(shared_place: Place, shared_server: Server, people: dict[str, bytes]) -> Iterator[Site]:
    name = f"subject-{uuid4().hex[:8]}"
    key = new_tenant(shared_place, name, permissions=tuple(Permission))
    native = Native(shared_server.url, key["client_secret"])
    native.create("blocked", kind="blocklist")
    first, second = variations(people["ada"], 2, 7)
    adas = (native.enroll(first, external_id="ada"), native.enroll(second, gallery="blocked"))
    bea = native.enroll(people["bea"], external_id="bea")
    native.identify(first, save=True, external_id="ada")
    (shared_place.folder / "ada.jpg").write_bytes(people["ada"])
    yield Site(shared_place, name, native, adas, bea)
    native.http.close()


def test_a_person_is_found_exported_and_purged_by_a_photo(site: Site) -> None:
    code, found = site.subject("find", "--photo", "ada.jpg")
    assert code == 0
    assert {each["face_id"] for each in found["candidates"]} == set(site.adas)  # type: ignore[attr-defined]
    kinds = sorted(each["kind"] for each in found["things"])  # type: ignore[attr-defined]
    assert kinds == ["face record", "face record", "saved call"]
    output = site.place.folder / f"{site.name}.zip"
    code, done = site.subject("export", "--photo", "ada.jpg", "-o", str(output))
    assert (code, done["exported"]) == (0, {"things": 3, "images": 3, "missing": []})
    with zipfile.ZipFile(output) as zipped:
        assert all(site.bea.encode() not in zipped.read(each) for each in zipped.namelist())
    code, tried = site.subject("purge", "--photo", "ada.jpg")
    assert (code, tried["purged"], tried["left"]) == (0, False, None)
    assert len(site.native.json("/v1/galleries/default/faces")["items"]) == 2
    code, done = site.subject("purge", "--photo", "ada.jpg", "--yes")
    assert (code, done["purged"], done["left"]) == (0, True, [])
    for face_id in site.adas:
        assert site.native.http.get(f"/v1/faces/{face_id}").status_code == 404
    assert site.native.http.get(f"/v1/faces/{site.bea}").status_code == 200
    trail = site.native.json("/v1/audit", action="purge subject")["items"]
    assert trail[0]["actor"].startswith("operator ")
    assert set(trail[0]["face_ids"]) == set(site.adas)


def test_who_is_somebody_else_stays(site: Site) -> None:
    kept, gone = site.adas
    code, done = site.subject("purge", "--photo", "ada.jpg", "--without", kept, "--yes")
    assert (code, done["left"]) == (0, [])
    assert site.native.http.get(f"/v1/faces/{kept}").status_code == 200
    assert site.native.http.get(f"/v1/faces/{gone}").status_code == 404


def test_nobody_named_is_wrong_usage_and_nobody_found_is_exit_1(site: Site) -> None:
    assert site.place.command("subject", "find", check=False).returncode == 2
    assert site.subject("find", "--external-id", "nobody")[0] == 1
    code, _ = site.subject("export", "--id", str(uuid4()), "-o", str(site.place.folder / "no.zip"))
    assert code == 1
    assert not (site.place.folder / "no.zip").exists()
