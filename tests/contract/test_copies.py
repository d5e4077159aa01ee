"""What every store of snapshot copies does."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from oneton.domain.errors import NotFoundError, StoreDownError
from oneton.images import ObjectStore, blocks
from oneton.images.encrypted import EncryptedStore
from oneton.images.files import FileStore
from oneton.images.s3 import S3Store
from tests.fixtures.sealing import RingsInMemory

if TYPE_CHECKING:
    from tests.fixtures.objects import S3Server

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff\xe0 a JPEG"
LARGE_BYTES = 24 << 20
TAKES_AT_MOST_BYTES = 8 << 20


@pytest.fixture(params=["files", "s3", "encrypted files", "encrypted s3"])
def unopened(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    store: ObjectStore
    if request.param.endswith("files"):
        store = FileStore(tmp_path / "images")
    else:
        server = request.getfixturevalue("s3_server")
        store = S3Store(server.endpoint, server.access_key, server.secret_key, server.bucket)
    return EncryptedStore(store, RingsInMemory()) if "encrypted" in request.param else store


@pytest.fixture
async def store(unopened: ObjectStore) -> AsyncIterator[ObjectStore]:
    yield unopened
    await unopened.close()


@pytest.fixture
def folder() -> str:
    """The S3 server is shared by all tests, so each has a folder of its own."""
    return f"{uuid4()}/default/pack-0123"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    made = tmp_path / "here"
    made.mkdir()
    return made


def written(folder: Path, data: bytes) -> Path:
    path = folder / uuid4().hex
    path.write_bytes(data)
    return path


def below(folder: Path) -> list[Path]:
    """Its files."""
    return [path for path in folder.rglob("*") if path.is_file()]


async def names(store: ObjectStore, folder: str) -> set[str]:
    return {found.key.removeprefix(f"{folder}/") for found in await store.list_files(folder)}


@pytest.mark.parametrize("size_bytes", [0, 1, blocks.BLOCK_BYTES, 3 * blocks.BLOCK_BYTES + 7])
async def test_get_writes_what_was_put(
    store: ObjectStore, folder: str, here: Path, size_bytes: int
) -> None:
    data = os.urandom(size_bytes)
    await store.put_file(f"{folder}/segments/one.codes", written(here, data))

    await store.get_file(f"{folder}/segments/one.codes", here / "got")

    assert (here / "got").read_bytes() == data
    assert len(below(here)) == 2


async def test_put_and_get_overwrite(store: ObjectStore, folder: str, here: Path) -> None:
    (here / "got").write_bytes(b"was here before")
    await store.put_file(f"{folder}/one", written(here, b"first"))
    await store.put_file(f"{folder}/one", written(here, b"second"))

    await store.get_file(f"{folder}/one", here / "got")

    assert (here / "got").read_bytes() == b"second"


async def test_get_names_the_missing_key_and_writes_nothing(
    store: ObjectStore, folder: str, here: Path
) -> None:
    (here / "got").write_bytes(b"was here before")

    with pytest.raises(NotFoundError, match=f"{folder}/one"):
        await store.get_file(f"{folder}/one", here / "got")

    assert (here / "got").read_bytes() == b"was here before"


async def test_delete_removes_the_file_and_no_other(
    store: ObjectStore, folder: str, here: Path
) -> None:
    for name in ("1", "12"):
        await store.put_file(f"{folder}/{name}", written(here, b"x"))

    await store.delete_file(f"{folder}/1")
    await store.delete_file(f"{folder}/1")

    assert await names(store, folder) == {"12"}


async def test_list_tells_everything_below_a_folder_and_nothing_beside_it(
    store: ObjectStore, folder: str, here: Path
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 keeps whole seconds.
    for name in ("0-a.json", "segments/a.codes", "segments/a.templates"):
        await store.put_file(f"{folder}/{name}", written(here, b"four"))
    await store.put_file(f"{folder}4/0-b.json", written(here, b"x"))

    found = await store.list_files(folder)

    assert await names(store, folder) == {"0-a.json", "segments/a.codes", "segments/a.templates"}
    assert {each.size_bytes for each in found} == {4}
    assert all(before <= each.modified_at <= before + timedelta(seconds=60) for each in found)
    assert await store.list_files(f"{uuid4()}/default") == ()


async def test_pictures_and_copies_do_not_meet(store: ObjectStore, folder: str, here: Path) -> None:
    await store.put(folder, JPEG, "image/jpeg")
    await store.put_file(folder, written(here, b"a file of the same key"))

    assert [found.key async for found in store.list(folder)] == [folder]
    assert [found.key async for found in store.list() if "pack" in found.key] == [folder]
    await store.delete_file(folder)
    assert await store.get(folder) == (JPEG, "image/jpeg")
    await store.put_file(f"{folder}2", written(here, b"x"))
    await store.delete(folder)
    with pytest.raises(NotFoundError):
        await store.get(f"{folder}2")


@pytest.mark.parametrize(
    "key", ["", "a//b", "/a", "a/", "../a", "a/.b", "a/b\\c", "a/b\n", "a" * 300]
)
async def test_keys_that_could_leave_the_store_are_refused(
    store: ObjectStore, here: Path, key: str
) -> None:
    for attempt in (
        store.put_file(key, written(here, b"x")),
        store.get_file(key, here / "got"),
        store.delete_file(key),
        store.list_files(key),
    ):
        with pytest.raises(ValueError, match="not a key"):
            await attempt


async def test_a_large_file_is_never_whole_in_memory(
    store: ObjectStore, folder: str, here: Path
) -> None:
    large = here / "large"
    with large.open("wb") as file:
        file.truncate(LARGE_BYTES)
    await store.check()

    tracemalloc.start()
    try:
        await store.put_file(f"{folder}/large", large)
        await store.get_file(f"{folder}/large", here / "got")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (here / "got").stat().st_size == LARGE_BYTES
    assert peak_bytes < TAKES_AT_MOST_BYTES


@pytest.fixture
def half_way(monkeypatch: pytest.MonkeyPatch) -> HalfWay:
    """Every transfer stops at its third block until nobody waits for it any more."""
    made = HalfWay(blocks.go_on)
    for module in ("blocks", "sending"):
        monkeypatch.setattr(f"oneton.images.{module}.go_on", made)
    return made


class HalfWay:
    """Stands for `go_on`, and says what its thread does."""

    def __init__(self, go_on: Callable[[threading.Event], None]) -> None:
        self._go_on = go_on
        self._calls = 0
        self.reached = threading.Event()
        self.ended = threading.Event()

    def __call__(self, stop: threading.Event) -> None:
        self._calls += 1
        if self._calls == 3:
            self.reached.set()
            stop.wait(10)
        try:
            self._go_on(stop)
        except StoreDownError:
            self.ended.set()
            raise


async def test_a_put_that_is_cancelled_leaves_nothing(
    store: ObjectStore, folder: str, here: Path, half_way: HalfWay, tmp_path: Path
) -> None:
    data = written(here, os.urandom(4 * blocks.BLOCK_BYTES))

    await cancel(asyncio.create_task(store.put_file(f"{folder}/one", data)), half_way)

    assert await names(store, folder) == set()
    if isinstance(store, FileStore):
        assert below(tmp_path / "images") == []


async def test_a_get_that_is_cancelled_leaves_nothing(
    store: ObjectStore, folder: str, here: Path, half_way: HalfWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        for module in ("blocks", "sending"):
            patched.setattr(f"oneton.images.{module}.go_on", lambda _stop: None)
        await store.put_file(f"{folder}/one", written(here, os.urandom(4 * blocks.BLOCK_BYTES)))
    into = here / "into"
    into.mkdir()

    await cancel(asyncio.create_task(store.get_file(f"{folder}/one", into / "got")), half_way)

    async with asyncio.timeout(5):
        while below(into):  # noqa: ASYNC110 - a folder is no event
            await asyncio.sleep(0.01)


async def cancel(task: asyncio.Task[None], half_way: HalfWay) -> None:
    """Cancel a transfer half way, and see its thread end."""
    assert await asyncio.to_thread(half_way.reached.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(half_way.ended.wait, 10)


async def test_files_that_cannot_be_reached_are_a_store_that_is_down(
    s3_server: S3Server, tmp_path: Path, here: Path
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
    gone = FileStore(tmp_path / "images")
    await gone.check()
    (tmp_path / "images").rename(tmp_path / "unmounted")
    (tmp_path / "images").mkdir()
    source = written(here, b"x")
    for store in (gone, S3Store(endpoint, s3_server.access_key, s3_server.secret_key, "oneton")):
        for attempt in (
            store.put_file("a/b", source),
            store.get_file("a/b", here / "got"),
            store.delete_file("a/b"),
            store.list_files("a"),
        ):
            with pytest.raises(StoreDownError):
                await attempt
        await store.close()
    assert below(here) == [source]


async def test_an_s3_that_refuses_a_file_says_why(s3_server: S3Server, here: Path) -> None:
    store = S3Store(s3_server.endpoint, s3_server.access_key, "wrong-secret", s3_server.bucket)
    store._opened = True  # As after the secret was changed.

    with pytest.raises(StoreDownError, match="SignatureDoesNotMatch") as caught:
        await store.put_file("a/b", written(here, b"x"))

    assert "wrong-secret" not in str(caught.value)
    await store.close()


async def test_an_answer_that_breaks_off_leaves_no_file(s3_server: S3Server, here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=break_off, args=(listener,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        store = S3Store(endpoint, s3_server.access_key, s3_server.secret_key, "oneton")
        store._opened = True

        with pytest.raises(StoreDownError):
            await store.get_file("a/b", here / "got")

        listener.shutdown(socket.SHUT_RDWR)
    await store.close()
    assert below(here) == []


def break_off(listener: socket.socket) -> None:
    """Answer each request with half of what it promises, until the listener is shut."""
    try:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + bytes(2_500_000)
                )
    except OSError:
        return
