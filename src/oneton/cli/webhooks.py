"""`oneton webhook`: where a tenant's events go, and what became of them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast, get_args
from uuid import UUID

import msgspec
import rich_click as click
from rich.table import Table

from oneton.cli.common import (
    EXIT_NEGATIVE,
    as_json,
    chosen_tenant,
    example,
    of_tenant,
    run,
    stdout,
    write_json,
)
from oneton.domain.model import TenantId
from oneton.domain.webhooks import Delivery, WebhookDialect, WebhookEndpoint
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.verbs.deliver_webhooks import DeliverWebhooks
    from oneton.verbs.manage_webhooks import ManageWebhooks


@click.group()
def webhook() -> None:
    """List, add, test and remove a tenant's webhooks, and deliver again."""


@webhook.command("list", epilog=example("oneton webhook list --deliveries --json"))
@of_tenant
@click.option("--deliveries", is_flag=True, help="What was sent or is to be, the newest first.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@as_json
def list_webhooks(tenant_name: str | None, deliveries: bool, limit: int, as_json: bool) -> None:
    """List a tenant's endpoints, or deliveries to them; secrets are never shown again."""

    async def work(settings: Settings) -> tuple[list[WebhookEndpoint], list[Delivery]]:
        async with _opened(settings, tenant_name) as (tenant, manage, _):
            if deliveries:
                return [], await manage.deliveries(tenant, limit)
            return await manage.list(tenant), []

    endpoints, sent = run(work)
    if as_json:
        write_json([_shown(each) for each in (sent if deliveries else endpoints)])
    elif deliveries:
        stdout.print(_delivery_table(sent))
    else:
        stdout.print(_endpoint_table(endpoints))


@webhook.command("add", epilog=example("oneton webhook add https://example.com/h --dialect native"))
@click.argument("url")
@of_tenant
@click.option(
    "--dialect",
    type=click.Choice(get_args(WebhookDialect)),
    required=True,
    help="Whose events, in whose form.",
)
@click.option("--label", default="", help="What the endpoint is for.")
@click.option(
    "--event", "events", multiple=True, help="A type of event; may be repeated; none is all."
)
@as_json
def add_webhook(
    url: str,
    tenant_name: str | None,
    dialect: str,
    label: str,
    events: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add an endpoint. Its secret is shown now and never again."""

    async def work(settings: Settings) -> tuple[WebhookEndpoint, str]:
        async with _opened(settings, tenant_name) as (tenant, manage, _):
            return await manage.add(tenant, cast("WebhookDialect", dialect), url, label, events)

    made, secret = run(work)
    if as_json:
        write_json(_shown(made) | {"secret": secret})
        return
    stdout.print(f"endpoint  {made.endpoint_id}")
    stdout.print(f"secret    {secret}", soft_wrap=True)
    stdout.print("The secret is not shown again.")


@webhook.command("remove", epilog=example("oneton webhook remove 019a3c1e-..."))
@click.argument("endpoint_id", type=click.UUID)
@of_tenant
@as_json
def remove_webhook(endpoint_id: UUID, tenant_name: str | None, as_json: bool) -> None:
    """Remove an endpoint, and what it was still to be told."""

    async def work(settings: Settings) -> None:
        async with _opened(settings, tenant_name) as (tenant, manage, _):
            await manage.remove(tenant, endpoint_id)

    run(work)
    if as_json:
        write_json({"endpoint_id": endpoint_id, "removed": True})
    else:
        stdout.print(f"endpoint {endpoint_id} removed")


@webhook.command("test", epilog=example("oneton webhook test 019a3c1e-..."))
@click.argument("endpoint_id", type=click.UUID)
@of_tenant
@as_json
def test_webhook(endpoint_id: UUID, tenant_name: str | None, as_json: bool) -> None:
    """Send an event that tells of nothing, and wait for the answer; exit 1 when it fails."""

    async def prepare(tenant: TenantId, manage: ManageWebhooks) -> UUID:
        return await manage.test(tenant, endpoint_id)

    _settle(tenant_name, prepare, as_json=as_json)


@webhook.command("redeliver", epilog=example("oneton webhook redeliver 019a3c1e-..."))
@click.argument("delivery_id", type=click.UUID)
@of_tenant
@as_json
def redeliver_webhook(delivery_id: UUID, tenant_name: str | None, as_json: bool) -> None:
    """Deliver again, with the same event id, and wait for the answer; exit 1 when it fails.

    A delivery that fails is tried again as if it were new.
    """

    async def prepare(tenant: TenantId, manage: ManageWebhooks) -> UUID:
        await manage.redeliver(tenant, delivery_id)
        return delivery_id

    _settle(tenant_name, prepare, as_json=as_json)


def _settle(
    tenant_name: str | None,
    prepare: Callable[[TenantId, ManageWebhooks], Awaitable[UUID]],
    *,
    as_json: bool,
) -> None:
    async def work(settings: Settings) -> Delivery:
        async with _opened(settings, tenant_name) as (tenant, manage, deliver):
            return await deliver.settle(tenant, await prepare(tenant, manage))

    made = run(work)
    if as_json:
        write_json(_shown(made))
    else:
        stdout.print(f"delivery {made.delivery_id}: {_outcome(made)}")
    if made.delivered_at is None:
        sys.exit(EXIT_NEGATIVE)


@asynccontextmanager
async def _opened(
    settings: Settings, tenant_name: str | None
) -> AsyncIterator[tuple[TenantId, ManageWebhooks, DeliverWebhooks]]:
    from oneton.parts import make_manage_webhooks, open_deliver_webhooks, open_parts

    async with (
        open_parts(settings) as parts,
        open_deliver_webhooks(settings, parts) as deliver,
    ):
        owner = await chosen_tenant(parts.tenants, tenant_name)
        yield owner.tenant_id, make_manage_webhooks(settings, parts), deliver


def _shown(row: WebhookEndpoint | Delivery) -> dict[str, object]:
    shown: dict[str, object] = msgspec.structs.asdict(row)
    del shown["secret"]
    return shown


def _outcome(made: Delivery) -> str:
    if made.delivered_at is not None:
        return f"delivered, {made.last_status}"
    if made.last_error is None:
        return "waits"
    again = "given up" if made.next_at is None else f"next {made.next_at:%Y-%m-%d %H:%M:%S}"
    return f"{made.last_error}; {again}"


def _endpoint_table(endpoints: list[WebhookEndpoint]) -> Table:
    table = Table("endpoint", "dialect", "url", "label", "events", "on")
    for each in endpoints:
        table.add_row(
            str(each.endpoint_id),
            each.dialect,
            each.url,
            each.label,
            " ".join(each.events) or "all",
            "yes" if each.enabled else "no",
        )
    return table


def _delivery_table(deliveries: list[Delivery]) -> Table:
    table = Table("delivery", "event", "url", "made", "attempts", "outcome")
    for each in deliveries:
        table.add_row(
            str(each.delivery_id),
            each.event_type + (" (test)" if each.test else ""),
            each.url,
            f"{each.created_at:%Y-%m-%d %H:%M}",
            str(each.attempts),
            _outcome(each),
        )
    return table
