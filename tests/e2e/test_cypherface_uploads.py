"""CypherFace's upload links over HTTP: what they take, once, and what they refuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import httpx
import msgspec
import pytest

from oneton.domain.merchants import Purpose, Refusal
from oneton.records.database import Database
from oneton.records.merchants import Uploads
from oneton.records.tenants import Keys
from oneton.verbs.authenticate import Authenticate
from oneton.verbs.merchant_uploads import MerchantUploads
from tests.fixtures.merchants import Merchant, new_merchant, put, refused
from tests.fixtures.pictures import as_format, landscape, truncated
from tests.fixtures.servers import Place, Server

pytestmark = pytest.mark.model

LINK = "POST /api/upload/generate-url/"
SEND = "PUT on the returned link"
UNKNOWN_USER = "6789fb11e94adea011383478"


def conforms(call: str, what: str, how: str = "exact") -> pytest.MarkDecorator:
    return pytest.mark.conforms("cypherface", call, what, how)


@pytest.fixture
def merchant(shared_place: Place, shared_server: Server) -> Iterator[Merchant]:
    with Merchant(shared_server.url, new_merchant(shared_place)) as made:
        yield made


Stored = Callable[[], tuple[int, int]]


@pytest.fixture
def stored(shared_place: Place, merchant: Merchant) -> Stored:
    """Counts the merchant's rows of pictures, and objects."""
    mine = str(merchant.new.tenant_id)

    async def count() -> tuple[int, int]:
        rows = await shared_place.count("picture", f"tenant_id = '{mine}'")
        objects = await shared_place.objects()
        return rows, sum(key.startswith(mine) for key in objects)

    return lambda: asyncio.run(count())


@conforms(LINK, "200 with url and uploadUrl equal, key, expiresIn 4800", "chosen")
@pytest.mark.parametrize("purpose", ["upload", "match"])
@pytest.mark.parametrize("content_type", ["image/jpeg", "image/jpg", "image/png"])
def test_a_link_is_given(
    merchant: Merchant, shared_server: Server, purpose: str, content_type: str
) -> None:
    reply = merchant.ask(merchant.register(), purpose, content_type=content_type)
    assert reply.status_code == 200
    said = reply.json()
    assert set(said) == {"success", "url", "uploadUrl", "key", "expiresIn"}
    assert (said["success"], said["expiresIn"]) == (True, 4800)
    assert said["url"] == said["uploadUrl"]
    assert said["url"].startswith(f"{shared_server.url}/upload/")
    assert UUID(said["key"])


@conforms(LINK, "userId, imageName, contentType and type are required, the last two of a list")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("userId", None),
        ("userId", 5),
        ("imageName", None),
        ("imageName", ""),
        ("imageName", "a/b.jpg"),
        ("imageName", ".."),
        ("imageName", "a\0.jpg"),
        ("imageName", "x" * 256),
        ("contentType", None),
        ("contentType", "image/gif"),
        ("contentType", "IMAGE/JPEG"),
        ("type", None),
        ("type", "source"),
    ],
)
def test_a_wrong_field_is_400(merchant: Merchant, field: str, value: Any) -> None:
    asked = {
        "userId": merchant.register(),
        "imageName": "profile.jpg",
        "contentType": "image/jpeg",
        "type": "upload",
    }
    reply = merchant.post("/api/upload/generate-url/", **(asked | {field: value}))
    refused(reply, 400, "BAD_REQUEST")
    del asked[field]
    reply = merchant.post("/api/upload/generate-url/", **asked)
    refused(reply, 400, "BAD_REQUEST")
    assert reply.json()["message"] == f"{field} is required"


@conforms(LINK, "token and fields are validated first: an unknown user is 404 only then")
def test_fields_come_before_the_user(merchant: Merchant) -> None:
    refused(merchant.ask(UNKNOWN_USER, "upload", content_type="x"), 400, "BAD_REQUEST")
    refused(merchant.ask(UNKNOWN_USER, "upload"), 404, "USER_NOT_FOUND")


@conforms(SEND, "PUT, or POST, of the raw bytes: 200 with an empty body", "chosen")
@pytest.mark.parametrize("verb", ["PUT", "POST"])
@pytest.mark.parametrize(
    ("content_type", "kind"), [("image/jpeg", "JPEG"), ("image/jpg", "JPEG"), ("image/png", "PNG")]
)
def test_a_picture_is_taken(
    merchant: Merchant,
    stored: Stored,
    people: dict[str, bytes],
    verb: str,
    content_type: str,
    kind: str,
) -> None:
    user = merchant.register()
    photo = as_format(people["ada"], kind)
    reply = put(merchant.link(user, "upload", content_type=content_type), photo, content_type, verb)
    assert (reply.status_code, reply.content) == (200, b"")
    assert stored() == (1, 1)


