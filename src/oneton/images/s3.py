"""Original pictures in MinIO, or any store that speaks S3."""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.error import InvalidResponseError, MinioException, S3Error
from minio.helpers import MIN_PART_SIZE, check_bucket_name
from urllib3.exceptions import HTTPError, MaxRetryError

from oneton.domain.errors import NotFoundError, SettingError, StoreDownError
from oneton.domain.model import StoredObject
from oneton.images.blocks import BLOCK_BYTES, stop_on_leaving, until, write_blocks
from oneton.images.files import UNKNOWN_TYPE
from oneton.images.keys import COPIES, check_key, copy_key
from oneton.images.sending import send_file

T = TypeVar("T")

_CONNECTIONS = 16
_CONNECT_TIMEOUT_S = 2.0
_READ_TIMEOUT_S = 10.0
"""Between two packets. With one retry a dead host costs 5 s, a stuck one 21 s, and no more."""
_BATCH = 1000
"""What S3 lists in one page."""
_CHECKS = ".check/"
"""Where `check` writes: no key of ours, so never in a listing."""
_ERROR_CODE = re.compile(rb"<Code>(\w{1,64})</Code>")
_REFUSED = range(400, 500)
_TRY_AGAIN = (408, 429)


class S3Store:
    """An ImageStore, and SnapshotCopies, in one private bucket, made on first use when missing.

    Until it has been reached once, what the store refuses (a wrong secret, region or bucket) is a
    SettingError; from then on it is a StoreDownError, as is a store that does not answer.
    """

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        region: str = "us-east-1",
    ) -> None:
        """Connect to nothing yet.

        `endpoint` is such as `http://minio:9000`; a port left out is 80 or 443.

        Raises:
            SettingError: the endpoint, region or bucket name cannot be one.
        """
        self._endpoint = endpoint
        self._bucket = bucket
        self._region = region
        self._access_key = access_key
        self._opened = False
        self._proven_private = False
        self._limiter = anyio.CapacityLimiter(_CONNECTIONS)
        self._http = _http_client()
        if "@" in endpoint:  # Perhaps a secret, so not repeated.
            raise SettingError("S3 endpoint must not hold a user or password")
        try:
            url = urlsplit(endpoint)
            if url.scheme not in {"http", "https"} or not url.netloc:
                raise ValueError("it must look like http://minio:9000")
            check_bucket_name(bucket, strict=True)
            self._client, self._anonymous = (
                Minio(
                    url.netloc + url.path.rstrip("/"),
                    access_key=user,
                    secret_key=secret,
                    secure=url.scheme == "https",
                    region=region,
                    http_client=self._http,
                )
                for user, secret in ((access_key, secret_key), (None, None))
            )
        except ValueError as error:
            raise SettingError(f"S3 endpoint {endpoint}, bucket {bucket}: {error}") from error

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store durably, in one request whatever the size; a key that is there is overwritten."""
        await self._run(partial(self._put, check_key(key), data, content_type))

    async def get(self, key: str) -> tuple[bytes, str]:
        """Read the bytes and the content type they were put with."""
        found = await self._run(partial(self._get, check_key(key)))
        if found is None:
            raise NotFoundError("image", key)
        return found

    async def delete(self, key: str) -> None:
        """Delete; a key that is not there is no error."""
        await self._run(partial(self._client.remove_object, self._bucket, check_key(key)))

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """All objects whose key starts with `prefix`, in order of key (by its UTF-8 bytes).

        Objects in the bucket whose key could not be ours are passed over.
        """
        objects = self._walk(prefix)
        while batch := await self._run(lambda: tuple(islice(objects, _BATCH))):
            for found in batch:
                yield found

    async def put_file(self, key: str, path: Path) -> None:
        """Send a file in one request, so that a crash leaves no parts; at most 5 GiB.

        Raises:
            OSError: it cannot be read.
        """
        target = copy_key(key)
        with stop_on_leaving() as stop:
            await self._run(partial(self._put_file, target, path, stop))

    async def get_file(self, key: str, path: Path) -> None:
        """Fetch a file.

        Raises:
            OSError: it cannot be written.
        """
        source = copy_key(key)
        with stop_on_leaving() as stop:
            if not await self._run(partial(self._get_file, source, path, stop)):
                raise NotFoundError("snapshot copy", key)

    async def delete_file(self, key: str) -> None:
        """Delete a file of a copy."""
        await self._run(partial(self._client.remove_object, self._bucket, copy_key(key)))

    async def list_files(self, folder: str) -> tuple[StoredObject, ...]:
        """The files below a folder."""
        return await self._run(partial(self._list_files, copy_key(folder)))

    async def check(self) -> None:
        """Write, read and delete a few bytes; the first time, prove the bucket fit for faces.

        Raises:
            SettingError: anyone can read the bucket, or it keeps what is deleted.
        """
        await self._run(self._check)

    async def close(self) -> None:
        """Give back connections."""
        self._http.clear()

    async def _run(self, work: Callable[[], T]) -> T:
        """Talk to the store in a thread, the bucket made sure of first."""

        def opened() -> T:
            if not self._opened:
                self._open()
            return work()

        try:
            return await anyio.to_thread.run_sync(opened, limiter=self._limiter)
        except (HTTPError, MinioException) as error:
            raise StoreDownError(self._explain(error)) from error

    def _open(self) -> None:
        try:
            if not self._has_bucket():
                self._make_bucket()
        except S3Error as error:
            status = error.response.status
            if status in _REFUSED and status not in _TRY_AGAIN:
                raise SettingError(self._explain(error)) from error
            raise
        self._opened = True

    def _make_bucket(self) -> None:
        try:
            self._client.make_bucket(self._bucket, self._region)
        except S3Error:
            # Another process may have made it meanwhile; a stranger's bucket is refused here.
            if not self._has_bucket():
                raise

    def _has_bucket(self) -> bool:
        try:
            # Not `bucket_exists`, whose HEAD request is refused without a reason.
            next(self._client.list_objects(self._bucket, prefix=_CHECKS), None)
        except S3Error as error:
            if error.code == "NoSuchBucket":
                return False
            raise
        return True

    def _put(self, key: str, data: bytes, content_type: str) -> None:
        self._client.put_object(
            self._bucket,
            key,
            io.BytesIO(data),
            len(data),
            content_type=content_type,
            # In parts, a crash would leave some behind where no listing shows them.
            part_size=max(len(data), MIN_PART_SIZE),
        )

    def _get(self, key: str) -> tuple[bytes, str] | None:
        try:
            response = self._client.get_object(self._bucket, key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise
        try:
            return response.read(), response.headers.get("content-type", UNKNOWN_TYPE)
        finally:
            response.close()
            response.release_conn()

    def _put_file(self, key: str, path: Path, stop: Event) -> None:
        # The client's own methods read a part into memory, of which a file would need many.
        url = self._client.presigned_put_object(self._bucket, key)
        response = send_file(self._http, url, path, stop)
        if response.status != 200:
            code = _ERROR_CODE.search(response.data)
            why = code[1].decode() if code else f"status {response.status}"
            raise StoreDownError(f"{self._named()}: {why}")

    def _get_file(self, key: str, path: Path, stop: Event) -> bool:
        try:
            response = self._client.get_object(self._bucket, key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return False
            raise
        try:
            write_blocks(path, until(stop, response.stream(BLOCK_BYTES)))
        finally:
            response.close()
            response.release_conn()
        return True

    def _list_files(self, folder: str) -> tuple[StoredObject, ...]:
        return tuple(
            StoredObject(found.object_name[len(COPIES) + 1 :], found.size or 0, found.last_modified)
            for found in self._client.list_objects(self._bucket, f"{folder}/", recursive=True)
            if found.object_name and found.last_modified
        )

    def _walk(self, prefix: str) -> Iterator[StoredObject]:
        for found in self._client.list_objects(self._bucket, prefix or None, recursive=True):
            if found.object_name and found.last_modified:
                with suppress(ValueError):
                    yield StoredObject(
                        check_key(found.object_name), found.size or 0, found.last_modified
                    )

    def _check(self) -> None:
        key = f"{_CHECKS}{secrets.token_hex(16)}"
        self._put(key, b"check", UNKNOWN_TYPE)
        try:
            if self._get(key) != (b"check", UNKNOWN_TYPE):
                raise StoreDownError(f"{self._named()}: read other bytes than were written")
            if not self._proven_private:
                self._prove_private(key)
                self._proven_private = True
        finally:
            self._client.remove_object(self._bucket, key)

    def _prove_private(self, key: str) -> None:
        """Refuse a bucket that shows faces to anyone, or keeps them when they are deleted."""
        readable = False
        with suppress(S3Error):
            self._anonymous.stat_object(self._bucket, key)
            readable = True
        if readable:
            raise SettingError(f"{self._named()}: anyone can read it; make the bucket private")
        versioned = False
        with suppress(S3Error):  # Not every store knows versions, nor is every key allowed to ask.
            versioned = self._client.get_bucket_versioning(self._bucket).status == ENABLED
        if versioned:
            raise SettingError(
                f"{self._named()}: it keeps old versions, so a deleted face would stay; "
                "turn versioning off"
            )

    def _named(self) -> str:
        return f"object store {self._endpoint}, bucket {self._bucket}"

    def _explain(self, error: Exception) -> str:
        """What an operator needs to know of an error; never a secret, nor a whole page of HTML."""
        if isinstance(error, MaxRetryError) and error.reason is not None:
            return f"{self._named()}: {error.reason}"
        if isinstance(error, S3Error):
            by = f", as access key {self._access_key!r}" if error.response.status == 403 else ""
            return f"{self._named()}{by}: {error.code}: {error.message}"
        if isinstance(error, InvalidResponseError):
            return f"{self._named()}: what answers there does not speak S3"
        return f"{self._named()}: {error}"


def _http_client() -> urllib3.PoolManager:
    """A pool of connections that gives up on a dead store within seconds.

    Every request of ours may be repeated: a put writes the same bytes under the same key again.
    """
    return urllib3.PoolManager(
        num_pools=2,
        maxsize=_CONNECTIONS,
        timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
        retries=urllib3.Retry(
            total=2,
            connect=1,
            read=1,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
            respect_retry_after_header=False,
        ),
    )
