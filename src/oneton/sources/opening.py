"""Which source a command's argument names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from oneton.domain.errors import SettingError
from oneton.sources import Access, Item, Note, Source
from oneton.sources.archive import Archive
from oneton.sources.folder import S3, Folder, Table
from oneton.sources.tables import is_table

if TYPE_CHECKING:
    from oneton.sources.bucket import Bucket


def open_source(
    where: str, *, first_of_folder: bool = False, access: Access | None = None
) -> Source:
    """Open a folder, a table, a zip or `s3://bucket/prefix`.

    Args:
        access: of S3; None is no store.

    Raises:
        SettingError: it is none of these, or not there.
    """
    if where.startswith(S3):
        return _open_bucket(where, access, first_of_folder=first_of_folder)
    path = Path(where)
    if path.is_dir():
        return Folder(path, first_of_folder=first_of_folder)
    if not path.is_file():
        raise SettingError(f"{where} is no file or folder")
    if path.suffix.lower() == ".zip":
        return Archive(path, first_of_folder=first_of_folder)
    if not is_table(path.name):
        raise SettingError(f"{where} is no folder, .zip, .csv or .jsonl")
    buckets: list[Bucket] = []

    def elsewhere(url: str, note: Note) -> Item:
        if not buckets:
            buckets.append(_open_bucket(url, access))
        return buckets[0].item(url, note)

    return Table(path, elsewhere=elsewhere)


def _open_bucket(where: str, access: Access | None, *, first_of_folder: bool = False) -> Bucket:
    if access is None:
        raise SettingError(f"{where} needs --s3-endpoint, or ONETON_S3_ENDPOINT")
    from oneton.sources.bucket import Bucket  # noqa: PLC0415 - a fifth of a second of imports

    return Bucket(where, access, first_of_folder=first_of_folder)
