"""Saved requests: read one, list them, make one for a session, and review one."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get, post, put
from litestar.di import NamedDependency
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath, FromQuery, Parameter

from oneton.domain import errors
from oneton.domain.model import Permission
from oneton.domain.requests import RequestFilter, RequestState, SavedRequest
from oneton.edge.veriflow.bodies import (
    ContactDetails,
    ExpectedDetails,
    ReviewAsked,
    SessionAsked,
)
from oneton.edge.veriflow.calls import (
    ANYTHING,
    DIALECT,
    SECURITY,
    TEXT,
    Caller,
    documented,
    one_of,
    read_body,
    read_metadata,
)
from oneton.edge.veriflow.keeping import Outcome, keep, updated
from oneton.edge.veriflow.refusals import AbsentError, only_refusal, refusals
from oneton.edge.veriflow.shapes import is_request_id
from oneton.edge.veriflow.shown import SESSION, show
from oneton.edge.veriflow.wire import (
    AnyReply,
    RequestPayload,
    RequestReply,
    RequestsPayload,
    RequestsReply,
    SessionKept,
    SessionReply,
)

DEFAULT_LIMIT = 20
MOST_LISTED = 100
MOST_OFFSET = 1_000_000_000
_OBJECT = Schema(type=OpenAPIType.OBJECT)


@get(
    "/requests/{request_id:str}",
    operation_id="veriflowGetRequest",
    summary="Show a request",
    security=SECURITY,
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def get_request(request_id: FromPath[str], caller: NamedDependency[Caller]) -> AnyReply:
    """Show one request, with new links to its pictures."""
    return await _reply(caller, await _read(caller, request_id))


@get(
    "/requests",
    operation_id="veriflowListRequests",
    summary="List requests",
    security=SECURITY,
    responses=refusals(400),
    permissions=(Permission.READ,),
)
async def list_requests(
    caller: NamedDependency[Caller],
    offset: FromQuery[Annotated[int, Parameter(ge=0, le=MOST_OFFSET)]] = 0,
    limit: FromQuery[Annotated[int, Parameter(ge=1, le=MOST_LISTED)]] = DEFAULT_LIMIT,
    status: FromQuery[RequestState | None] = None,
) -> RequestsReply:
    """List the organization's requests, the newest first; `status` is one of a request's."""
    which = RequestFilter(dialect=DIALECT, state=status)
    requests = caller.verbs.saved_requests
    total = await requests.count(caller.tenant_id, which)
    page = await requests.page(caller.tenant_id, which, limit=limit, offset=offset)
    reviews = await requests.reviews_of(caller.tenant_id, [each.request_id for each in page])
    # Pictures are never repeated here: a hundred requests would have a gigabyte of them.
    shown = [
        await show(caller, each, reviews.get(each.request_id, ()), echo=False) for each in page
    ]
    return RequestsReply(RequestsPayload(total, offset, limit, tuple(shown)))


@post(
    "/requests",
    operation_id="veriflowCreateRequest",
    summary="Make a session request",
    security=SECURITY,
    responses=refusals(400, 413),
    operation_class=documented(
        [],
        workflowId=TEXT,
        callback=TEXT,
        metadata=ANYTHING,
        expectedDetails=_OBJECT,
        contactDetails=_OBJECT,
    ),
    permissions=(Permission.INSERT,),
)
async def create_request(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> SessionReply:
    """Make a request that stays in process until a reviewer decides it; no page captures faces."""
    asked = await read_body(request, SessionAsked)
    kept = SessionKept(
        workflow_id=asked.workflow_id,
        callback=asked.callback,
        expected_details=asked.expected_details or ExpectedDetails(),
        contact_details=asked.contact_details or ContactDetails(),
    )
    metadata = read_metadata(asked.metadata)
    outcome = Outcome(SESSION, RequestState.IN_PROCESS, metadata, kept)
    saved = await keep(caller, outcome)
    return RequestReply(RequestPayload(await show(caller, saved, (), echo=False)))


@put(
    "/requests/{request_id:str}",
    operation_id="veriflowUpdateRequest",
    summary="Review a request",
    security=SECURITY,
    responses=refusals(400, 404, 413),
    operation_class=documented(["status"], status=one_of("approved", "declined"), comment=TEXT),
    permissions=(Permission.ADMIN,),
)
async def review_request(
    request: Request[Any, Any, Any],
    request_id: FromPath[str],
    caller: NamedDependency[Caller],
) -> AnyReply:
    """Approve or decline a request; webhooks are told when that changes its status."""
    asked = await read_body(request, ReviewAsked)
    saved = await _read(caller, request_id)
    if caller.principal.sandbox:
        raise errors.ForbiddenError("to change requests, which a sandbox key has not,")
    state = RequestState(asked.status)
    reviewed = await caller.verbs.saved_requests.review(
        caller.tenant_id,
        saved.request_id,
        state,
        actor=str(caller.principal.key_id),
        comment=asked.comment,
        events=(updated(saved.public_id, state),),
    )
    return await _reply(caller, reviewed)


@get(
    "/sessions/{request_id:str}",
    operation_id="veriflowHostedSession",
    summary="The hosted page of a session, which there is not",
    responses=only_refusal(501),
    status_code=501,
)
async def show_session(request_id: FromPath[str]) -> None:
    """Answer 501: there is no page that captures a face; a reviewer decides the request."""
    raise AbsentError(f"there is no hosted page; PUT /v2/requests/{request_id} decides")


async def _read(caller: Caller, public_id: str) -> SavedRequest:
    """A request of this dialect; NotFoundError when the organization has none of this id."""
    if not is_request_id(public_id):
        raise errors.NotFoundError("request", public_id)
    saved = await caller.verbs.saved_requests.read_public(caller.tenant_id, public_id)
    if saved.dialect != DIALECT:
        raise errors.NotFoundError("request", public_id)
    return saved


async def _reply(caller: Caller, saved: SavedRequest) -> RequestReply[Any, Any]:
    reviews = await caller.verbs.saved_requests.reviews(caller.tenant_id, saved.request_id)
    return RequestReply(RequestPayload(await show(caller, saved, reviews, echo=True)))
