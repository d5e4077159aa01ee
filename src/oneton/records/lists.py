"""Lists and their entries."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.lists import (
    EntryId,
    EntryList,
    EntryType,
    ListEntry,
    ListId,
    ListType,
    NewEntry,
    NewList,
)
from oneton.domain.model import FaceId, GalleryId, TenantId, image_key
from oneton.records.audit import note_act
from oneton.records.database import Connection, Database, one_row, read_json, write_json
from oneton.records.locked_gallery import LockedGallery


class Lists:
    """Lists of one tenant at a time. An entry whose face record was purged is not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, tenant: TenantId, wanted: Sequence[NewList]) -> None:
        """Add those lists of ours whose names the tenant does not have yet."""
        async with self._database.transaction(tenant) as connection:
            there = await connection.fetchval("select count(*) from list where is_system")
            if there < len(wanted):
                await connection.executemany(
                    f"{_INSERT_LIST} on conflict (tenant_id, name) do nothing",
                    [_list_arguments(tenant, each) for each in wanted],
                )

    async def create(self, tenant: TenantId, new: NewList) -> EntryList:
        """Add a list.

        Raises:
            ConflictError: the tenant has one of this name.
        """
        try:
            async with self._database.transaction(tenant) as connection:
                await connection.execute(_INSERT_LIST, *_list_arguments(tenant, new))
                row = await one_row(connection, f"{_LISTS} where l.list_id = $1", new.list_id)
                details = {"list": new.list_id, "kind": new.list_type, "of": new.entry_type}
                act = Act(Action.CREATE_LIST, (), new.gallery_id, details)
                await note_act(connection, tenant, act)
        except asyncpg.UniqueViolationError as error:
            raise ConflictError(f"there is a list named {new.name} already") from error
        return _list(row)

    async def page(self, tenant: TenantId, *, limit: int, offset: int) -> list[EntryList]:
        """A tenant's lists, those that we made first, then the oldest first."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                f"{_LISTS} order by not l.is_system, l.created_at, l.list_id limit $1 offset $2",
                limit,
                offset,
            )
        return [_list(row) for row in rows]

    async def count(self, tenant: TenantId) -> int:
        """How many lists there are."""
        async with self._database.transaction(tenant) as connection:
            return int(await connection.fetchval("select count(*) from list"))

    async def read(self, tenant: TenantId, list_id: ListId) -> EntryList:
        """One list.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(f"{_LISTS} where l.list_id = $1", list_id)
        if row is None:
            raise NotFoundError("list", list_id)
        return _list(row)

    async def system(self, tenant: TenantId, entry_type: EntryType) -> EntryList:
        """The block list that we made for a type of entry.

        Raises:
            NotFoundError: it is not made yet.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                f"{_LISTS} where l.is_system and l.entry_type = $1", str(entry_type)
            )
        if row is None:
            raise NotFoundError("list", entry_type)
        return _list(row)

    async def entries(
        self,
        tenant: TenantId,
        list_ids: Sequence[ListId],
        *,
        search: str = "",
        limit: int,
        offset: int = 0,
    ) -> list[ListEntry]:
        """Entries of lists, the newest first; with `search`, in value or label."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                f"""{_ENTRIES} and {_SEARCHED}
                    order by e.created_at desc, e.entry_id desc limit $3 offset $4""",
                list(list_ids),
                search.lower(),
                limit,
                offset,
            )
        return [_entry(row) for row in rows]

    async def count_entries(
        self, tenant: TenantId, list_ids: Sequence[ListId], *, search: str = ""
    ) -> int:
        """How many there are."""
        async with self._database.transaction(tenant) as connection:
            return int(
                await connection.fetchval(
                    f"select count(*) from ({_ENTRIES} and {_SEARCHED}) as found",  # noqa: S608
                    list(list_ids),
                    search.lower(),
                )
            )

    async def entries_of_request(
        self, tenant: TenantId, list_id: ListId, request_id: UUID
    ) -> list[ListEntry]:
        """Entries of a list that were taken from a saved call."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                f"{_ENTRIES} and e.reference_request_id = $2", [list_id], request_id
            )
        return [_entry(row) for row in rows]

    async def entry(self, tenant: TenantId, list_id: ListId, entry_id: EntryId) -> ListEntry:
        """One entry of a list.

        Raises:
            NotFoundError: the list has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(f"{_ENTRIES} and e.entry_id = $2", [list_id], entry_id)
        if row is None:
            raise NotFoundError("entry", entry_id)
        return _entry(row)

    async def add(self, tenant: TenantId, list_id: ListId, new: NewEntry) -> EntryId:
        """Add an entry.

        Raises:
            ConflictError: the list has this value, or one of this saved call, already.
        """
        async with self._database.transaction(tenant) as connection:
            return await _add(connection, tenant, list_id, new)

    async def add_beside(self, locked: LockedGallery, list_id: ListId, new: NewEntry) -> EntryId:
        """The same, in the transaction that adds a face record."""
        return await _add(locked.connection, locked.gallery.tenant_id, list_id, new)

    async def remove(self, tenant: TenantId, list_id: ListId, entry_id: EntryId) -> None:
        """Remove an entry.

        Raises:
            NotFoundError: the list has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            gone = await connection.fetchrow(
                """delete from list_entry where entry_id = $1 and list_id = $2
                   returning true, face_id""",
                entry_id,
                list_id,
            )
            if gone is not None:
                await _note_entry(
                    connection, tenant, Action.REMOVE_ENTRY, list_id, entry_id, gone["face_id"]
                )
            await connection.execute(
                "update list set updated_at = now() where list_id = $1", list_id
            )
        if gone is None:
            raise NotFoundError("entry", entry_id)


