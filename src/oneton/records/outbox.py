"""Webhook endpoints, and the outbox of what they are told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.audit import Act, Action
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import TenantId
from oneton.domain.requests import NewEvent, RequestId
from oneton.domain.webhooks import Delivery, WebhookEndpoint
from oneton.records.audit import note_act
from oneton.records.database import Connection, Database, one_row, write_json


async def put_events(
    connection: Connection,
    tenant: TenantId,
    events: Sequence[NewEvent],
    request_id: RequestId | None = None,
) -> list[UUID]:
    """Put events in the outbox, for each endpoint that wants them, within a transaction.

    Args:
        request_id: what they tell of; when it is deleted they are, too, told or not.

    Returns:
        ids of the deliveries.
    """
    made: list[UUID] = []
    for event in events:
        rows = await connection.fetch(
            """insert into outbox (delivery_id, tenant_id, endpoint_id, event_id, event_type, body,
                 request_id)
               select gen_random_uuid(), tenant_id, endpoint_id, $1, $2, $3, $6
               from webhook_endpoint where tenant_id = $4 and dialect = $5 and enabled
                 and (events = '{}' or $2 = any (events))
               returning delivery_id""",
            uuid7(),
            event.event_type,
            write_json(event.body),
            tenant,
            event.dialect,
            request_id,
        )
        made += [row["delivery_id"] for row in rows]
    return made


class WebhookEndpoints:
    """Where a tenant's events go."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, endpoint: WebhookEndpoint) -> WebhookEndpoint:
        """Add an endpoint.

        Raises:
            ConflictError: the tenant's dialect has one of this address, or its only one.
        """
        try:
            async with self._database.transaction(endpoint.tenant_id) as connection:
                row = await one_row(
                    connection,
                    """insert into webhook_endpoint
                         (endpoint_id, tenant_id, dialect, label, url, secret, events, enabled)
                       values ($1, $2, $3, $4, $5, $6, $7, $8) returning *""",
                    endpoint.endpoint_id,
                    endpoint.tenant_id,
                    endpoint.dialect,
                    endpoint.label,
                    endpoint.url,
                    endpoint.secret,
                    list(endpoint.events),
                    endpoint.enabled,
                )
                await _note(connection, Action.ADD_WEBHOOK, _endpoint(row))
        except asyncpg.UniqueViolationError as error:
            only = error.constraint_name == "webhook_endpoint_of_veriflow"
            which = "of VeriFlow's, which has one only," if only else "of this address"
            raise ConflictError(f"there is a webhook endpoint {which} already") from error
        return _endpoint(row)

    async def list(self, tenant: TenantId, dialect: str | None = None) -> list[WebhookEndpoint]:
        """A tenant's endpoints, the oldest first."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                """select * from webhook_endpoint where $1::text is null or dialect = $1
                   order by created_at, endpoint_id""",
                dialect,
            )
        return [_endpoint(row) for row in rows]

    async def read(self, tenant: TenantId, endpoint_id: UUID) -> WebhookEndpoint:
        """One of them.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                "select * from webhook_endpoint where endpoint_id = $1", endpoint_id
            )
        if row is None:
            raise NotFoundError("webhook endpoint", endpoint_id)
        return _endpoint(row)

    async def change(self, endpoint: WebhookEndpoint) -> WebhookEndpoint:
        """Replace what an endpoint has, but for its secret and dialect.

        Raises:
            NotFoundError: the tenant has none of this id.
            ConflictError: another one has its new address.
        """
        try:
            async with self._database.transaction(endpoint.tenant_id) as connection:
                row = await connection.fetchrow(
                    """update webhook_endpoint set label = $2, url = $3, events = $4, enabled = $5,
                         updated_at = now() where endpoint_id = $1 returning *""",
                    endpoint.endpoint_id,
                    endpoint.label,
                    endpoint.url,
                    list(endpoint.events),
                    endpoint.enabled,
                )
                if row is not None:
                    await _note(connection, Action.CHANGE_WEBHOOK, _endpoint(row))
        except asyncpg.UniqueViolationError as error:
            raise ConflictError("there is a webhook endpoint of this address already") from error
        if row is None:
            raise NotFoundError("webhook endpoint", endpoint.endpoint_id)
        return _endpoint(row)

    async def remove(self, tenant: TenantId, endpoint_id: UUID) -> None:
        """Remove an endpoint and what it was to be told.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            gone = await connection.fetchrow(
                "delete from webhook_endpoint where endpoint_id = $1 returning *", endpoint_id
            )
            if gone is None:
                raise NotFoundError("webhook endpoint", endpoint_id)
            await _note(connection, Action.REMOVE_WEBHOOK, _endpoint(gone))


async def _note(connection: Connection, action: Action, endpoint: WebhookEndpoint) -> None:
    """Without the address, which may hold a secret of its own."""
    details = {
        "endpoint": endpoint.endpoint_id,
        "dialect": endpoint.dialect,
        "enabled": endpoint.enabled,
    }
    await note_act(connection, endpoint.tenant_id, Act(action, details=details))


class Outbox:
    """Deliveries, of all tenants for the worker, of one for its operator."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, at_most: int) -> list[tuple[TenantId, UUID]]:
        """Deliveries whose time has come, of any tenant."""
        rows = await self._database.fetch("select * from oneton_outbox_due($1)", at_most)
        return [(TenantId(row["tenant_id"]), row["delivery_id"]) for row in rows]

    async def forget(self, days: int) -> int:
        """Delete the deliveries of all tenants that are over and older; returns how many."""
        rows = await self._database.fetch("select oneton_forget_deliveries($1) as gone", days)
        return int(rows[0]["gone"])

    async def test(self, tenant: TenantId, endpoint_id: UUID, event: NewEvent) -> UUID:
        """Put a test event in the outbox, for one endpoint; its delivery's id."""
        delivery_id = uuid7()
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                """insert into outbox
                     (delivery_id, tenant_id, endpoint_id, event_id, event_type, body, test)
                   values ($1, $2, $3, $4, $5, $6, true)""",
                delivery_id,
                tenant,
                endpoint_id,
                uuid7(),
                event.event_type,
                write_json(event.body),
            )
        return delivery_id

    async def list(self, tenant: TenantId, limit: int = 100) -> list[Delivery]:
        """A tenant's newest deliveries."""
        async with self._database.transaction(tenant) as connection:
            rows = await connection.fetch(
                f"select {_DELIVERY} order by o.created_at desc limit $1",
                limit,
            )
        return [_delivery(row) for row in rows]

    async def read(self, tenant: TenantId, delivery_id: UUID) -> Delivery:
        """One delivery.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            row = await connection.fetchrow(
                f"select {_DELIVERY} where o.delivery_id = $1",
                delivery_id,
            )
        if row is None:
            raise NotFoundError("delivery", delivery_id)
        return _delivery(row)

    async def again(self, tenant: TenantId, delivery_id: UUID) -> None:
        """Have a delivery made once more, from its first attempt on, with the same event id.

        What came of it before is forgotten.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        async with self._database.transaction(tenant) as connection:
            done = await connection.fetchval(
                """update outbox set attempts = 0, next_at = now(), delivered_at = null,
                     dropped_at = null, last_status = null, last_error = null
                   where delivery_id = $1 returning true""",
                delivery_id,
            )
        if not done:
            raise NotFoundError("delivery", delivery_id)

    async def claim(self, tenant: TenantId, delivery_id: UUID, lease: timedelta) -> Delivery | None:
        """Take a delivery that is due, so that nobody else makes it until the lease is over.

        None when another has it, or it is over.
        """
        async with self._database.transaction(tenant) as connection:
            taken = await connection.fetchval(
                """update outbox set next_at = now() + $2, attempts = attempts + 1
                   where delivery_id = $1 and next_at <= now() returning true""",
                delivery_id,
                lease,
            )
            row = None
            if taken:
                row = await connection.fetchrow(
                    f"select {_DELIVERY} where o.delivery_id = $1",
                    delivery_id,
                )
        return None if row is None else _delivery(row)

    async def note(
        self,
        delivery: Delivery,
        *,
        status: int | None,
        error: str | None,
        delivered: bool,
        again_in: timedelta | None,
    ) -> None:
        """Write down what an attempt came to, unless another was begun meanwhile.

        Args:
            again_in: the next attempt; None when there is none.
        """
        async with self._database.transaction(delivery.tenant_id) as connection:
            await connection.execute(
                """update outbox set next_at = now() + $2::interval, last_status = $3,
                     last_error = $4, delivered_at = case when $5 then now() end,
                     dropped_at = case when $5 or $2 is not null then null else now() end
                   where delivery_id = $1 and attempts = $6""",
                delivery.delivery_id,
                again_in,
                status,
                error,
                delivered,
                delivery.attempts,
            )