@conforms(LINK, "names with spaces and brackets occur")
@pytest.mark.parametrize(
    "name", ["my photo (1).jpg", "a%2Fb.jpg", "fü你.jpg", "a?b#c&d=e.jpg", "...", " x ", "a+b.jpg"]
)
def test_any_name_is_good(merchant: Merchant, people: dict[str, bytes], name: str) -> None:
    link = merchant.link(merchant.register(), "upload", name)
    assert unquote(urlsplit(link).path).endswith(name)
    assert put(link, people["ada"]).status_code == 200


@conforms(LINK, "a source that was processed is not overwritten: 409 ALREADY_PROCESSED", "chosen")
def test_a_source_is_not_overwritten(
    merchant: Merchant, stored: Stored, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["ada"])
    refused(merchant.ask(user, "upload"), 409, "ALREADY_PROCESSED")
    merchant.link(user, "match")
    assert stored() == (1, 1)


@conforms(LINK, "a source that is not processed: the record is updated, a new link")
def test_a_new_link_for_a_source_takes_the_place_of_the_old(
    merchant: Merchant, stored: Stored, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    old, new = (merchant.link(user, "upload", name) for name in ("a.jpg", "b.jpg"))
    refused(put(old, people["ada"]), 403, "LINK_INVALID")
    assert stored() == (0, 0)
    assert put(new, people["ada"]).status_code == 200
    refused(put(old, people["bea"]), 403, "LINK_INVALID")
    assert stored() == (1, 1)


@conforms(LINK, "match: a link for the target, every time")
def test_every_target_has_a_link_and_the_last_counts(
    merchant: Merchant, stored: Stored, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    merchant.send(user, "upload", people["ada"])
    first, second = (merchant.link(user, "match") for _ in range(2))
    assert put(second, people["bea"]).status_code == 200
    assert put(first, people["ada"]).status_code == 200
    assert stored() == (2, 2)
    assert merchant.match(user).status_code == 200
    assert stored() == (1, 1)


# What a link refuses


@conforms(SEND, "another content type than asked for: 400, nothing kept")
@pytest.mark.parametrize("sent", ["image/png", "image/jpg", "text/plain", "", "image/jpegx"])
def test_another_content_type_is_refused(
    merchant: Merchant, stored: Stored, people: dict[str, bytes], sent: str
) -> None:
    link = merchant.link(merchant.register(), "upload")
    refused(put(link, people["ada"], sent), 400, "CONTENT_TYPE_MISMATCH")
    assert stored() == (0, 0)


@conforms(SEND, "another name than asked for: 403, nothing kept")
@pytest.mark.parametrize(
    "name", ["other.jpg", "", "profile.jpg.exe", "x/profile.jpg", "Profile.jpg"]
)
def test_another_name_is_refused(
    merchant: Merchant, stored: Stored, people: dict[str, bytes], name: str
) -> None:
    link = merchant.link(merchant.register(), "upload")
    other = link.removesuffix("profile.jpg") + name
    refused(put(other, people["ada"]), 403, "LINK_INVALID")
    assert stored() == (0, 0)


@conforms(SEND, "a link works once: then 403, nothing kept", "chosen")
@pytest.mark.parametrize("purpose", ["upload", "match"])
def test_a_link_works_once(
    merchant: Merchant, stored: Stored, people: dict[str, bytes], purpose: str
) -> None:
    link = merchant.link(merchant.register(), purpose)
    assert put(link, people["ada"]).status_code == 200
    before = stored()
    for photo in (people["ada"], people["bea"], b"text"):
        refused(put(link, photo), 403, "LINK_USED")
    assert stored() == before == (1, 1)


@conforms(SEND, "of several simultaneous uploads to a link, one counts", "chosen")
@pytest.mark.parametrize("purpose", ["upload", "match"])
def test_of_simultaneous_uploads_one_counts(
    merchant: Merchant, stored: Stored, people: dict[str, bytes], purpose: str
) -> None:
    link = merchant.link(merchant.register(), purpose)
    photos = [people[name] for name in ("ada", "bea", "cas", "dan")]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda photo: put(link, photo), photos))
    assert sorted(each.status_code for each in replies) == [200, 403, 403, 403]
    for reply in replies:
        if reply.status_code == 403:
            refused(reply, 403, "LINK_USED")
    assert stored() == (1, 1)


