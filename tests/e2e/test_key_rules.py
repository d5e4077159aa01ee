"""Keys that are over, or used from elsewhere, and tenants that are suspended, limited, deleted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg
import httpx
import pytest

from oneton.records.database import Database
from oneton.records.tenants import Tenants
from oneton.records.usage import Usage
from tests.fixtures.merchants import NewMerchant, new_merchant
from tests.fixtures.native import DEFAULT, Native, check_problem
from tests.fixtures.servers import MakePlace, Place, Server, as_base64, run_server

pytestmark = pytest.mark.model

HOLDS_S = 1.0
"""What a server knows of a key holds so long."""
WITHIN_S = 10.0
Call = Callable[[], httpx.Response]
T = TypeVar("T")


class Caller:
    """A tenant's key in every dialect, with tokens that were issued before anything changed."""

    def __init__(self, url: str, merchant: NewMerchant) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)
        self.merchant = merchant
        secret = merchant.api_key
        self.asked = {
            "grant_type": "client_credentials",
            "client_id": str(merchant.key_id),
            "client_secret": secret,
        }
        uqudo = self.http.post("/api/oauth/token", data=self.asked).json()["access_token"]
        reply = self.http.post("/api/access-token", headers=merchant.headers)
        self.token = next(each for each in reply.json().values() if isinstance(each, str))
        pair = (str(merchant.key_id), secret)
        bearer = {"Authorization": f"Bearer {secret}"}
        self.calls: dict[str, Call] = {
            "uqudo": lambda: self.http.get(
                "/api/v1/info", headers={"Authorization": f"Bearer {uqudo}"}
            ),
            "uqudo token": lambda: self.http.post("/api/oauth/token", data=self.asked),
            "native": lambda: self.http.get("/v1/galleries", headers=bearer),
            "didit": lambda: self.http.get("/v3/lists", headers={"x-api-key": secret}),
            "veriflow": lambda: self.http.get("/v2/requests", headers=bearer),
            "face_verify": lambda: self.http.post("/api/v1/face/verify", auth=pair, json={}),
            "cypherface": lambda: self.http.delete(
                "/api/user/none", headers={"authorization": self.token}
            ),
            "cypherface token": lambda: self.http.post(
                "/api/access-token", headers=merchant.headers
            ),
            "cypherface refresh": lambda: self.http.post(
                "/api/refresh-token", headers={"authorization": self.token}
            ),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def statuses(self) -> set[int]:
        return {each().status_code for each in self.calls.values()}

    def check_refused(self) -> None:
        """Each dialect's 403 in its own form."""
        replies = {name: call() for name, call in self.calls.items()}
        assert {name: each.status_code for name, each in replies.items()} == dict.fromkeys(
            replies, 403
        )
        body = {name: each.json() for name, each in replies.items()}
        for name in ("uqudo", "uqudo token"):
            assert body[name]["error"] == "access_denied"
            assert body[name]["error_description"]
        check_problem(replies["native"], 403, body["native"]["code"])
        assert set(body["didit"]) == {"detail"}
        assert (body["veriflow"]["success"], set(body["veriflow"])) == (
            False,
            {"success", "error", "message"},
        )
        assert body["face_verify"] == {"hasError": True, "error": "UNAUTHORIZED"}
        for name in ("cypherface", "cypherface token", "cypherface refresh"):
            assert body[name]["error"] == "FORBIDDEN"

    def wait_until_refused(self) -> None:
        until_s = time.monotonic() + WITHIN_S
        while self.statuses() != {403}:
            assert time.monotonic() < until_s, {n: c().text for n, c in self.calls.items()}


@pytest.fixture
def caller(shared_place: Place, shared_server: Server) -> Iterator[Caller]:
    with Caller(shared_server.url, new_merchant(shared_place)) as made:
        assert not made.statuses() & {401, 403}
        yield made


def change_key(place: Place, merchant: NewMerchant, change: str) -> None:
    asyncio.run(_change_key(place, merchant, change))


async def _change_key(place: Place, merchant: NewMerchant, change: str) -> None:
    assert place.dsns is not None
    connection = await asyncpg.connect(place.dsns.owner, server_settings={"role": "none"})
    try:
        await connection.execute(f"update api_key set {change} where key_id = $1", merchant.key_id)
    finally:
        await connection.close()


def in_database(place: Place, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    """Do as a command does, without its start."""

    async def do() -> T:
        assert place.dsns is not None
        database = await Database.connect(place.dsns.app, size=2)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(do())


def test_an_expired_key_gets_403_in_every_dialect_also_with_older_tokens(
    shared_place: Place, caller: Caller
) -> None:
    change_key(shared_place, caller.merchant, "expires_at = now()")
    caller.wait_until_refused()
    caller.check_refused()
    assert caller.calls["native"]().json()["code"] == "key_expired"


def test_a_key_gets_403_from_another_address_in_every_dialect(
    shared_place: Place, caller: Caller
) -> None:
    change_key(shared_place, caller.merchant, "addresses = '{203.0.113.0/24}'")
    caller.wait_until_refused()
    caller.check_refused()
    assert caller.calls["native"]().json()["code"] == "address_not_allowed"
    # Nobody is believed who says that he is somebody else.
    caller.http.headers["X-Forwarded-For"] = "203.0.113.9"
    caller.check_refused()


def test_a_revoked_key_is_unknown_as_before(shared_place: Place, caller: Caller) -> None:
    change_key(shared_place, caller.merchant, "expires_at = now(), revoked_at = now()")
    until_s = time.monotonic() + WITHIN_S
    while caller.calls["native"]().status_code != 401:
        assert time.monotonic() < until_s


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    return make_place(ONETON_TRUSTED_PROXIES="127.0.0.0/8, ::1", ONETON_SNAPSHOT_LEAST_FACES="1")


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    """Behind a proxy on this machine."""
    with run_server(place) as running:
        yield running


@pytest.fixture
def behind(place: Place, server: Server) -> Iterator[Caller]:
    """A caller of the server behind a proxy."""
    with Caller(server.url, new_merchant(place)) as made:
        yield made


@pytest.fixture
def native(server: Server, behind: Caller) -> Iterator[Native]:
    """The same tenant's, of the native API."""
    made = Native(server.url, behind.merchant.api_key)
    yield made
    made.http.close()


def test_a_suspended_tenant_is_refused_within_a_second_and_its_links_too(
    place: Place, behind: Caller, native: Native, people: dict[str, bytes]
) -> None:
    caller = behind
    link = native.json(f"/v1/faces/{native.enroll(people['ada'])}/image-link")["url"]
    assert httpx.get(link).status_code == 200
    done = place.json("tenant", "suspend", caller.merchant.name)
    came_s = time.monotonic()
    assert (done["suspended"], done["changed"]) == (True, True)
    caller.wait_until_refused()
    assert time.monotonic() - came_s < HOLDS_S + 1
    caller.check_refused()
    # What links believe of a tenant is as old, and not of the same moment.
    while httpx.get(link).status_code != 403:
        assert time.monotonic() - came_s < 2 * HOLDS_S + 1
    tenant = caller.merchant.tenant_id
    assert in_database(place, lambda each: Tenants(each).suspend(tenant, suspended=False))
    until_s = time.monotonic() + WITHIN_S
    while caller.statuses() & {403}:
        assert time.monotonic() < until_s
    assert native.identify(people["ada"])["match"]


def test_behind_a_trusted_proxy_the_caller_is_whom_it_names(
    place: Place, behind: Caller, native: Native
) -> None:
    name = behind.merchant.name
    made = place.json(
        *("key", "create", "--tenant", name, "--permissions", "read,insert,read"),
        *("--from", "203.0.113.0/24", "--from", "2001:db8::1", "--expires", "90d"),
    )
    assert made["allow"] == ["insert", "read"]
    assert made["addresses"] == ["203.0.113.0/24", "2001:db8::1/128"]
    days = (datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)).days
    assert days == 89
    native.http.headers["Authorization"] = f"Bearer {made['client_secret']}"
    for forwarded, status in (
        ("203.0.113.9", 200),
        ("198.51.100.1, 203.0.113.9", 200),
        ("203.0.113.9, 198.51.100.1", 403),
        ("203.0.113.9, 127.0.0.1", 200),
        ("[2001:db8::1]:4711", 200),
        ("unknown", 403),
    ):
        reply = native.http.get("/v1/galleries", headers={"X-Forwarded-For": forwarded})
        assert reply.status_code == status, (forwarded, reply.text)
    check_problem(native.http.get("/v1/galleries"), 403, "address_not_allowed")
    shown = place.command("key", "list", "--tenant", name).stdout
    assert "203.0" in shown


def test_links_have_the_scheme_that_a_trusted_proxy_names(
    native: Native, people: dict[str, bytes]
) -> None:
    native.http.headers["X-Forwarded-Proto"] = "https"
    face_id = native.enroll(people["ada"])
    assert native.json(f"/v1/faces/{face_id}/image-link")["url"].startswith("https://")


def test_a_wrong_proxy_setting_is_one_line_at_the_start(place: Place) -> None:
    environ = {**place.environ, "ONETON_TRUSTED_PROXIES": "10.0.0.1/8"}
    other = Place(place.folder, environ, place.dsns)
    done = other.command("tenant", "list", check=False)
    assert done.returncode == 2
    assert "ONETON_TRUSTED_PROXIES" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.timeout(90)
def test_limits_refuse_faces_and_calls_and_usage_tells_what_was_called(
    place: Place, behind: Caller, native: Native, people: dict[str, bytes]
) -> None:
    merchant = behind.merchant
    tenant, quota = merchant.tenant_id, ("tenant", "quota", merchant.name)
    in_database(place, lambda each: Usage(each).limit(tenant, faces=1, requests_a_day=None))
    native.enroll(people["ada"])
    objects = len(asyncio.run(place.objects()))
    body = {"image": as_base64(next(photo for name, photo in people.items() if name != "ada"))}
    refused = native.http.post(DEFAULT, json=body)
    problem = check_problem(refused, 403, "quota_exceeded")
    assert "1 face" in problem["detail"]
    assert len(asyncio.run(place.objects())) == objects
    until_s = time.monotonic() + WITHIN_S
    while (usage := native.json("/v1/usage"))["calls"] < 2:
        assert time.monotonic() < until_s
    assert (usage["faces"], usage["most_faces"]) == (1, 1)
    kinds = {(each["dialect"], each["kind"]): each["calls"] for each in usage["days"]}
    assert kinds["native", "enroll"] == 2
    check_problem(native.http.get("/v1/usage?from=2020-01-01"), 400, "invalid_input", "from")
    assert place.json(*quota, "--requests-a-day", "1") == {"faces": 1, "requests_a_day": 1}
    until_s = time.monotonic() + WITHIN_S
    while (reply := native.http.get("/v1/galleries")).status_code != 429:
        assert time.monotonic() < until_s
    check_problem(reply, 429, "quota_exceeded")
    now = datetime.now(UTC)
    left_s = 86_400 - (now.hour * 3600 + now.minute * 60 + now.second)
    assert abs(int(reply.headers["Retry-After"]) - left_s) < 60
    didit = behind.calls["didit"]()
    assert (didit.status_code, set(didit.json())) == (429, {"detail"})
    lines = place.command("usage", merchant.name, "--csv").stdout.splitlines()
    assert lines[0] == "tenant,day,dialect,kind,calls"
    assert any("native,enroll,2" in line for line in lines)


@pytest.mark.timeout(90)
def test_a_deleted_tenant_leaves_nothing_here_while_a_server_runs(
    place: Place, behind: Caller, native: Native, people: dict[str, bytes], tmp_path: Path
) -> None:
    merchant, report = behind.merchant, tmp_path / "report.json"
    for photo in list(people.values())[:3]:
        native.enroll(photo)
    assert native.http.post(
        "/v1/identify", json={"image": as_base64(people["ada"]), "save": True}
    ).is_success
    place.command("snapshot", "take", "--tenant", merchant.name)
    tenant = str(merchant.tenant_id)
    folders = place.folder / "index_snapshots"
    assert list(folders.glob(f"**/*.{tenant}"))
    assert any(each.startswith(tenant) for each in asyncio.run(place.objects()))
    delete = ("tenant", "delete", merchant.name)
    done = place.command(*delete, "--yes-delete", "other", check=False)
    assert (done.returncode, "--yes-delete" in done.stderr) == (2, True)
    told = place.json(*delete, "--yes-delete", merchant.name, "--report", str(report))
    assert told["clean"], told
    assert json.loads(report.read_text()) == told
    assert told["deleted"]["rows"]["face"] == told["deleted"]["rows"]["template"] == 3
    assert told["deleted"]["objects"] == {"face images": 3, "pictures": 1}
    assert not list(folders.glob(f"**/*.{tenant}"))
    assert not any(each.startswith(tenant) for each in asyncio.run(place.objects()))
    assert native.http.get("/v1/galleries").status_code == 401