_INSERT_LIST = """
insert into list (list_id, tenant_id, name, description, list_type, entry_type, is_system,
  gallery_id)
values ($1, $2, $3, $4, $5, $6, $7, $8)"""
# The policies of `face` and `gallery` leave out what is purged, or of a deleted gallery.
_FACE = """left join (select f.face_id, f.image_erased_at, g.gallery_id
    from face f join gallery g using (gallery_no)) as f on f.face_id = e.face_id"""
_LISTS = f"""
select l.*, found.entries, found.last_entry_at from list l
cross join lateral (select count(*) as entries, max(e.created_at) as last_entry_at
  from list_entry e {_FACE}
  where e.list_id = l.list_id and (e.face_id is null or f.face_id is not null)) as found"""  # noqa: S608 - a text of ours
_ENTRIES = f"""
select e.*, l.entry_type, r.number as request_number, f.gallery_id, f.image_erased_at
from list_entry e join list l using (list_id)
left join request r on r.request_id = e.reference_request_id
{_FACE}
where e.list_id = any ($1) and (e.face_id is null or f.face_id is not null)"""  # noqa: S608
_SEARCHED = """($2 = '' or position($2 in lower(e.value)) > 0
  or position($2 in lower(e.display_label)) > 0)"""


async def _add(connection: Connection, tenant: TenantId, list_id: ListId, new: NewEntry) -> EntryId:
    entry_id = EntryId(uuid7())
    if new.request_id is not None:
        # Of a face that was purged since, or it would stand in the way.
        await connection.execute(
            """delete from list_entry e where e.list_id = $1 and e.reference_request_id = $2
                 and e.face_id is not null and not exists (
                   select from face join gallery using (gallery_no) where face_id = e.face_id)""",
            list_id,
            new.request_id,
        )
    try:
        await connection.execute(
            """insert into list_entry (entry_id, tenant_id, list_id, value, display_label, comment,
                 added_by, reference_request_id, reference_id, face_id, metadata)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",
            entry_id,
            tenant,
            list_id,
            new.value,
            new.display_label,
            new.comment,
            new.added_by,
            new.request_id,
            new.reference_id,
            new.face_id,
            write_json(new.metadata),
        )
    except asyncpg.UniqueViolationError as error:
        raise ConflictError("The list has this already.") from error
    await _note_entry(connection, tenant, Action.ADD_ENTRY, list_id, entry_id, new.face_id)
    await connection.execute("update list set updated_at = now() where list_id = $1", list_id)
    return entry_id


async def _note_entry(
    connection: Connection,
    tenant: TenantId,
    action: Action,
    list_id: ListId,
    entry_id: EntryId,
    face_id: UUID | None,
) -> None:
    faces = () if face_id is None else (FaceId(face_id),)
    details = {"list": list_id, "entry": entry_id}
    await note_act(connection, tenant, Act(action, faces, details=details))


def _list_arguments(tenant: TenantId, new: NewList) -> tuple[object, ...]:
    return (
        new.list_id,
        tenant,
        new.name,
        new.description,
        str(new.list_type),
        str(new.entry_type),
        new.is_system,
        new.gallery_id,
    )


def _list(row: asyncpg.Record) -> EntryList:
    return EntryList(
        list_id=ListId(row["list_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        name=row["name"],
        description=row["description"] or "",
        list_type=ListType(row["list_type"]),
        entry_type=EntryType(row["entry_type"]),
        is_system=row["is_system"],
        gallery_id=None if row["gallery_id"] is None else GalleryId(row["gallery_id"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        entries=row["entries"],
        last_entry_at=row["last_entry_at"],
    )


def _entry(row: asyncpg.Record) -> ListEntry:
    has_image = row["gallery_id"] is not None and row["image_erased_at"] is None
    face_id = None if row["face_id"] is None else FaceId(row["face_id"])
    return ListEntry(
        entry_id=EntryId(row["entry_id"]),
        list_id=ListId(row["list_id"]),
        entry_type=EntryType(row["entry_type"]),
        value=row["value"],
        display_label=row["display_label"] or "",
        comment=row["comment"] or "",
        added_by=row["added_by"],
        request_id=row["reference_request_id"],
        request_number=row["request_number"],
        reference_id=row["reference_id"],
        face_id=face_id,
        image_key=(
            image_key(TenantId(row["tenant_id"]), GalleryId(row["gallery_id"]), face_id)
            if has_image and face_id is not None
            else None
        ),
        metadata=read_json(row["metadata"]),
        created_at=row["created_at"],
    )
