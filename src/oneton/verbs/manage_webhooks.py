"""Manage webhooks: where a tenant's events go, and what became of them."""

from __future__ import annotations

import secrets
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID, uuid4

import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.model import TenantId
from oneton.domain.requests import NewEvent
from oneton.domain.webhooks import Delivery, WebhookDialect, WebhookEndpoint
from oneton.records.outbox import Outbox, WebhookEndpoints
from oneton.sending.address import Addresses

SECRET_BYTES = 32

Shown = TypeVar("Shown", WebhookEndpoint, Delivery)


@dataclass(frozen=True)
class ManageWebhooks:
    """A secret is given away once, by `add`; all that is read afterwards comes without it."""

    endpoints: WebhookEndpoints
    outbox: Outbox
    addresses: Addresses

    async def add(
        self,
        tenant: TenantId,
        dialect: WebhookDialect,
        url: str,
        label: str = "",
        events: Sequence[str] = (),
    ) -> tuple[WebhookEndpoint, str]:
        """Add an endpoint; returns it and the secret that its deliveries are signed with.

        Args:
            events: types that it is told of; none is all.

        Raises:
            AddressError: nothing is sent to this URL.
            ConflictError: the tenant's dialect has it already, or has its one endpoint.
        """
        await self.addresses.check(url)
        secret = "whsec_" + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        new = WebhookEndpoint(
            endpoint_id=uuid7(),
            tenant_id=tenant,
            dialect=dialect,
            url=url,
            secret=secret,
            label=label,
            events=tuple(events),
        )
        return _without_secret(await self.endpoints.add(new)), secret

    async def read(self, tenant: TenantId, endpoint_id: UUID) -> WebhookEndpoint:
        """One of them.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        return _without_secret(await self.endpoints.read(tenant, endpoint_id))

    async def change(
        self,
        tenant: TenantId,
        endpoint_id: UUID,
        *,
        url: str | None = None,
        label: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> WebhookEndpoint:
        """Change an endpoint; None leaves as it is, and the secret stays.

        Raises:
            NotFoundError: the tenant has none of this id.
            AddressError: nothing is sent to the new URL.
            ConflictError: another one has it.
        """
        now = await self.endpoints.read(tenant, endpoint_id)
        if url is not None and url != now.url:
            await self.addresses.check(url)
        changed = msgspec.structs.replace(
            now,
            url=now.url if url is None else url,
            label=now.label if label is None else label,
            events=now.events if events is None else tuple(events),
            enabled=now.enabled if enabled is None else enabled,
        )
        return _without_secret(await self.endpoints.change(changed))

    async def remove(self, tenant: TenantId, endpoint_id: UUID) -> None:
        """Remove an endpoint, and what it was still to be told.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        await self.endpoints.remove(tenant, endpoint_id)

    async def test(self, tenant: TenantId, endpoint_id: UUID) -> UUID:
        """Put an event that says nothing in the outbox, for one endpoint.

        Returns:
            id of the delivery.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        endpoint = await self.endpoints.read(tenant, endpoint_id)
        return await self.outbox.test(tenant, endpoint_id, sample_event(endpoint))

    async def deliveries(self, tenant: TenantId, limit: int = 100) -> list[Delivery]:
        """A tenant's newest deliveries."""
        return [_without_secret(each) for each in await self.outbox.list(tenant, limit)]

    async def delivery(self, tenant: TenantId, delivery_id: UUID) -> Delivery:
        """One delivery.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        return _without_secret(await self.outbox.read(tenant, delivery_id))

    async def redeliver(self, tenant: TenantId, delivery_id: UUID) -> None:
        """Have a delivery made again, from its first attempt on, with the same event id.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        await self.outbox.again(tenant, delivery_id)

    async def list(
        self, tenant: TenantId, dialect: WebhookDialect | None = None
    ) -> list[WebhookEndpoint]:
        """A tenant's endpoints, the oldest first."""
        return [_without_secret(each) for each in await self.endpoints.list(tenant, dialect)]


def sample_event(endpoint: WebhookEndpoint) -> NewEvent:
    """An event in the endpoint's dialect that tells of no saved call."""
    match endpoint.dialect:
        case "didit":
            body: dict[str, object] = {
                "webhook_type": "status.updated",
                "created_at": int(time.time()),
                "application_id": str(endpoint.tenant_id),
                "session_id": str(uuid4()),
                "status": "In Progress",
                "workflow_id": None,
                "workflow_version": None,
                "vendor_data": None,
                "metadata": None,
            }
            return NewEvent("didit", "status.updated", _raw(body))
        case "veriflow":
            body = {"id": "req_test0000000000000000", "status": "in_process"}
            return NewEvent("veriflow", "request.updated", _raw(body))
        case _:
            return NewEvent("native", "webhook.test", _raw({}))


def _raw(body: dict[str, object]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(body))


def _without_secret(shown: Shown) -> Shown:
    return msgspec.structs.replace(shown, secret="")
