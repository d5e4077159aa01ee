"""What a backup says of itself, and what is found when it is looked at."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

FORMAT = 1


class TableCount(msgspec.Struct, frozen=True):
    """A table at the moment of the backup.

    Attributes:
        digest: sum over the rows of 60 bits of each one's SHA-256, modulo 2^63 - 1; the order
            means nothing.
    """

    rows: int
    digest: int


class GalleryCount(msgspec.Struct, frozen=True):
    """A gallery at that moment; one that is deleted may not be empty yet.

    Attributes:
        faces: that are there.
        with_image: of them.
    """

    tenant_id: UUID
    gallery_id: str
    gallery_no: int
    head: int
    faces: int
    with_image: int
    deleted: bool = False


class TenantCount(msgspec.Struct, frozen=True):
    """A tenant at that moment.

    Attributes:
        rows: by table, of those tables that have a tenant.
    """

    tenant_id: UUID
    name: str
    rows: dict[str, int]


class RowCounts(msgspec.Struct, frozen=True):
    """What one snapshot of the database holds."""

    tables: dict[str, TableCount]
    tenants: list[TenantCount]
    galleries: list[GalleryCount]


class FileSum(msgspec.Struct, frozen=True):
    """A file of the backup's own."""

    size_bytes: int
    sha256: str


class ObjectCount(msgspec.Struct, frozen=True):
    """What the list of objects comes to.

    Attributes:
        copied: the objects themselves are in the backup.
        erased: named by rows at the backup's moment, and erased before they were read.
        missing: named by rows still, and not in the store.
    """

    copied: bool
    objects: int
    size_bytes: int
    erased: int = 0
    missing: int = 0


class Backup(msgspec.Struct, frozen=True):
    """The manifest, written last.

    Attributes:
        migrations: versions that the database had.
        postgres: version of the server.
    """

    format: int
    backup_id: UUID
    oneton: str
    created_at: datetime
    postgres: str
    migrations: list[str]
    rows: RowCounts
    objects: ObjectCount
    files: dict[str, FileSum]


class Absence(StrEnum):
    """Why an object that a row names is not in the backup."""

    ERASED = "erased"
    MISSING = "missing"


class ListedObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the list of objects.

    Attributes:
        sha256: of the bytes as they lie in the store, encrypted or not.
        content_type: that it is put back with.
    """

    key: str
    size_bytes: int = 0
    sha256: str = ""
    content_type: str = ""
    absent: Absence | None = None


class RestoreMark(msgspec.Struct, frozen=True):
    """Left in the database while a restore is under way.

    Attributes:
        tenants: whose objects it puts into the store.
        objects: whether it puts any.
    """

    backup_id: UUID
    started_at: datetime
    tenants: list[UUID]
    objects: bool


class Restored(msgspec.Struct):
    """What a restore did and proved.

    Attributes:
        erased: face records and pictures whose image was erased while the backup was made.
        wrong: everything that is not as the backup has it; empty when it is proved.
    """

    tables: int = 0
    rows: int = 0
    galleries: int = 0
    objects: int = 0
    erased: int = 0
    wrong: list[str] = msgspec.field(default_factory=list)


class Sampled(msgspec.Struct):
    """Searches with stored images.

    Attributes:
        wrong: one line a search that did not find its own record first.
    """

    searched: int = 0
    agreed: int = 0
    wrong: list[str] = msgspec.field(default_factory=list)
