"""Where webhooks go."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from oneton.domain import errors
from oneton.domain.model import Permission
from oneton.domain.webhooks import WebhookEndpoint
from oneton.edge.didit.answers import microseconds
from oneton.edge.didit.bodies import PAGE, check_body, read_window, refusals, require_live
from oneton.edge.didit.calls import DIALECT, Caller
from oneton.edge.didit.refusals import FieldError

Label = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Url = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
Events = Annotated[list[str], msgspec.Meta(max_length=50)]
_EVENT = re.compile(r"[a-z_]{1,50}(\.[a-z_]{1,50}){1,3}")
_FIELD = "subscribed_events"


class DestinationRequest(msgspec.Struct):
    """A destination that is to be.

    Attributes:
        url: HTTPS, public.
        subscribed_events: exact names, such as `status.updated`.
    """

    label: Label
    url: Url
    subscribed_events: Events
    webhook_version: Literal["v3"] = "v3"


class DestinationChange(msgspec.Struct):
    """What to change; the secret stays."""

    label: Label | None = None
    url: Url | None = None
    subscribed_events: Events | None = None
    webhook_version: Literal["v3"] | None = None
    enabled: bool | None = None


class DestinationReply(msgspec.Struct):
    """A destination.

    Attributes:
        secret_shared_key: what deliveries are signed with; told once, by the call that creates
            the destination, and null ever after.
    """

    uuid: UUID
    label: str
    url: str
    enabled: bool
    webhook_version: str
    secret_shared_key: str | None
    subscribed_events: tuple[str, ...]
    created_at: str | None
    updated_at: str | None


class DestinationPage(msgspec.Struct):
    """Some of the destinations, the oldest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[DestinationReply]


@get(
    "/v3/webhook/destinations",
    operation_id="diditShowDestinations",
    summary="Show webhook destinations",
    responses=refusals(400),
    permissions=(Permission.READ,),
)
async def show_destinations(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    limit: FromQuery[int] = PAGE,
    offset: FromQuery[int] = 0,
) -> DestinationPage:
    """Show where webhooks go."""
    window = read_window(request, caller, limit, offset)
    found = await caller.verbs.manage_webhooks.list(caller.principal.tenant_id, DIALECT)
    shown = found[window.offset : window.offset + window.limit]
    return DestinationPage(
        count=len(found),
        next=window.next(len(found)),
        previous=window.previous(),
        results=[_destination(each) for each in shown],
    )


@post(
    "/v3/webhook/destinations",
    operation_id="diditCreateDestination",
    summary="Create a webhook destination",
    responses=refusals(400),
    status_code=201,
    permissions=(Permission.ADMIN,),
)
async def create_destination(
    data: JSONBody[DestinationRequest], caller: NamedDependency[Caller]
) -> DestinationReply:
    """Create a destination; the reply has its secret, which is never told again."""
    require_live(caller)
    check_body(data)
    events = _events(data.subscribed_events)
    try:
        made, secret = await caller.verbs.manage_webhooks.add(
            caller.principal.tenant_id, DIALECT, data.url, data.label, events
        )
    except errors.ConflictError as error:
        raise FieldError("url", "A destination with this url exists already.") from error
    return _destination(made, secret)


@get(
    "/v3/webhook/destinations/{destination_uuid:uuid}",
    operation_id="diditShowDestination",
    summary="Show a webhook destination",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_destination(
    destination_uuid: FromPath[UUID], caller: NamedDependency[Caller]
) -> DestinationReply:
    """Show one destination."""
    return _destination(await _read(caller, destination_uuid))


@patch(
    "/v3/webhook/destinations/{destination_uuid:uuid}",
    operation_id="diditChangeDestination",
    summary="Change a webhook destination",
    responses=refusals(400, 404),
    permissions=(Permission.ADMIN,),
)
async def change_destination(
    destination_uuid: FromPath[UUID],
    data: JSONBody[DestinationChange],
    caller: NamedDependency[Caller],
) -> DestinationReply:
    """Change a destination; what is not sent stays as it is."""
    require_live(caller)
    check_body(data)
    await _read(caller, destination_uuid)
    events = None if data.subscribed_events is None else _events(data.subscribed_events)
    try:
        changed = await caller.verbs.manage_webhooks.change(
            caller.principal.tenant_id,
            destination_uuid,
            url=data.url,
            label=data.label,
            events=events,
            enabled=data.enabled,
        )
    except errors.ConflictError as error:
        raise FieldError("url", "A destination with this url exists already.") from error
    return _destination(changed)


@delete(
    "/v3/webhook/destinations/{destination_uuid:uuid}",
    operation_id="diditDeleteDestination",
    summary="Delete a webhook destination",
    responses=refusals(404),
    status_code=204,
    permissions=(Permission.ADMIN,),
)
async def delete_destination(
    destination_uuid: FromPath[UUID], caller: NamedDependency[Caller]
) -> None:
    """Delete a destination, and what it was still to be told."""
    require_live(caller)
    await _read(caller, destination_uuid)
    await caller.verbs.manage_webhooks.remove(caller.principal.tenant_id, destination_uuid)


async def _read(caller: Caller, destination: UUID) -> WebhookEndpoint:
    """A destination of this dialect; NotFoundError when there is none."""
    found = await caller.verbs.manage_webhooks.read(caller.principal.tenant_id, destination)
    if found.dialect != DIALECT:
        raise errors.NotFoundError("webhook destination", destination)
    return found


def _events(names: list[str]) -> tuple[str, ...]:
    if not names:
        raise FieldError(_FIELD, "This list may not be empty.")
    for name in names:
        if not _EVENT.fullmatch(name):
            raise FieldError(_FIELD, f'"{name[:100]}" is no exact name of an event.')
    return tuple(dict.fromkeys(names))


def _destination(endpoint: WebhookEndpoint, secret: str | None = None) -> DestinationReply:
    made, changed = endpoint.created_at, endpoint.updated_at
    return DestinationReply(
        uuid=endpoint.endpoint_id,
        label=endpoint.label,
        url=endpoint.url,
        enabled=endpoint.enabled,
        webhook_version="v3",
        secret_shared_key=secret,
        subscribed_events=endpoint.events,
        created_at=None if made is None else microseconds(made),
        updated_at=None if changed is None else microseconds(changed),
    )
