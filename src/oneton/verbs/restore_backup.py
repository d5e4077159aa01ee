"""Restore a backup into an empty system, and prove it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from oneton.domain.acting import actor
from oneton.domain.backups import Absence, Backup, ListedObject, Restored, RestoreMark, RowCounts
from oneton.domain.errors import ConflictError, NotFoundError, OnetonError
from oneton.domain.model import StoredObject
from oneton.images import ImageStore
from oneton.records.dumps import restore
from oneton.records.migrate import migrate
from oneton.records.whole_database import OwnedDatabase, unknown_migrations
from oneton.verbs.backup_folder import BackupFolder, sum_of
from oneton.verbs.in_turn import each_of
from oneton.verbs.verify_backup import check_files

log = structlog.get_logger()

MOST_SAID = 100


@dataclass(frozen=True)
class RestoreBackup:
    """Objects first, then all rows in one transaction: there is no row without its image.

    Args:
        owner_dsn: of the role that is to own the schema.
        objects: whose bytes are as they lie there.
        advance: is told what is done, how much of it, and out of how much.
    """

    owner_dsn: str
    objects: ImageStore
    advance: Callable[[str, int, int], None]

    async def __call__(self, path: Path, *, again: bool = False) -> Restored:
        """Restore everything.

        Args:
            again: a restore was interrupted here; drop what it made and begin anew.

        Raises:
            ConflictError: the system is not empty, or in use, or a restore was interrupted.
            OnetonError: the backup is damaged, or of a newer version.
        """
        folder = BackupFolder(path)
        backup = folder.manifest()
        if newer := unknown_migrations(backup.migrations):
            raise ConflictError(
                f"the backup is of a newer oneton ({backup.oneton}, migration {newer[-1]})"
            )
        if damages := await check_files(folder, backup):
            raise OnetonError(f"the backup is damaged: {'; '.join(damages)}")
        async with OwnedDatabase.connect(self.owner_dsn) as database:
            await database.alone()
            await self._make_room(database, backup, again=again)
            if backup.objects.copied:
                await self._put_objects(folder, backup)
            await database.clear()
            self.advance("database", 0, 1)
            await restore(self.owner_dsn, folder.dump)
            self.advance("database", 1, 1)
            restored = Restored(tables=len(backup.rows.tables), objects=backup.objects.objects)
            restored.rows = sum(each.rows for each in backup.rows.tables.values())
            restored.galleries = len(backup.rows.galleries)
            restored.wrong += differences(backup.rows, await database.counts())
            await migrate(self.owner_dsn)
            erased = (each.key for each in folder.listed() if each.absent is Absence.ERASED)
            restored.erased = await database.note_erased(erased)
            restored.wrong += await self._check_objects(folder, backup)
            details = {"backup": str(backup.backup_id), "made_at": backup.created_at.isoformat()}
            await database.note(actor().name, "backup restored", details)
            if not restored.wrong:
                await database.remove_mark()
        return restored

    async def _make_room(self, database: OwnedDatabase, backup: Backup, *, again: bool) -> None:
        """Refuse what is not empty; drop what an interrupted restore left when that is asked for.

        Raises:
            ConflictError: something is in the way.
        """
        mark = await database.read_mark()
        if mark is not None and not again:
            raise ConflictError(
                f"a restore of backup {mark.backup_id} was interrupted here: begin anew with "
                "--again, which drops what it made"
            )
        if mark is None and again:
            raise ConflictError("no restore was interrupted here; run it without --again")
        if mark is not None:
            if mark.objects:
                await self._drop_objects(str(each) for each in mark.tenants)
            await database.clear()
        if occupants := await database.occupants():
            raise ConflictError(f"the database is not empty: {occupants}")
        tenants = [each.tenant_id for each in backup.rows.tenants]
        if backup.objects.copied:
            for tenant in tenants:
                async for found in self.objects.list(f"{tenant}/"):
                    raise ConflictError(f"the object store is not empty: {found.key}")
        mark = RestoreMark(backup.backup_id, datetime.now(UTC), tenants, backup.objects.copied)
        await database.write_mark(mark)

    async def _drop_objects(self, tenants: Iterable[str]) -> None:
        async def drop(found: StoredObject) -> None:
            await self.objects.delete(found.key)

        for tenant in tenants:
            await each_of(self.objects.list(f"{tenant}/"), drop)

    async def _put_objects(self, folder: BackupFolder, backup: Backup) -> None:
        done = 0

        async def put(listed: ListedObject) -> None:
            nonlocal done
            if listed.absent is not None:
                return
            path = folder.object(listed.key)
            try:
                data = await asyncio.to_thread(path.read_bytes)
            except OSError as error:
                why = error.strerror or error
                raise OnetonError(f"the backup is damaged: object {listed.key}: {why}") from error
            if sum_of(data) != listed.sha256:
                raise OnetonError(
                    f"the backup is damaged: object {listed.key}: not what was written"
                )
            await self.objects.put(listed.key, data, listed.content_type)
            done += 1
            self.advance("objects", done, backup.objects.objects)

        await each_of(folder.listed(), put)

    async def _check_objects(self, folder: BackupFolder, backup: Backup) -> list[str]:
        """Read every object back."""
        wrong: list[str] = []
        done = 0

        async def check(listed: ListedObject) -> None:
            nonlocal done
            if listed.absent is not None:
                return
            try:
                data, _ = await self.objects.get(listed.key)
            except NotFoundError:
                wrong.append(f"object {listed.key}: not in the store")
            else:
                if sum_of(data) != listed.sha256:
                    wrong.append(f"object {listed.key}: not what the backup has")
            done += 1
            self.advance("checked", done, backup.objects.objects)

        await each_of(folder.listed(), check)
        return wrong


def differences(expected: RowCounts, found: RowCounts) -> list[str]:
    """What a database has otherwise than a backup, one line each."""
    wrong = []
    for name in sorted(expected.tables.keys() | found.tables.keys()):
        before, now = expected.tables.get(name), found.tables.get(name)
        if before is None or now is None:
            wrong.append(f"table {name} is {'new' if before is None else 'not there'}")
        elif before.rows != now.rows:
            wrong.append(f"table {name}: {now.rows} rows, not {before.rows}")
        elif before.digest != now.digest:
            wrong.append(f"table {name}: {now.rows} rows, and not the same")
    galleries = {each.gallery_no: each for each in found.galleries}
    wrong += [
        f"gallery {each.gallery_id}: its head or its faces are others"
        for each in expected.galleries
        if galleries.get(each.gallery_no) != each
    ]
    return wrong[:MOST_SAID]
