"""Keep lists: of blocked, trusted and watched values; the faces among them are searched."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.errors import ConflictError, NoFaceError, NotFoundError
from oneton.domain.lists import (
    EntryId,
    EntryList,
    EntryType,
    ListEntry,
    ListId,
    ListType,
    NewEntry,
    NewList,
    normalised,
)
from oneton.domain.model import FaceId, FaceNote, FaceSource, NewGallery, TenantId
from oneton.domain.requests import RequestId, SavedRequest
from oneton.images import ImageStore
from oneton.records.faces import Faces
from oneton.records.lists import Lists
from oneton.records.locked_gallery import LockedGallery
from oneton.verbs.analyse import Picture
from oneton.verbs.enroll import Enroll
from oneton.verbs.manage_galleries import ManageGalleries
from oneton.verbs.purge import Purge
from oneton.verbs.saved_requests import SavedRequests

PICTURE_NAME = "user_image"


@dataclass(frozen=True)
class KeepLists:
    """An entry of a face is written with its face record, and removed after it.

    The block lists, one for each type of entry, are made when they are first asked for.
    """

    lists: Lists
    faces: Faces
    images: ImageStore
    galleries: ManageGalleries
    requests: SavedRequests
    enroll: Enroll
    purge: Purge

    async def create(self, tenant: TenantId, new: NewList) -> EntryList:
        """Add a list.

        Raises:
            ConflictError: the tenant has one of this name.
        """
        await self._ensure(tenant)
        return await self.lists.create(tenant, new)

    async def page(
        self, tenant: TenantId, *, limit: int, offset: int
    ) -> tuple[list[EntryList], int]:
        """Some of a tenant's lists, and how many there are."""
        await self._ensure(tenant)
        found = await self.lists.page(tenant, limit=limit, offset=offset)
        return found, await self.lists.count(tenant)

    async def read(self, tenant: TenantId, list_id: ListId) -> EntryList:
        """One list; NotFoundError when the tenant has none of this id."""
        return await self.lists.read(tenant, list_id)

    async def blocklist(self, tenant: TenantId, entry_type: EntryType) -> EntryList:
        """The block list for a type of entry."""
        await self._ensure(tenant)
        return await self.lists.system(tenant, entry_type)

    async def entries(
        self,
        tenant: TenantId,
        list_ids: Sequence[ListId],
        *,
        search: str = "",
        limit: int,
        offset: int,
    ) -> tuple[list[ListEntry], int]:
        """Some entries of lists, the newest first, and how many there are."""
        found = await self.lists.entries(
            tenant, list_ids, search=search, limit=limit, offset=offset
        )
        return found, await self.lists.count_entries(tenant, list_ids, search=search)

    async def add(self, tenant: TenantId, of: EntryList, new: NewEntry) -> ListEntry:
        """Add a value; on a list of searched faces, the id of a face record that has a picture.

        Raises:
            InvalidValueError: it is no value for this list.
            ConflictError: the list has it already.
            NotFoundError: there is no such face record, or its picture was erased.
            ProbeError: the picture holds no usable face.
        """
        value = normalised(of.entry_type, new.value)
        if of.gallery_id is None:
            entry_id = await self.lists.add(tenant, of.list_id, _with_value(new, value))
            return await self.lists.entry(tenant, of.list_id, entry_id)
        try:
            found = await self.faces.find(tenant, FaceId(UUID(value)))
        except ValueError as error:
            raise NotFoundError("face record", value) from error
        if not found.has_image:
            raise NotFoundError("picture of face record", value)
        data, _ = await self.images.get(found.image_key)
        return await self._take_over(tenant, of, data, new)

    async def add_session(self, tenant: TenantId, of: EntryList, new: NewEntry) -> ListEntry:
        """Add the face of the saved call `new.request_id`; candidates name the call.

        Raises:
            NotFoundError: there is no such call, or it has no face, or the list is not of faces.
            ConflictError: the list has this call's face already.
            ProbeError: the picture holds no usable face.
        """
        assert new.request_id is not None
        request = await self.requests.read(tenant, RequestId(new.request_id))
        if of.entry_type is not EntryType.FACE:
            raise NotFoundError(of.entry_type, f"in session {request.request_id}")
        if await self.lists.entries_of_request(tenant, of.list_id, request.request_id):
            raise ConflictError("The list has this already.")
        if of.gallery_id is None:
            if request.face_id is None:
                raise NotFoundError("face", f"of session {request.request_id}")
            new = _with_value(new, str(request.face_id))
            entry_id = await self.lists.add(tenant, of.list_id, new)
            return await self.lists.entry(tenant, of.list_id, entry_id)
        return await self._take_over(tenant, of, await self._picture(tenant, request), new)

    async def add_face(
        self, tenant: TenantId, of: EntryList, picture: Picture, new: NewEntry
    ) -> ListEntry:
        """Add the largest face of a picture to a list of searched faces.

        Raises:
            ProbeError: the picture cannot be used.
            ConflictError: the list has this saved call's face already; or its gallery's name is
                that of another one.
        """
        assert of.gallery_id is not None
        gallery = await self.galleries.ensure(
            tenant, of.gallery_id, NewGallery(kind=of.gallery_kind, description=of.name)
        )
        if gallery.kind is not of.gallery_kind:
            raise ConflictError(f"The gallery {gallery.gallery_id} is no {of.gallery_kind}.")
        made: list[EntryId] = []

        async def write(locked: LockedGallery, face_id: FaceId) -> None:
            entry = msgspec.structs.replace(
                new, value=str(face_id), reference_id=face_id, face_id=face_id
            )
            made.append(await self.lists.add_beside(locked, of.list_id, entry))

        note = FaceNote(source=FaceSource.LIST_ENTRY, request_id=new.request_id)
        await self.enroll.writing(write)(
            tenant, of.gallery_id, picture, if_missing=False, note=note
        )
        return await self.lists.entry(tenant, of.list_id, made[-1])

    async def remove(self, tenant: TenantId, list_id: ListId, entry_id: EntryId) -> None:
        """Remove an entry, and purge the face record that it put in the list's gallery.

        Raises:
            NotFoundError: the list has no such entry.
        """
        entry = await self.lists.entry(tenant, list_id, entry_id)
        if entry.face_id is not None:
            # Somebody else may be removing it just now.
            with suppress(NotFoundError):
                await self.purge(tenant, entry.face_id)
        await self.lists.remove(tenant, list_id, entry_id)

    async def remove_session(
        self, tenant: TenantId, of: EntryList, request_id: UUID
    ) -> list[ListEntry]:
        """Remove the entries that were taken from a saved call; returns them."""
        found = await self.lists.entries_of_request(tenant, of.list_id, request_id)
        for entry in found:
            await self.remove(tenant, of.list_id, entry.entry_id)
        return found

    async def _take_over(
        self, tenant: TenantId, of: EntryList, data: bytes, new: NewEntry
    ) -> ListEntry:
        """Add the face of a picture that we have; it may have been turned to find it."""
        try:
            return await self.add_face(tenant, of, Picture(data), new)
        except NoFaceError:
            return await self.add_face(tenant, of, Picture(data, rotate=True), new)

    async def _picture(self, tenant: TenantId, request: SavedRequest) -> bytes:
        """The picture of a saved call, or of the record that it enrolled."""
        picture = request.picture(PICTURE_NAME)
        if picture is not None:
            return (await self.images.get(picture.key))[0]
        if request.face_id is not None:
            face = await self.faces.find(tenant, request.face_id)
            if face.has_image:
                return (await self.images.get(face.image_key))[0]
        raise NotFoundError("face", f"of session {request.request_id}")

    async def _ensure(self, tenant: TenantId) -> None:
        await self.lists.ensure(tenant, [_blocklist(each) for each in EntryType])


def _blocklist(entry_type: EntryType) -> NewList:
    return NewList(
        list_id=ListId(uuid7()),
        name=f"{entry_type.replace('_', ' ').capitalize()} blocklist",
        list_type=ListType.BLOCKLIST,
        entry_type=entry_type,
        is_system=True,
    )


def _with_value(new: NewEntry, value: str) -> NewEntry:
    return msgspec.structs.replace(new, value=value)
