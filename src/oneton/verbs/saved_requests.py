"""Saved requests: keep what was asked and what came of it; read, review and delete it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oneton.domain.model import TenantId
from oneton.domain.requests import (
    NewEvent,
    NewPicture,
    NewRequest,
    RequestFilter,
    RequestId,
    RequestState,
    Review,
    SavedRequest,
)
from oneton.domain.stages import stage
from oneton.images import ImageStore
from oneton.records.requests import EventsOf, Requests, new_picture
from oneton.verbs.keep_picture import delete_objects


@dataclass(frozen=True)
class SavedRequests:
    """All or nothing: a request that cannot be written leaves no picture, or one to sweep."""

    requests: Requests
    images: ImageStore

    async def save(
        self,
        tenant: TenantId,
        new: NewRequest,
        pictures: Sequence[NewPicture] = (),
        events: Sequence[NewEvent] | EventsOf = (),
    ) -> SavedRequest:
        """Keep a call, its pictures, and put what webhooks are told in the outbox.

        Args:
            events: or what makes them of the request as it is saved.

        Raises:
            ConflictError: there is one of this id.
            StoreDownError: try again.
        """
        kept = [new_picture(tenant, each.content_type, each.name) for each in pictures]
        with stage("store"):
            for row, picture in zip(kept, pictures, strict=True):
                await self.images.put(row.key, picture.data, picture.content_type)
        with stage("commit"):
            return await self.requests.save(tenant, new, kept, events)

    async def read(self, tenant: TenantId, request_id: RequestId) -> SavedRequest:
        """A request; NotFoundError when the tenant has none of this id."""
        return await self.requests.read(tenant, request_id)

    async def read_public(self, tenant: TenantId, public_id: str) -> SavedRequest:
        """A request by its other name; NotFoundError when there is none."""
        return await self.requests.read_public(tenant, public_id)

    async def by_numbers(
        self, tenant: TenantId, numbers: Sequence[int] | None, *, dialect: str
    ) -> list[SavedRequest]:
        """Requests of a dialect by number, without their pictures; None is all of them."""
        return await self.requests.by_numbers(tenant, numbers, dialect=dialect)

    async def page(
        self,
        tenant: TenantId,
        which: RequestFilter,
        *,
        limit: int,
        offset: int = 0,
        before: int | None = None,
    ) -> list[SavedRequest]:
        """Requests, the newest first; `before` a number, when given."""
        return await self.requests.page(tenant, which, limit=limit, offset=offset, before=before)

    async def count(self, tenant: TenantId, which: RequestFilter) -> int:
        """How many there are."""
        return await self.requests.count(tenant, which)

    async def review(
        self,
        tenant: TenantId,
        request_id: RequestId,
        state: RequestState,
        *,
        actor: str,
        comment: str = "",
        events: Sequence[NewEvent] | EventsOf = (),
    ) -> SavedRequest:
        """Change a request's state, and keep in mind who did.

        Args:
            events: are told only when the state is another one than before.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        return await self.requests.review(
            tenant, request_id, state, actor=actor, comment=comment, events=events
        )

    async def reviews(self, tenant: TenantId, request_id: RequestId) -> list[Review]:
        """What reviewers did to a request, oldest first."""
        return await self.requests.reviews(tenant, request_id)

    async def reviews_of(
        self, tenant: TenantId, request_ids: Sequence[RequestId]
    ) -> dict[RequestId, list[Review]]:
        """The same of several requests; those without are left out."""
        return await self.requests.reviews_of(tenant, request_ids) if request_ids else {}

    async def delete(self, tenant: TenantId, request_id: RequestId) -> SavedRequest:
        """Delete a request with its pictures; a face that it enrolled stays.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        gone = await self.requests.delete(tenant, request_id)
        await delete_objects(self.images, gone.pictures)
        return gone
