"""Photos below a prefix of an S3 bucket, read and never written."""

from __future__ import annotations

import configparser
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from oneton.domain.errors import SettingError, StoreDownError
from oneton.sources import (
    MANIFESTS,
    Access,
    Item,
    ItemError,
    Note,
    first_of_each_folder,
    is_photo,
)
from oneton.sources.folder import S3, at_most, missing
from oneton.sources.tables import is_table, read_table

_CONNECTIONS = 16
_TIMEOUT = urllib3.Timeout(connect=5, read=30)
_ABSENT = frozenset({"NoSuchKey", "NoSuchObject"})


def read_credentials(path: Path | None, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Access and secret key of a file as AWS tools have it, else of `AWS_*`; None is none.

    Raises:
        SettingError: the file has none.
    """
    names = ("aws_access_key_id", "aws_secret_access_key")
    if path is None:
        found = [environ.get(name.upper(), "") for name in names]
        return (found[0], found[1]) if all(found) else None
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text())
        section = parser["default"]
        return section[names[0]], section[names[1]]
    except OSError as error:
        raise SettingError(f"--s3-credentials {path}: {error.strerror}") from error
    except (configparser.Error, KeyError, UnicodeDecodeError) as error:
        # What a parser says may repeat a secret.
        raise SettingError(
            f"--s3-credentials {path}: it needs [default] with {names[0]} and {names[1]}"
        ) from error


class Bucket:
    """Every photo below a prefix, or what a table in the bucket names.

    Args:
        where: `s3://bucket/prefix`, a prefix being a folder; or `s3://bucket/list.csv`.
    """

    def __init__(self, where: str, access: Access, *, first_of_folder: bool = False) -> None:
        self._where = where
        self._bucket, prefix = _split(where)
        self._client = _connect(access)
        self._first = first_of_folder
        self._named = prefix if is_table(prefix) else None
        folder = prefix.rpartition("/")[0] if self._named else prefix.rstrip("/")
        self._folder = f"{folder}/" if folder else ""

    def count(self) -> int | None:
        """The rows of its table; without one, listing it all would take as long as importing."""
        if (table := self._table()) is None:
            return None
        return sum(1 for _ in self._rows(table))

    def items(self) -> Iterator[Item]:
        """In the table's order, or that of the keys."""
        table = self._table()
        yield from self._listed() if table is None else self._rows(table)

    def close(self) -> None:
        """Give back connections."""
        self._client._http.clear()  # noqa: SLF001 - our own pool, which has no other name here

    def item(self, url: str, note: Note) -> Item:
        """An object by its whole address, for tables elsewhere."""
        bucket, key = _split(url)
        return Item(url, partial(self._read, bucket, key), None, "", note)

    def _listed(self) -> Iterator[Item]:
        sizes: dict[str, tuple[int, str]] = {}

        def names() -> Iterator[str]:
            for name, size, stamp in self._objects():
                sizes[name] = size, stamp
                yield name

        for name in first_of_each_folder(names()) if self._first else names():
            size, stamp = sizes.pop(name)
            read = partial(self._read, self._bucket, self._folder + name)
            yield Item(name, read, size, stamp)
            sizes.clear()

    def _objects(self) -> Iterator[tuple[str, int, str]]:
        try:
            for found in self._client.list_objects(
                self._bucket, prefix=self._folder, recursive=True
            ):
                name = (found.object_name or "").removeprefix(self._folder)
                if is_photo(name):
                    yield name, found.size or 0, f"{found.size}-{found.etag}"
        except (MinioException, HTTPError, ValueError) as error:
            raise self._failed(error) from error

    def _table(self) -> str | None:
        if self._named is not None:
            return self._named
        for name in MANIFESTS:
            try:
                self._client.stat_object(self._bucket, self._folder + name)
            except S3Error as error:
                if error.code in _ABSENT:
                    continue
                raise self._failed(error) from error
            except (MinioException, HTTPError, ValueError) as error:
                raise self._failed(error) from error
            return self._folder + name
        return None

    def _rows(self, table: str) -> Iterator[Item]:
        """Read from a copy: the store would not wait for as long as an import takes."""
        with tempfile.TemporaryFile() as copy:
            try:
                response = self._client.get_object(self._bucket, table)
                try:
                    shutil.copyfileobj(response, copy)
                finally:
                    response.close()
                    response.release_conn()
            except (MinioException, HTTPError, ValueError) as error:
                raise self._failed(error) from error
            copy.seek(0)
            with io.TextIOWrapper(copy, encoding="utf-8-sig", newline="") as text:
                for name, note in read_table(text, f"{S3}{self._bucket}/{table}"):
                    yield self._row(name, note)

    def _row(self, name: str, note: Note) -> Item:
        if name.startswith(S3):
            return self.item(name, note)
        if not name:
            return missing(note)
        read = partial(self._read, self._bucket, self._folder + name)
        return Item(name, read, None, "", note)

    def _read(self, bucket: str, key: str, limit_bytes: int) -> bytes:
        try:
            response = self._client.get_object(bucket, key)
            try:
                return at_most(response.read(limit_bytes + 1), limit_bytes)
            finally:
                response.close()
                response.release_conn()
        except S3Error as error:
            if error.code in _ABSENT:
                raise ItemError("FileNotFound", "the bucket has no such object") from error
            raise self._failed(error) from error
        except ValueError as error:
            raise ItemError("BadName", str(error)) from error
        except (MinioException, HTTPError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> SettingError | StoreDownError:
        """What the store refuses is a setting; what it does not answer is to be tried again."""
        if isinstance(error, S3Error | ValueError):
            code = error.code if isinstance(error, S3Error) else str(error)
            if code not in {"SlowDown", "InternalError", "ServiceUnavailable"}:
                return SettingError(f"{self._where}: the store says {code}")
        return StoreDownError(f"{self._where}: {type(error).__name__}")


def _split(where: str) -> tuple[str, str]:
    bucket, _, key = where.removeprefix(S3).partition("/")
    if not bucket:
        raise SettingError(f"{where} must look like s3://bucket/prefix")
    return bucket, key


def _connect(access: Access) -> Minio:
    url = urlsplit(access.endpoint)
    if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc:
        raise SettingError("--s3-endpoint must be http://host:port or https://host:port")
    try:
        return Minio(
            url.netloc,
            access_key=access.access_key,
            secret_key=access.secret_key,
            secure=url.scheme == "https",
            region=access.region,
            http_client=urllib3.PoolManager(
                maxsize=_CONNECTIONS, block=True, timeout=_TIMEOUT, retries=urllib3.Retry(2)
            ),
        )
    except ValueError as error:
        raise SettingError(f"--s3-endpoint {access.endpoint}: {error}") from error
