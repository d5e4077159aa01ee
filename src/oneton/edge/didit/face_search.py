"""POST /v3/face-search/: which of the tenant's faces does this one resemble?"""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType

from oneton.domain.model import Permission
from oneton.domain.requests import RequestState
from oneton.edge.didit.answers import (
    STATUSES,
    FaceSearch,
    FaceSearchReply,
    declined_by,
    searched_picture,
)
from oneton.edge.didit.bodies import refusals
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.decision import FACE_SEARCH, USER_IMAGE, Kept
from oneton.edge.didit.forms import Common, Form, documented_form
from oneton.edge.didit.saving import SANDBOX_SEARCHED, Call, Stamp, save, unsaved
from oneton.edge.didit.screening import screen
from oneton.verbs.judge_screening import is_blocklisted_or_approved

MOST_SIMILAR = "most_similar"
BLOCKLISTED_OR_APPROVED = "blocklisted_or_approved"
SEARCH_TYPES = (MOST_SIMILAR, BLOCKLISTED_OR_APPROVED)


@post(
    "/v3/face-search",
    operation_id="diditFaceSearch",
    summary="Search for a face",
    responses=refusals(400, 415),
    operation_class=documented_form(
        required=(USER_IMAGE,),
        search_type=Schema(
            type=OpenAPIType.STRING, enum=list(SEARCH_TYPES), default=SEARCH_TYPES[0]
        ),
    ),
    status_code=200,
    permissions=(Permission.SEARCH,),
    computes=True,
)
async def search_faces(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> FaceSearchReply:
    """Search enrolled faces, block and allow lists for the largest face; enrolls nobody."""
    form = await Form.read(request)
    common, search_type = form.common(), form.choice("search_type", SEARCH_TYPES)
    picture = await form.picture(USER_IMAGE, rotate=common.rotate)
    if caller.principal.sandbox:
        return _sandbox_reply(common)
    only_some = search_type == BLOCKLISTED_OR_APPROVED
    tenant = await caller.verbs.spend_credit.recent(caller.principal.tenant_id)
    async with caller.verbs.spend_credit(tenant):
        screened = await screen(
            caller,
            picture,
            tenant.options,
            wanted=is_blocklisted_or_approved if only_some else None,
            blocked_first=only_some,
        )
        state = declined_by(screened.warnings)
        call = Call(
            kind=FACE_SEARCH,
            state=state,
            common=common,
            asked={"search_type": search_type},
            pictures={USER_IMAGE: picture},
            kept=Kept(warnings=screened.warnings, matches=screened.matches),
            image_keys=screened.image_keys,
        )
        stamp = await save(caller, tenant.options, call)
    shown = FaceSearch(
        status=STATUSES[state],
        total_matches=screened.total,
        matches=screened.shown(caller),
        user_image=searched_picture(screened.screening.analysis),
        warnings=screened.warnings,
    )
    return _reply(stamp, shown, common)


def _sandbox_reply(common: Common) -> FaceSearchReply:
    shown = FaceSearch(STATUSES[RequestState.APPROVED], 0, (), SANDBOX_SEARCHED, ())
    return _reply(unsaved(), shown, common)


def _reply(stamp: Stamp, shown: FaceSearch, common: Common) -> FaceSearchReply:
    return FaceSearchReply(
        request_id=stamp.request_id,
        face_search=shown,
        vendor_data=common.vendor_data,
        metadata=common.metadata,
        created_at=stamp.created_at,
    )
