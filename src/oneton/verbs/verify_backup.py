"""Verify a backup: every byte as it was written, and every row's image there."""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneton.domain.backups import Backup, ListedObject
from oneton.domain.errors import OnetonError
from oneton.domain.requests import PICTURES
from oneton.records.dumps import contents, rows_of
from oneton.verbs.backup_folder import BackupFolder, file_sum
from oneton.verbs.in_turn import each_of

Row = dict[str, bytes]


@dataclass(frozen=True)
class VerifyBackup:
    """Needs neither a database nor a store.

    Args:
        advance: is told what is done, how much of it, and out of how much.
    """

    advance: Callable[[str, int, int], None]

    async def __call__(self, path: Path) -> list[str]:
        """Every damage in one line.

        Raises:
            NotFoundError: there is no backup.
            OnetonError: its manifest cannot be read.
        """
        folder = BackupFolder(path)
        backup = folder.manifest()
        damages = await check_files(folder, backup)
        if not damages:
            damages += await self._check_rows(folder, backup)
            damages += await self._check_objects(folder, backup)
        return damages

    async def _check_rows(self, folder: BackupFolder, backup: Backup) -> list[str]:
        """Count the dump's rows, and look for the images that they name in the list."""
        try:
            await contents(folder.dump)
            dumped = await _read_rows(folder)
        except OnetonError as error:
            return [f"{folder.dump.name}: {error}"]
        damages = [
            f"table {name}: {dumped.rows[name]} rows in the dump, {table.rows} in the manifest"
            for name, table in backup.rows.tables.items()
            if dumped.rows[name] != table.rows
        ]
        damages += [
            f"gallery {each.gallery_id}: its head is not the manifest's"
            for each in backup.rows.galleries
            if dumped.heads.get(each.gallery_no) != each.head
        ]
        listed = array("Q", (_mark(each.key) for each in folder.listed()))
        lacking = np.setdiff1d(_numbers(dumped.named), _numbers(listed))
        if len(lacking):
            damages.append(f"{len(lacking)} images that rows name are not in {folder.list.name}")
        return damages

    async def _check_objects(self, folder: BackupFolder, backup: Backup) -> list[str]:
        damages: list[str] = []
        objects = size_bytes = 0

        async def work(listed: ListedObject) -> None:
            nonlocal objects, size_bytes
            if listed.absent is not None:
                return
            if backup.objects.copied and (why := await asyncio.to_thread(_damage, folder, listed)):
                damages.append(f"object {listed.key}: {why}")
            objects += 1
            size_bytes += listed.size_bytes
            self.advance("objects", objects, backup.objects.objects)

        await each_of(folder.listed(), work)
        if (objects, size_bytes) != (backup.objects.objects, backup.objects.size_bytes):
            damages.append(f"{folder.list.name}: {objects} objects, not {backup.objects.objects}")
        return damages


async def check_files(folder: BackupFolder, backup: Backup) -> list[str]:
    """The backup's own files, the objects left out."""
    damages = []
    for name, expected in backup.files.items():
        try:
            found = await asyncio.to_thread(file_sum, folder.path / name)
        except OSError as error:
            damages.append(f"{name}: {error.strerror or error}")
            continue
        if found != expected:
            damages.append(f"{name}: not what was written")
    return damages


@dataclass
class _Dumped:
    """What a dump's rows come to.

    Attributes:
        named: a number for every key.
        heads: by gallery number.
    """

    rows: Counter[str] = field(default_factory=Counter)
    named: array[int] = field(default_factory=lambda: array("Q"))
    heads: dict[int, int] = field(default_factory=dict)


async def _read_rows(folder: BackupFolder) -> _Dumped:
    dumped = _Dumped()
    names: dict[bytes, str] = {}
    async with rows_of(folder.dump, "gallery") as lines:
        async for _, row in _rows(lines, {"gallery"}):
            dumped.heads[int(row["gallery_no"])] = int(row["head"])
            if row["deleted_at"] == b"\\N":
                names[row["gallery_no"]] = (
                    f"{row['tenant_id'].decode()}/{row['gallery_id'].decode()}"
                )
    async with rows_of(folder.dump) as lines:
        async for table, row in _rows(lines, {"face", "picture"}):
            dumped.rows[table] += 1
            if table == "picture":
                key = f"{row['tenant_id'].decode()}/{PICTURES}/{row['picture_id'].decode()}"
                dumped.named.append(_mark(key))
            elif table == "face" and _has_image(row) and row["gallery_no"] in names:
                dumped.named.append(_mark(f"{names[row['gallery_no']]}/{row['face_id'].decode()}"))
    return dumped


async def _rows(
    lines: AsyncIterator[bytes], wanted: Iterable[str]
) -> AsyncIterator[tuple[str, Row]]:
    """Every row's table, and of wanted tables its columns, as COPY writes them."""
    table, columns = "", []
    async for line in lines:
        if not table:
            if line.startswith(b"COPY "):
                head = line.decode()
                table = head.split()[1].partition(".")[2].strip('"')
                inside = head[head.index("(") + 1 : head.rindex(")")]
                columns = [each.strip().strip('"') for each in inside.split(",")]
        elif line == b"\\.\n":
            table = ""
        elif table in wanted:
            yield table, dict(zip(columns, line.rstrip(b"\n").split(b"\t"), strict=True))
        else:
            yield table, {}


def _has_image(row: Row) -> bool:
    return row["face_id"] != b"\\N" and row["image_erased_at"] == b"\\N"


def _mark(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def _numbers(found: array[int]) -> NDArray[np.uint64]:
    return np.frombuffer(found, dtype=np.uint64) if found else np.empty(0, np.uint64)


def _damage(folder: BackupFolder, listed: ListedObject) -> str:
    try:
        found = file_sum(folder.object(listed.key))
    except OSError as error:
        return error.strerror or str(error)
    if (found.size_bytes, found.sha256) != (listed.size_bytes, listed.sha256):
        return "not what was written"
    return ""
