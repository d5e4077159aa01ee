"""Create a backup: one moment of the database, and every object that it names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from uuid_utils.compat import uuid7

from oneton import __version__
from oneton.domain.backups import FORMAT, Absence, Backup, ListedObject, ObjectCount, RowCounts
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.images import ImageStore
from oneton.images.encrypted import key_number
from oneton.records.dumps import dump
from oneton.records.whole_database import OwnedDatabase
from oneton.verbs.backup_folder import (
    DUMP,
    LIST,
    NAMES,
    BackupFolder,
    file_sum,
    keep,
    line_of,
    new_folder,
    sum_of,
)
from oneton.verbs.in_turn import each_of

SETTLE_S = 2.0
"""An image is deleted within so long of its row, before or after it."""
Advance = Callable[[str, int, int], None]


class _Tally:
    """What was copied so far.

    Attributes:
        keys: tenant and number of each key that something was sealed with.
    """

    def __init__(self, file: BinaryIO, total: int) -> None:
        self.file = file
        self.total = total
        self.objects = 0
        self.size_bytes = 0
        self.absent: list[str] = []
        self.keys: set[tuple[UUID, int]] = set()


@dataclass(frozen=True)
class _Rows:
    """What the dump holds.

    Attributes:
        keys: tenant and number.
    """

    counts: RowCounts
    migrations: list[str]
    postgres: str
    keys: frozenset[tuple[UUID, int]]


@dataclass(frozen=True)
class CreateBackup:
    """Writers never wait for it.

    The rows come first, all of one snapshot, then the objects that they name: an object is written
    before its row and deleted after, so what is not there any more was erased meanwhile. Nobody
    begins to encrypt anew meanwhile, for the rows lack the key that the objects would have.

    Args:
        owner_dsn: of the role that owns the schema.
        objects: whose bytes are as they lie there.
        advance: is told what is done, how much of it, and out of how much.
    """

    owner_dsn: str
    objects: ImageStore
    advance: Advance

    async def __call__(
        self, path: Path, *, copy_objects: bool = True, incremental_from: Path | None = None
    ) -> Backup:
        """Write a backup into a folder that is not there yet, or empty.

        Args:
            copy_objects: False only lists them with their checksums.
            incremental_from: a backup on the same disk; objects that are in it are linked to.

        Raises:
            ConflictError: the folder is not empty, or keys were changed all the same.
            NotFoundError: there is no backup to be incremental from.
            UnavailableError: a part does not answer, or the folder cannot be written.
        """
        old = None if incremental_from is None else BackupFolder(incremental_from)
        if old is not None:
            old.manifest()
        async with OwnedDatabase.connect(self.owner_dsn) as database:
            await database.hold_keys()
            with new_folder(path) as folder:
                return await self._fill(folder, old, copy=copy_objects)

    async def _fill(self, folder: BackupFolder, old: BackupFolder | None, *, copy: bool) -> Backup:
        created_at = datetime.now(UTC)
        rows = await self._copy_rows(folder)
        total = sum(1 for _ in _names(folder))
        copied, sealed_with = await self._copy_objects(folder, total, old, copy=copy)
        await self._check_keys(rows, sealed_with)
        (folder.path / NAMES).unlink()
        backup = Backup(
            format=FORMAT,
            backup_id=uuid7(),
            oneton=__version__,
            created_at=created_at,
            postgres=rows.postgres,
            migrations=rows.migrations,
            rows=rows.counts,
            objects=copied,
            files={name: file_sum(folder.path / name) for name in (DUMP, LIST)},
        )
        folder.write_manifest(backup)
        return backup

    async def _copy_rows(self, folder: BackupFolder) -> _Rows:
        async with OwnedDatabase.connect(self.owner_dsn) as database, database.snapshot() as name:
            self.advance("database", 0, 1)
            dumping = asyncio.create_task(dump(self.owner_dsn, name, folder.dump))
            try:
                with (folder.path / NAMES).open("wb") as names:
                    async for key in database.named_objects():
                        names.write(key.encode() + b"\n")
                rows = _Rows(
                    await database.counts(),
                    await database.migrations(),
                    await database.version(),
                    frozenset(await database.keys()),
                )
                await dumping
            finally:
                dumping.cancel()
                await asyncio.gather(dumping, return_exceptions=True)
        folder.dump.chmod(0o600)
        await asyncio.to_thread(_sync_file, folder.dump)
        self.advance("database", 1, 1)
        return rows

    async def _check_keys(self, rows: _Rows, sealed_with: set[tuple[UUID, int]]) -> None:
        """Raise ConflictError when an object may be sealed with a key that the dump lacks.

        The lock may have been lost with its connection, and objects that are only listed are copied
        by somebody else. A number that no key ever had is of a damaged object, which stays so.
        """
        async with OwnedDatabase.connect(self.owner_dsn) as database:
            now = await database.keys()
        tenants = {each.tenant_id for each in rows.counts.tenants}
        for key, anew in now.items():
            if key not in rows.keys and key[0] in tenants and (anew or key in sealed_with):
                raise ConflictError(f"the keys of tenant {key[0]} changed meanwhile, run it again")

    async def _copy_objects(
        self, folder: BackupFolder, total: int, old: BackupFolder | None, *, copy: bool
    ) -> tuple[ObjectCount, set[tuple[UUID, int]]]:
        """Returns what was copied, and the keys that it is sealed with."""
        with folder.list.open("xb") as file:
            folder.list.chmod(0o600)
            tally = _Tally(file, total)

            async def work(key: str) -> None:
                await self._copy(key, folder, tally, old, copy=copy)

            await each_of(_names(folder), work)
            missing = await self._still_missing(folder, tally, old, copy=copy)
            for key in tally.absent:
                why = Absence.MISSING if key in missing else Absence.ERASED
                file.write(line_of(ListedObject(key, absent=why)))
            file.flush()
            os.fsync(file.fileno())
        count = ObjectCount(
            copied=copy,
            objects=tally.objects,
            size_bytes=tally.size_bytes,
            erased=len(tally.absent) - len(missing),
            missing=len(missing),
        )
        return count, tally.keys

    async def _copy(
        self, key: str, folder: BackupFolder, tally: _Tally, old: BackupFolder | None, *, copy: bool
    ) -> None:
        try:
            data, content_type = await self.objects.get(key)
        except NotFoundError:
            tally.absent.append(key)
            return
        if number := key_number(data):
            tally.keys.add((UUID(key.partition("/")[0]), number))
        if copy:
            before = None if old is None else old.object(key)
            await asyncio.to_thread(keep, folder.object(key), data, before)
        tally.file.write(line_of(ListedObject(key, len(data), sum_of(data), content_type)))
        tally.objects += 1
        tally.size_bytes += len(data)
        self.advance("objects", tally.objects, tally.total)

    async def _still_missing(
        self, folder: BackupFolder, tally: _Tally, old: BackupFolder | None, *, copy: bool
    ) -> set[str]:
        """Of the objects that were not there, those that rows name even now."""
        if not tally.absent:
            return set()
        await asyncio.sleep(SETTLE_S)
        again, tally.absent = tally.absent, []

        async def work(key: str) -> None:
            await self._copy(key, folder, tally, old, copy=copy)

        await each_of(again, work)
        async with OwnedDatabase.connect(self.owner_dsn) as database:
            return await database.still_named(tally.absent)


def _names(folder: BackupFolder) -> Iterator[str]:
    with (folder.path / NAMES).open() as names:
        for line in names:
            yield line.rstrip("\n")


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
