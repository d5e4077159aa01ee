"""Webhooks: where a tenant's events go, and what became of each."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from oneton.domain.model import TenantId

WebhookDialect = Literal["didit", "veriflow", "native"]
"""Whose form events have."""


class WebhookEndpoint(msgspec.Struct, frozen=True):
    """An address that is told of events.

    Attributes:
        secret: what deliveries are signed with; shown once.
        events: types that it is told of; none is all.
    """

    endpoint_id: UUID
    tenant_id: TenantId
    dialect: WebhookDialect
    url: str
    secret: str
    label: str = ""
    events: tuple[str, ...] = ()
    enabled: bool = True
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Delivery(msgspec.Struct, frozen=True):
    """One event on its way to one endpoint.

    Attributes:
        event_id: the same at every attempt, for the receiver to know it again.
        body: JSON object, without what is put in at each attempt.
        enabled: whether the endpoint is.
        attempts: made so far, the one under way included.
        next_at: of the next attempt; None once it is over.
    """

    delivery_id: UUID
    tenant_id: TenantId
    endpoint_id: UUID
    dialect: WebhookDialect
    url: str
    secret: str
    event_id: UUID
    event_type: str
    body: msgspec.Raw
    test: bool
    attempts: int
    next_at: datetime | None
    delivered_at: datetime | None
    dropped_at: datetime | None
    last_status: int | None
    last_error: str | None
    created_at: datetime
    enabled: bool = True
