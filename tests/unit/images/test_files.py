"""What only the file store does."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oneton.domain.errors import NotFoundError, StoreDownError
from oneton.images.files import LEFTOVER_AGE_S, FileStore

pytestmark = pytest.mark.anyio

KEY = "tenant/default/face"
JPEG = b"\xff\xd8\xff\xe0 a JPEG"
PNG = b"\x89PNG\r\n\x1a\n a PNG"

CRASH = """
import os, pathlib, sys
import anyio
from oneton.images.files import FileStore

pathlib.Path.replace = lambda *_: os._exit(9)
anyio.run(FileStore(pathlib.Path(sys.argv[1])).put, "tenant/default/face", b"half", "image/jpeg")
"""

RIVAL = """
import pathlib, sys
import anyio
from oneton.images.files import FileStore

async def main():
    store = FileStore(pathlib.Path(sys.argv[1]))
    for number in range(40):
        await store.put("tenant/default/face", sys.argv[2].encode() * 50_000, "image/jpeg")
        if number % 10 == 9:
            await store.delete("tenant/default/face")

anyio.run(main)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "images"


@pytest.fixture
def store(root: Path) -> FileStore:
    return FileStore(root)


async def keys(store: FileStore) -> list[str]:
    return [found.key async for found in store.list()]


def below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def unmount(root: Path) -> None:
    """Leave an empty folder where the disk was."""
    root.rename(root.with_name("unmounted"))
    root.mkdir()


def run(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def crash(root: Path) -> Path:
    """Die between writing an object and giving it its name; return what stays behind."""
    assert run(CRASH, root).wait() == 9
    (leftover,) = (root / ".writing").iterdir()
    return leftover


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let the kernel refuse to write more, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_object_is_one_file_byte_for_byte(store: FileStore, root: Path) -> None:
    await store.put(KEY, JPEG, "image/jpeg")

    assert (root / KEY).read_bytes() == JPEG
    assert [path for path in below(root) if path.is_file()] == [root / KEY]


async def test_objects_outlive_the_process(store: FileStore, root: Path) -> None:
    await store.put(KEY, PNG, "image/png")

    assert await FileStore(root).get(KEY) == (PNG, "image/png")


async def test_files_and_folders_are_private(store: FileStore, root: Path) -> None:
    await store.put(KEY, JPEG, "image/jpeg")

    modes = {path: path.stat().st_mode & 0o777 for path in (root, *below(root))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


async def test_crashed_write_leaves_no_object(store: FileStore, root: Path) -> None:
    crash(root)

    assert await keys(store) == []
    with pytest.raises(NotFoundError):
        await store.get(KEY)


async def test_crashed_overwrite_keeps_the_object(store: FileStore, root: Path) -> None:
    await store.put(KEY, JPEG, "image/jpeg")
    crash(root)

    assert await store.get(KEY) == (JPEG, "image/jpeg")
    assert await keys(store) == [KEY]


async def test_check_clears_old_leftovers_only(store: FileStore, root: Path) -> None:
    old = crash(root)
    long_ago = time.time() - LEFTOVER_AGE_S - 60
    os.utime(old, (long_ago, long_ago))
    recent = root / ".writing" / "recent"
    recent.write_bytes(b"being written by another process")

    await store.check()

    assert list((root / ".writing").iterdir()) == [recent]


async def test_processes_leave_one_whole_object(store: FileStore, root: Path) -> None:
    rivals = [run(RIVAL, root, name) for name in "abc"]
    while any(rival.poll() is None for rival in rivals):
        try:
            data, _ = await store.get(KEY)
        except NotFoundError:
            continue
        assert len(data) == 50_000
        assert len(set(data)) == 1

    assert [rival.returncode for rival in rivals] == [0, 0, 0]
    assert list((root / ".writing").iterdir()) == []


async def test_list_sorts_galleries_as_s3_does(store: FileStore) -> None:
    expected = ["t/a-b/1", "t/a-b/10", "t/a/1", "t/a0/1", "t/\uff5e/1", "t/\U0001f642/1"]
    for key in reversed(expected):
        await store.put(key, JPEG, "image/jpeg")

    assert await keys(store) == expected


async def test_list_passes_over_files_of_others(store: FileStore, root: Path) -> None:
    await store.put(KEY, JPEG, "image/jpeg")
    for name in ("README", "tenant/README", "tenant/default/.DS_Store", ".snapshot/a/b"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not ours")
    (root / "tenant/default/folder").mkdir()
    (root / os.fsdecode(b"tenant/default/\xff")).write_bytes(b"not ours")

    assert await keys(store) == [KEY]


async def test_list_passes_over_an_object_deleted_meanwhile(store: FileStore) -> None:
    for name in range(1500):
        await store.put(f"tenant/default/{name:04}", b"", "image/jpeg")
    objects = store.list()
    first = await anext(aiter(objects))
    await store.delete("tenant/default/1499")

    rest = [found.key async for found in objects]

    assert first.key == "tenant/default/0000"
    assert rest[-1] == "tenant/default/1498"


async def test_empty_galleries_are_not_listed(store: FileStore) -> None:
    await store.put(KEY, JPEG, "image/jpeg")
    await store.delete(KEY)

    assert await keys(store) == []


@pytest.mark.parametrize("key", ["../../../etc/passwd", "/etc/passwd", "a/b/../../../c", "a/../b"])
async def test_key_that_escapes_the_root_is_refused(
    store: FileStore, tmp_path: Path, key: str
) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await store.put(key, JPEG, "image/jpeg")

    assert below(tmp_path) == []


async def test_root_that_cannot_be_made_is_down(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FileStore(tmp_path / "file" / "images")

    with pytest.raises(StoreDownError, match=str(tmp_path)):
        await store.check()
    with pytest.raises(StoreDownError, match=str(tmp_path)):
        await store.put(KEY, JPEG, "image/jpeg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_root_without_permission_is_down(store: FileStore, root: Path) -> None:
    await store.put(KEY, JPEG, "image/jpeg")
    (root / ".writing").chmod(0o500)

    with pytest.raises(StoreDownError, match="denied"):
        await store.put(KEY, PNG, "image/png")

    (root / ".writing").chmod(0o700)


async def test_full_disk_is_down_and_keeps_the_object(store: FileStore, root: Path) -> None:
    await store.put(KEY, JPEG, "image/jpeg")

    with largest_file(2**20), pytest.raises(StoreDownError, match="File too large"):
        await store.put(KEY, PNG + bytes(2**21), "image/png")

    assert await store.get(KEY) == (JPEG, "image/jpeg")
    assert list((root / ".writing").iterdir()) == []


async def test_root_that_vanishes_is_down_not_empty(store: FileStore, root: Path) -> None:
    await store.put(KEY, JPEG, "image/jpeg")
    unmount(root)

    with pytest.raises(StoreDownError):
        await store.get(KEY)
    with pytest.raises(StoreDownError):
        await keys(store)
    with pytest.raises(StoreDownError):
        await store.delete(KEY)
    with pytest.raises(StoreDownError):
        await store.put(KEY, JPEG, "image/jpeg")
    with pytest.raises(StoreDownError):
        await store.check()
    assert below(root) == []