_DELIVERY = """o.*, e.dialect, e.url, e.secret, e.enabled from outbox o
  join webhook_endpoint e using (endpoint_id)"""


def _endpoint(row: asyncpg.Record) -> WebhookEndpoint:
    return WebhookEndpoint(
        endpoint_id=row["endpoint_id"],
        tenant_id=TenantId(row["tenant_id"]),
        dialect=row["dialect"],
        label=row["label"],
        url=row["url"],
        secret=row["secret"],
        events=tuple(row["events"]),
        enabled=row["enabled"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _delivery(row: asyncpg.Record) -> Delivery:
    return Delivery(
        delivery_id=row["delivery_id"],
        tenant_id=TenantId(row["tenant_id"]),
        endpoint_id=row["endpoint_id"],
        dialect=row["dialect"],
        url=row["url"],
        secret=row["secret"],
        event_id=row["event_id"],
        event_type=row["event_type"],
        body=msgspec.Raw(row["body"].encode()),
        test=row["test"],
        attempts=row["attempts"],
        next_at=row["next_at"],
        delivered_at=row["delivered_at"],
        dropped_at=row["dropped_at"],
        last_status=row["last_status"],
        last_error=row["last_error"],
        enabled=row["enabled"],
        created_at=row["created_at"],
    )
