"""What every make of image store does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from oneton.domain.errors import NotFoundError
from oneton.domain.model import StoredObject
from oneton.images import ImageStore, ObjectStore
from oneton.images.encrypted import SEALED_MORE_BYTES, EncryptedStore
from oneton.images.files import FileStore
from oneton.images.s3 import S3Store
from tests.fixtures.sealing import RingsInMemory

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff\xe0 a JPEG"
PNG = b"\x89PNG\r\n\x1a\n a PNG"
WEBP = b"RIFF\x0a\0\0\0WEBP a WebP"
TIFF = b"II*\x00 a TIFF"


@pytest.fixture(params=["files", "s3", "encrypted files", "encrypted s3"])
def unopened(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStore:
    store: ObjectStore
    if request.param.endswith("files"):
        store = FileStore(tmp_path / "images")
    else:
        server = request.getfixturevalue("s3_server")
        store = S3Store(server.endpoint, server.access_key, server.secret_key, server.bucket)
    return EncryptedStore(store, RingsInMemory()) if "encrypted" in request.param else store


@pytest.fixture
async def store(unopened: ImageStore) -> AsyncIterator[ImageStore]:
    yield unopened
    await unopened.close()


@pytest.fixture
def tenant() -> str:
    """The S3 server is shared by all tests, so each has a tenant of its own."""
    return str(uuid4())


@pytest.fixture
def key(tenant: str) -> str:
    return f"{tenant}/default/{uuid4()}"


def more(store: ImageStore) -> int:
    """What an object is larger than the picture."""
    return SEALED_MORE_BYTES if isinstance(store, EncryptedStore) else 0


async def listed(store: ImageStore, prefix: str = "") -> list[StoredObject]:
    return [found async for found in store.list(prefix)]


async def test_get_returns_what_was_put(store: ImageStore, key: str) -> None:
    await store.put(key, JPEG, "image/jpeg")

    assert await store.get(key) == (JPEG, "image/jpeg")


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (JPEG, "image/jpeg"),
        (PNG, "image/png"),
        (WEBP, "image/webp"),
        (TIFF, "image/tiff"),
        (b"BM\x40\0\0\0\0\0\0\0 a bitmap", "image/bmp"),
        (b"neither", "application/octet-stream"),
    ],
)
async def test_get_keeps_the_content_type(
    store: ImageStore, key: str, data: bytes, content_type: str
) -> None:
    await store.put(key, data, content_type)

    assert (await store.get(key))[1] == content_type


async def test_put_overwrites_bytes_and_content_type(store: ImageStore, key: str) -> None:
    await store.put(key, JPEG, "image/jpeg")
    await store.put(key, PNG, "image/png")

    assert await store.get(key) == (PNG, "image/png")


async def test_put_keeps_every_byte_of_five_megabytes(store: ImageStore, key: str) -> None:
    large = JPEG + bytes(range(256)) * 20_480

    await store.put(key, large, "image/jpeg")

    data, _ = await store.get(key)
    assert len(data) > 5 * 2**20
    assert data == large
    assert [found.size_bytes for found in await listed(store, key)] == [len(large) + more(store)]


async def test_put_accepts_empty_bytes(store: ImageStore, key: str) -> None:
    await store.put(key, b"", "application/octet-stream")

    assert await store.get(key) == (b"", "application/octet-stream")


async def test_concurrent_puts_leave_one_whole_object(store: ImageStore, key: str) -> None:
    rivals = [JPEG + bytes([number]) * (100_000 + number) for number in range(12)]

    async with anyio.create_task_group() as group:
        for rival in rivals:
            group.start_soon(store.put, key, rival, "image/jpeg")

    data, _ = await store.get(key)
    assert data in rivals
    assert [found.size_bytes for found in await listed(store, key)] == [len(data) + more(store)]


async def test_get_sees_one_whole_object_while_it_is_overwritten(
    store: ImageStore, key: str
) -> None:
    rivals = [JPEG + bytes([number]) * (50_000 + number) for number in range(12)]
    await store.put(key, rivals[0], "image/jpeg")
    seen: list[bytes] = []

    async def get() -> None:
        seen.append((await store.get(key))[0])

    async with anyio.create_task_group() as group:
        for rival in rivals:
            group.start_soon(store.put, key, rival, "image/jpeg")
            group.start_soon(get)

    assert len(seen) == len(rivals)
    assert set(seen) <= set(rivals)


async def test_get_names_the_missing_key(store: ImageStore, tenant: str, key: str) -> None:
    await store.put(key, JPEG, "image/jpeg")

    for missing in (f"{tenant}/default/other", f"{tenant}/other/{uuid4()}"):
        with pytest.raises(NotFoundError, match=missing):
            await store.get(missing)


async def test_get_finds_nothing_in_a_new_store(store: ImageStore, key: str) -> None:
    with pytest.raises(NotFoundError):
        await store.get(key)


async def test_delete_removes_the_object_and_no_other(store: ImageStore, tenant: str) -> None:
    gone, kept = f"{tenant}/default/1", f"{tenant}/default/12"
    await store.put(gone, JPEG, "image/jpeg")
    await store.put(kept, PNG, "image/png")

    await store.delete(gone)

    with pytest.raises(NotFoundError):
        await store.get(gone)
    assert await store.get(kept) == (PNG, "image/png")
    assert [found.key for found in await listed(store, tenant)] == [kept]


async def test_delete_accepts_a_missing_key(store: ImageStore, key: str) -> None:
    await store.delete(key)
    await store.put(key, JPEG, "image/jpeg")
    await store.delete(key)
    await store.delete(key)

    with pytest.raises(NotFoundError):
        await store.get(key)


async def test_put_restores_a_deleted_key(store: ImageStore, key: str) -> None:
    await store.put(key, JPEG, "image/jpeg")
    await store.delete(key)
    await store.put(key, PNG, "image/png")

    assert await store.get(key) == (PNG, "image/png")


async def test_list_is_in_order_of_key(store: ImageStore, tenant: str) -> None:
    keys = [f"{tenant}/{rest}" for rest in ("b/2", "a/10", "a_b/1", "a/9", "ab/1", "a/1", "b/é")]
    for key in keys:
        await store.put(key, JPEG, "image/jpeg")

    assert [found.key for found in await listed(store, f"{tenant}/")] == sorted(keys)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", {"a/1", "a/12", "a/2", "ab/1"}),
        ("/", {"a/1", "a/12", "a/2", "ab/1"}),
        ("/a", {"a/1", "a/12", "a/2", "ab/1"}),
        ("/a/", {"a/1", "a/12", "a/2"}),
        ("/a/1", {"a/1", "a/12"}),
        ("/a/12", {"a/12"}),
        ("/b", set()),
        ("/a/1/", set()),
    ],
)
async def test_list_takes_the_prefix_as_text(
    store: ImageStore, tenant: str, prefix: str, expected: set[str]
) -> None:
    for rest in ("a/1", "a/12", "a/2", "ab/1"):
        await store.put(f"{tenant}/{rest}", JPEG, "image/jpeg")
    await store.put(f"{uuid4()}/a/1", JPEG, "image/jpeg")

    found = {one.key for one in await listed(store, f"{tenant}{prefix}")}

    assert found == {f"{tenant}/{rest}" for rest in expected}


async def test_list_holds_everything_without_a_prefix(store: ImageStore) -> None:
    keys = {f"{uuid4()}/default/{number}" for number in range(3)}
    for key in keys:
        await store.put(key, JPEG, "image/jpeg")

    assert keys <= {found.key for found in await listed(store)}


async def test_list_tells_sizes_and_times(store: ImageStore, key: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 keeps whole seconds.
    await store.put(key, JPEG, "image/jpeg")

    (found,) = await listed(store, key)

    assert found.size_bytes == len(JPEG) + more(store)
    assert before <= found.modified_at <= datetime.now(UTC) + timedelta(seconds=2)


async def test_list_goes_past_one_page(store: ImageStore, tenant: str) -> None:
    keys = [f"{tenant}/default/{number:04}" for number in range(1010)]
    limiter = anyio.CapacityLimiter(8)

    async def put(key: str) -> None:
        async with limiter:
            await store.put(key, b"", "application/octet-stream")

    async with anyio.create_task_group() as group:
        for key in keys:
            group.start_soon(put, key)

    assert [found.key for found in await listed(store, tenant)] == keys


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        " ",
        "a+b&c=d",
        "100%25",
        "a?b#c",
        "~!@$^*()_{}[];:,'\"<>|`",
        "a..",
        "a.",
        "é",
        "e\u0301",
        "顔",
        "\U0001f642",
        "x" * 200,
    ],
)
async def test_keys_may_hold_odd_characters(store: ImageStore, tenant: str, name: str) -> None:
    key = f"{tenant}/default/{name}"

    await store.put(key, JPEG, "image/jpeg")

    assert await store.get(key) == (JPEG, "image/jpeg")
    assert [found.key for found in await listed(store, tenant)] == [key]
    await store.delete(key)
    assert await listed(store, tenant) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a",
        "a/b",
        "a/b/c/d",
        "a/b/",
        "/b/c",
        "a//c",
        "../../etc",
        "a/../b",
        "a/b/..",
        "a/./b",
        ".writing/b/c",
        ".check/b/c",
        "a/b/.c",
        "a/b/c\\..\\d",
        "a/b/c\0",
        "a/b/c\n",
        "a/b/\ud800",
        f"a/b/{'x' * 256}",
    ],
)
async def test_keys_of_another_form_are_refused(store: ImageStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await store.put(key, JPEG, "image/jpeg")
    with pytest.raises(ValueError, match="not a key"):
        await store.get(key)
    with pytest.raises(ValueError, match="not a key"):
        await store.delete(key)


async def test_check_answers_and_leaves_no_object(store: ImageStore) -> None:
    before = {found.key for found in await listed(store)}

    await store.check()
    await store.check()

    assert {found.key for found in await listed(store)} == before


async def test_close_may_be_called_twice(store: ImageStore, key: str) -> None:
    await store.put(key, JPEG, "image/jpeg")

    await store.close()
    await store.close()