@conforms(SEND, "an altered link: 403, nothing kept", "chosen")
def test_an_altered_link_is_refused(
    merchant: Merchant, stored: Stored, people: dict[str, bytes]
) -> None:
    user = merchant.register()
    link, another = merchant.link(user, "match"), merchant.link(user, "match")
    before, token, name = link.rsplit("/", 2)
    swapped = token[:40] + another.rsplit("/", 2)[1][40:]
    altered = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
               for at in range(0, len(token), 6)]  # fmt: skip
    last = [token[:-1] + each for each in "ABCDEFGHabcdefgh0123-_" if each != token[-1]]
    for text in (*altered, *last, swapped, token + "=", token + "A", token[:-1], "x", "%00", "é"):
        refused(put(f"{before}/{text}/{name}", people["ada"]), 403, "LINK_INVALID")
    assert stored() == (0, 0)
    assert put(link, people["ada"]).status_code == 200


@conforms(SEND, "an expired link: 403, nothing kept; life 80 minutes")
def test_a_link_is_good_for_80_minutes(
    shared_place: Place,
    shared_server: Server,
    merchant: Merchant,
    stored: Stored,
    people: dict[str, bytes],
) -> None:
    def link(age_s: float) -> str:
        made = _link_of_age(shared_place, merchant, merchant.register(), age_s)
        return f"{shared_server.url}/upload/{asyncio.run(made)}/profile.jpg"

    refused(put(link(4801), people["ada"]), 403, "LINK_EXPIRED")
    assert stored() == (0, 0)
    assert put(link(4740), people["ada"]).status_code == 200


async def _link_of_age(place: Place, merchant: Merchant, user: str, age_s: float) -> str:
    """A link as the server would have made it so long ago."""
    assert place.dsns is not None
    database = await Database.connect(place.dsns.app, size=2)
    try:
        keys = Keys(database)
        authenticate = Authenticate(keys, b"")
        uploads = MerchantUploads(
            Uploads(database),
            authenticate,
            None,  # type: ignore[arg-type]  # asking for a link keeps and compares nothing
            None,  # type: ignore[arg-type]
            await keys.signing_secret("cypherface", b"never used"),
            4800,
            clock=lambda: time.time() - age_s,
        )
        principal = await authenticate.check_key(merchant.new.key_id)
        asked = await uploads.ask(principal, user, Purpose.TARGET, "profile.jpg", "image/jpeg")
        assert not isinstance(asked, Refusal)
        return asked[1]
    finally:
        await database.close()


@conforms(SEND, "a picture without a face: 422; too large: 413; nothing kept", "chosen")
@conforms(SEND, "a refused picture leaves the link good", "chosen")
def test_a_bad_picture_is_refused_and_a_better_one_may_follow(
    merchant: Merchant, stored: Stored, people: dict[str, bytes]
) -> None:
    link = merchant.link(merchant.register(), "upload")
    large = people["ada"] + bytes(10 * 1024 * 1024 + 1 - len(people["ada"]))
    for bad, status, code in (
        (landscape(), 422, "FACE_NOT_FOUND"),
        (b"", 400, "INVALID_IMAGE"),
        (truncated(people["ada"]), 400, "INVALID_IMAGE"),
        (b"hello, this is no picture", 400, "UNSUPPORTED_IMAGE_TYPE"),
        (as_format(people["ada"], "PNG"), 400, "UNSUPPORTED_IMAGE_TYPE"),
        (large, 413, "TOO_LARGE"),
    ):
        refused(put(link, bad), status, code)
        assert stored() == (0, 0)
    assert put(link, people["ada"]).status_code == 200
    assert stored() == (1, 1)


@conforms(SEND, "no token is needed, and a stranger's body is not read", "chosen")
def test_a_body_behind_a_bad_link_is_not_read(shared_server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(1 << 20)

    reply = httpx.put(f"{shared_server.url}/upload/x/y", content=endless())
    refused(reply, 403, "LINK_INVALID")


@conforms(LINK, "the examples of the pages", "exact")
def test_the_example_is_answered(merchant: Merchant) -> None:
    example = (
        b'{"userId":"%s","imageName":"profile.jpg","contentType":"image/jpeg","type":"upload"}'
    )
    content = example % merchant.register().encode()
    reply = merchant.http.post("/api/upload/generate-url/", content=content)
    assert reply.status_code == 200
    assert msgspec.json.decode(reply.content)["success"] is True
