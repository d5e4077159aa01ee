"""Templates that outlived their sessions: no picture, and they keep matching."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from oneton.domain import errors
from oneton.domain.lists import RetainedTemplate
from oneton.domain.model import FaceId, Permission, TenantId
from oneton.edge.didit.answers import microseconds
from oneton.edge.didit.bodies import PAGE, check_body, read_window, refusals, require_live
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.refusals import FieldError

AT_ONCE = 1000


class TemplateReply(msgspec.Struct):
    """A template.

    Attributes:
        expires_at: when it is purged; null is never.
    """

    uuid: FaceId
    vendor_user_uuid: UUID | None
    vendor_data: str | None
    retained_at: str
    expires_at: str | None
    source_type: str = "session_delete"
    status: str = "active"


class TemplatePage(msgspec.Struct):
    """Some of the templates, the newest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[TemplateReply]


class TemplateCount(msgspec.Struct):
    """How many there are."""

    count: int


class PurgeRequest(msgspec.Struct):
    """Which templates to purge: these, or all that fit."""

    template_uuids: list[UUID] | None = None
    delete_all: bool = False
    vendor_data: str = ""
    vendor_user_uuid: UUID | None = None


class PurgeOutcome(msgspec.Struct):
    """What became of one: `purged`, `already_purged`."""

    uuid: UUID
    outcome: str


class PurgeReply(msgspec.Struct):
    """What became of each."""

    results: list[PurgeOutcome]


@get(
    "/v3/biometric-templates",
    operation_id="diditShowTemplates",
    summary="Show retained templates",
    responses=refusals(400),
    permissions=(Permission.READ,),
)
async def show_templates(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    vendor_data: FromQuery[str] = "",
    vendor_user_uuid: FromQuery[UUID | None] = None,
    limit: FromQuery[int] = PAGE,
    offset: FromQuery[int] = 0,
) -> TemplatePage:
    """Show the templates that were kept when their sessions were deleted.

    `vendor_data` is looked for in any letter case.
    """
    user = "" if vendor_user_uuid is None else str(vendor_user_uuid)
    window = read_window(
        request, caller, limit, offset, vendor_data=vendor_data, vendor_user_uuid=user
    )
    found, count = await caller.verbs.keep_users.templates_page(
        caller.principal.tenant_id,
        vendor_data=vendor_data,
        user_id=vendor_user_uuid,
        limit=window.limit,
        offset=window.offset,
    )
    replies = [_template(each) for each in found]
    return TemplatePage(count, window.next(count), window.previous(), replies)


@get(
    "/v3/biometric-templates/count",
    operation_id="diditCountTemplates",
    summary="Count retained templates",
    responses=refusals(400),
    permissions=(Permission.READ,),
)
async def count_templates(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    vendor_data: FromQuery[str] = "",
    vendor_user_uuid: FromQuery[UUID | None] = None,
) -> TemplateCount:
    """Count them, with the same filters."""
    read_window(request, caller, 1, 0, vendor_data=vendor_data)
    _, count = await caller.verbs.keep_users.templates_page(
        caller.principal.tenant_id,
        vendor_data=vendor_data,
        user_id=vendor_user_uuid,
        limit=1,
        offset=0,
    )
    return TemplateCount(count)


@post(
    "/v3/biometric-templates/delete",
    operation_id="diditPurgeTemplates",
    summary="Purge retained templates",
    responses=refusals(400),
    status_code=200,
    permissions=(Permission.PURGE,),
)
async def purge_templates(
    data: JSONBody[PurgeRequest], caller: NamedDependency[Caller]
) -> PurgeReply:
    """Purge some templates, at most 1000 by id, or all that fit the filters."""
    require_live(caller)
    check_body(data)
    tenant, keep_users = caller.principal.tenant_id, caller.verbs.keep_users
    if data.delete_all:
        found = await keep_users.all_templates(
            tenant, vendor_data=data.vendor_data, user_id=data.vendor_user_uuid
        )
        wanted: list[UUID] = [each.face_id for each in found]
    elif data.template_uuids is None:
        raise FieldError("template_uuids", "This field is required.")
    elif len(data.template_uuids) > AT_ONCE:
        raise FieldError("template_uuids", f"Ensure there are no more than {AT_ONCE}.")
    else:
        wanted = data.template_uuids
    return PurgeReply(
        [PurgeOutcome(each, await _purge(caller, tenant, each)) for each in dict.fromkeys(wanted)]
    )


@get(
    "/v3/biometric-templates/{template_uuid:uuid}",
    operation_id="diditShowTemplate",
    summary="Show a retained template",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_template(
    template_uuid: FromPath[UUID], caller: NamedDependency[Caller]
) -> TemplateReply:
    """Show one template."""
    tenant = caller.principal.tenant_id
    return _template(await caller.verbs.keep_users.template(tenant, FaceId(template_uuid)))


@delete(
    "/v3/biometric-templates/{template_uuid:uuid}",
    operation_id="diditPurgeTemplate",
    summary="Purge a retained template",
    responses=refusals(404),
    status_code=204,
    permissions=(Permission.PURGE,),
)
async def purge_template(template_uuid: FromPath[UUID], caller: NamedDependency[Caller]) -> None:
    """Purge one template; nobody finds it from now on."""
    require_live(caller)
    await caller.verbs.keep_users.purge_template(caller.principal.tenant_id, FaceId(template_uuid))


async def _purge(caller: Caller, tenant: TenantId, template: UUID) -> str:
    try:
        await caller.verbs.keep_users.purge_template(tenant, FaceId(template))
    except errors.NotFoundError:
        return "already_purged"
    return "purged"


def _template(template: RetainedTemplate) -> TemplateReply:
    ends = template.expires_at
    return TemplateReply(
        uuid=template.face_id,
        vendor_user_uuid=template.user_id,
        vendor_data=template.vendor_data,
        retained_at=microseconds(template.retained_at),
        expires_at=None if ends is None else microseconds(ends),
    )
