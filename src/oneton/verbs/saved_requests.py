"""Saved requests: keep what was asked and what came of it; read, review and delete it."""

from __future__ import annotations

from collections.abc import Sequence

from oneton.domain.model import TenantId
from oneton.domain.requests import NewEvent, NewPicture, NewRequest, RequestId, SavedRequest
from oneton.domain.stages import stage
from oneton.images import ImageStore
from oneton.records.database import Database
from oneton.records.requests import EventsOf, Requests, new_picture
from oneton.verbs.keep_picture import delete_objects


class SavedRequests(Requests):
    """The rows of requests, and with them their pictures.

    All or nothing: a request that cannot be written leaves no picture, or one to sweep.
    """

    def __init__(self, database: Database, images: ImageStore) -> None:
        super().__init__(database)
        self._images = images

    async def save(
        self,
        tenant: TenantId,
        new: NewRequest,
        pictures: Sequence[NewPicture] = (),
        events: Sequence[NewEvent] | EventsOf = (),
    ) -> SavedRequest:
        """Keep a call, its pictures, and put what webhooks are told in the outbox.

        Args:
            events: or what makes them of the request once it has its number.

        Raises:
            ConflictError: there is one of this id.
            StoreDownError: try again.
        """
        kept = [new_picture(tenant, each.content_type, each.name) for each in pictures]
        with stage("store"):
            for row, picture in zip(kept, pictures, strict=True):
                await self._images.put(row.key, picture.data, picture.content_type)
        with stage("commit"):
            return await self.insert(tenant, new, kept, events)

    async def delete(self, tenant: TenantId, request_id: RequestId) -> SavedRequest:
        """Delete a request with its pictures; a face that it enrolled stays.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        gone = await self.remove(tenant, request_id)
        await delete_objects(self._images, gone.pictures)
        return gone
