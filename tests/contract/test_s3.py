"""What only the S3 store does."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio
import httpx
import pytest
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from oneton.domain.errors import SettingError, StoreDownError
from oneton.images.s3 import S3Store

if TYPE_CHECKING:
    from tests.fixtures.objects import S3Server

pytestmark = pytest.mark.anyio

KEY = f"{uuid4()}/default/{uuid4()}"
JPEG = b"\xff\xd8\xff\xe0 a JPEG"


def store_at(server: S3Server, **changes: str) -> S3Store:
    settings = {
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "bucket": server.bucket,
    }
    return S3Store(**(settings | changes))


@pytest.fixture
def admin(s3_server: S3Server) -> Minio:
    url = httpx.URL(s3_server.endpoint)
    return Minio(
        url.netloc.decode(),
        s3_server.access_key,
        s3_server.secret_key,
        secure=url.scheme == "https",
        region="us-east-1",
    )


@pytest.fixture
def new_bucket(admin: Minio) -> Iterator[str]:
    """The name of a bucket that is not there, and gone again after the test."""
    name = f"oneton-{uuid4().hex}"
    yield name
    if admin.bucket_exists(name):
        for found in admin.list_objects(name, recursive=True, include_version=True):
            admin.remove_object(name, found.object_name or "", found.version_id)
        admin.remove_bucket(name)


@pytest.fixture
async def store(s3_server: S3Server, new_bucket: str) -> AsyncIterator[S3Store]:
    store = store_at(s3_server, bucket=new_bucket)
    yield store
    await store.close()


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{reserved.getsockname()[1]}"


async def test_first_use_makes_the_missing_bucket(
    store: S3Store, admin: Minio, new_bucket: str
) -> None:
    assert not admin.bucket_exists(new_bucket)

    await store.check()

    assert admin.bucket_exists(new_bucket)


async def test_first_uses_at_once_make_one_bucket(
    s3_server: S3Server, new_bucket: str, admin: Minio
) -> None:
    replicas = [store_at(s3_server, bucket=new_bucket) for _ in range(6)]

    async with anyio.create_task_group() as group:
        for replica in replicas:
            group.start_soon(replica.check)

    assert admin.bucket_exists(new_bucket)
    for replica in replicas:
        await replica.close()


async def test_anonymous_read_is_refused(
    store: S3Store, s3_server: S3Server, new_bucket: str
) -> None:
    await store.put(KEY, JPEG, "image/jpeg")

    async with httpx.AsyncClient(base_url=s3_server.endpoint) as anyone:
        assert (await anyone.get(f"/{new_bucket}/{KEY}")).status_code == 403
        assert (await anyone.get(f"/{new_bucket}")).status_code == 403
        assert (await anyone.delete(f"/{new_bucket}/{KEY}")).status_code == 403


async def test_check_refuses_a_bucket_that_anyone_can_read(
    store: S3Store, admin: Minio, new_bucket: str
) -> None:
    admin.make_bucket(new_bucket)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject"],
                "Resource": [f"arn:aws:s3:::{new_bucket}/*"],
            }
        ],
    }
    admin.set_bucket_policy(new_bucket, json.dumps(policy))

    with pytest.raises(SettingError, match="anyone can read it"):
        await store.check()


async def test_check_refuses_a_bucket_that_keeps_what_is_deleted(
    store: S3Store, admin: Minio, new_bucket: str
) -> None:
    admin.make_bucket(new_bucket)
    admin.set_bucket_versioning(new_bucket, VersioningConfig(ENABLED))

    with pytest.raises(SettingError, match="keeps old versions"):
        await store.check()


async def test_list_passes_over_objects_of_others(
    store: S3Store, admin: Minio, new_bucket: str
) -> None:
    await store.put(KEY, JPEG, "image/jpeg")
    async with httpx.AsyncClient() as client:
        for name in ("backup.tar", "a/b/c/d"):
            url = admin.presigned_put_object(new_bucket, name)
            assert (await client.put(url, content=b"not ours")).is_success

    assert [found.key async for found in store.list()] == [KEY]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda store: store.put(KEY, JPEG, "image/jpeg"),
        lambda store: store.get(KEY),
        lambda store: store.delete(KEY),
        lambda store: anext(store.list()),
        lambda store: store.check(),
    ],
    ids=["put", "get", "delete", "list", "check"],
)
async def test_dead_endpoint_is_down_within_seconds(
    s3_server: S3Server, closed_port: str, attempt: Callable[[S3Store], Awaitable[object]]
) -> None:
    store = store_at(s3_server, endpoint=closed_port)
    started = time.monotonic()

    with pytest.raises(StoreDownError, match=f"{closed_port}.*refused"):
        await attempt(store)

    assert time.monotonic() - started < 5
    await store.close()


async def test_unknown_host_is_down(s3_server: S3Server) -> None:
    with pytest.raises(StoreDownError, match=r"nowhere\.invalid"):
        await store_at(s3_server, endpoint="http://nowhere.invalid:9000").check()


async def test_answer_that_breaks_off_is_down(s3_server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up_on_all, args=(listener,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"

        with pytest.raises(StoreDownError):
            await store_at(s3_server, endpoint=endpoint).check()

        listener.shutdown(socket.SHUT_RDWR)


def hang_up_on_all(listener: socket.socket) -> None:
    """Take each connection, read a request and hang up, until the listener is shut."""
    try:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
    except OSError:
        return


async def test_endpoint_that_never_answers_is_down(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneton.images.s3._READ_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"

        with pytest.raises(StoreDownError, match="timed out"):
            await store_at(s3_server, endpoint=endpoint).check()


async def test_bucket_that_vanishes_is_down_not_empty(
    store: S3Store, admin: Minio, new_bucket: str
) -> None:
    await store.check()
    admin.remove_bucket(new_bucket)

    with pytest.raises(StoreDownError, match="NoSuchBucket"):
        await store.get(KEY)
    with pytest.raises(StoreDownError, match="NoSuchBucket"):
        _ = [found async for found in store.list()]


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
async def test_wrong_credentials_name_the_access_key_and_no_secret(
    s3_server: S3Server, wrong: str
) -> None:
    store = store_at(s3_server, **{wrong: "wrong-credential"})

    with pytest.raises(SettingError) as caught:
        await store.check()

    said = str(caught.value)
    assert ("wrong-credential" if wrong == "access_key" else s3_server.access_key) in said
    assert s3_server.endpoint in said
    assert s3_server.secret_key not in said
    assert ("wrong-credential" in said) == (wrong == "access_key")
    await store.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "minio:9000"},
        {"endpoint": "ftp://minio"},
        {"endpoint": "http://"},
        {"endpoint": "http://[minio:9000"},
        {"endpoint": "http://user:secret@minio:9000"},
        {"endpoint": "http://minio:9000/folder"},
        {"endpoint": "http://minio:port"},
        {"bucket": "Upper Case"},
        {"bucket": ""},
        {"region": "no region"},
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(changes: dict[str, str]) -> None:
    settings = {"endpoint": "http://minio:9000", "bucket": "oneton"} | changes

    with pytest.raises(SettingError) as caught:
        S3Store(access_key="key", secret_key="hidden", **settings)

    assert "secret@" not in str(caught.value)
    assert "hidden" not in str(caught.value)
