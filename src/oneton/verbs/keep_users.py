"""Keep users: whom callers know by `vendor_data`, their faces, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.lists import RetainedTemplate, UserDetails, UserId, VendorUser
from oneton.domain.model import DEFAULT_GALLERY, FaceId, FaceNote, FaceSource, TenantId
from oneton.records.locked_gallery import LockedGallery
from oneton.records.vendor_users import RetainedTemplates, VendorUsers
from oneton.verbs.analyse import Picture
from oneton.verbs.enroll import Enroll
from oneton.verbs.purge import Purge

IMPORTED_FACES = 5
_FULL = f"A user has at most {IMPORTED_FACES} uploaded faces."


@dataclass(frozen=True)
class KeepUsers:
    """A user is made by the caller, or when a saved call of theirs is first asked for."""

    users: VendorUsers
    templates: RetainedTemplates
    enroll: Enroll
    purge: Purge

    async def create(self, tenant: TenantId, vendor_data: str, details: UserDetails) -> VendorUser:
        """Add a user.

        Raises:
            ConflictError: there is one of this name.
        """
        return await self.users.create(tenant, vendor_data, details)

    async def find(self, tenant: TenantId, vendor_data: str) -> VendorUser:
        """A user by name; one whose name a saved call has is made.

        Raises:
            NotFoundError: the tenant has none of this name.
        """
        try:
            return await self.users.find(tenant, vendor_data)
        except NotFoundError:
            if not await self.users.has_sessions(tenant, vendor_data):
                raise
        await self.users.ensure(tenant, [vendor_data])
        return await self.users.find(tenant, vendor_data)

    async def ids(self, tenant: TenantId, names: Sequence[str]) -> dict[str, UserId]:
        """The ids of those users who are there, by name."""
        return await self.users.ids(tenant, names)

    async def ensure(self, tenant: TenantId, vendor_data: str) -> UserId:
        """The id of a user, who is made when there is none of this name."""
        return (await self.users.ensure(tenant, [vendor_data]))[vendor_data]

    async def add_face(
        self, tenant: TenantId, user_id: UserId, picture: Picture, comment: str | None
    ) -> FaceId:
        """Put the largest face of a picture on a user's profile, where searches find it.

        Of concurrent calls no more are carried out than the profile has room for.

        Raises:
            NotFoundError: the tenant has no such user.
            ConflictError: the profile is full; nothing was added.
            ProbeError: the picture cannot be used.
        """
        user = await self.users.read(tenant, user_id)
        if await self.users.count_imported(tenant, user.vendor_data) >= IMPORTED_FACES:
            raise ConflictError(_FULL)

        async def check(locked: LockedGallery, _: FaceId) -> None:
            if await self.users.count_imported_beside(locked, user.vendor_data) > IMPORTED_FACES:
                raise ConflictError(_FULL)

        said = {"comment": comment, "uploaded_by": "api"}
        note = FaceNote(
            external_id=user.vendor_data,
            metadata=msgspec.Raw(msgspec.json.encode(said)),
            source=FaceSource.IMPORTED,
        )
        enrolment = await self.enroll.writing(check)(
            tenant, DEFAULT_GALLERY, picture, if_missing=False, note=note
        )
        return enrolment.face_id

    async def templates_page(
        self,
        tenant: TenantId,
        *,
        vendor_data: str = "",
        user_id: UUID | None = None,
        limit: int,
        offset: int,
    ) -> tuple[list[RetainedTemplate], int]:
        """Some templates that outlived their saved calls, the newest first, and how many."""
        found = await self.templates.page(
            tenant, vendor_data=vendor_data, user_id=user_id, limit=limit, offset=offset
        )
        count = await self.templates.count(tenant, vendor_data=vendor_data, user_id=user_id)
        return await self._with_users(tenant, found), count

    async def all_templates(
        self, tenant: TenantId, *, vendor_data: str = "", user_id: UUID | None = None
    ) -> list[RetainedTemplate]:
        """All of them, the newest first."""
        return await self.templates.page(
            tenant, vendor_data=vendor_data, user_id=user_id, limit=None
        )

    async def template(self, tenant: TenantId, face_id: FaceId) -> RetainedTemplate:
        """One of them; NotFoundError when the tenant has none of this id."""
        found = await self.templates.read(tenant, face_id)
        return (await self._with_users(tenant, [found]))[0]

    async def _with_users(
        self, tenant: TenantId, found: Sequence[RetainedTemplate]
    ) -> list[RetainedTemplate]:
        """The same, with the ids of users who were not asked for before."""
        names = [each.vendor_data for each in found if each.vendor_data and each.user_id is None]
        made = await self.users.ensure(tenant, names) if names else {}
        return [
            msgspec.structs.replace(each, user_id=each.user_id or made.get(each.vendor_data or ""))
            for each in found
        ]

    async def purge_template(self, tenant: TenantId, face_id: FaceId) -> None:
        """Purge one of them.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        await self.templates.read(tenant, face_id)
        await self.purge(tenant, face_id)
