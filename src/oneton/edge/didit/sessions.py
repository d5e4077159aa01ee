"""Saved calls: look one up, delete one or many."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import ClientException
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath

from oneton.domain.errors import NotFoundError
from oneton.domain.model import FaceId, Permission
from oneton.domain.requests import RequestFilter, RequestId, SavedRequest
from oneton.edge.didit.bodies import check_body, refusals
from oneton.edge.didit.calls import DIALECT, Caller
from oneton.edge.didit.decision import Decision, make_decision, matched_faces, read_kept
from oneton.edge.didit.forms import documented_body
from oneton.edge.didit.refusals import FieldError
from oneton.verbs.forget_request import FaceOutcome

PAGE = 100
NUMBERS_AT_MOST = 1000

Number = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Days = Annotated[int, msgspec.Meta(ge=1, le=3650)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]


_DELETION = {
    "retain_face_embeddings": Schema(type=OpenAPIType.BOOLEAN, default=False),
    "face_retention_days": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=3650),
    "deletion_instruction": Schema(type=OpenAPIType.STRING, max_length=1000),
    "instruction_id": Schema(type=OpenAPIType.STRING, max_length=1000),
}
_WHICH = {
    "session_number": Schema(
        type=OpenAPIType.ARRAY,
        items=Schema(type=OpenAPIType.INTEGER, minimum=1),
        max_items=NUMBERS_AT_MOST,
    ),
    "delete_all": Schema(type=OpenAPIType.BOOLEAN, default=False),
}


class Deletion(msgspec.Struct, frozen=True):
    """How sessions are to be deleted.

    Attributes:
        retain_face_embeddings: keep the face's template with its user, without a picture.
        face_retention_days: for so long; none is without end.
    """

    retain_face_embeddings: bool = False
    face_retention_days: Days | None = None
    deletion_instruction: Text | None = None
    instruction_id: Text | None = None


class Deletions(Deletion, frozen=True):
    """Which sessions, and how."""

    session_number: Annotated[list[Number], msgspec.Meta(max_length=NUMBERS_AT_MOST)] | None = None
    delete_all: bool = False


class DeletedSession(msgspec.Struct, frozen=True):
    """A session that is gone.

    Attributes:
        face_retention_outcome: `retained_with_user`, `deleted`, `none` when it had enrolled no
            face, `ineligible_no_vendor_user` when the template was to stay and had no user.
    """

    session_id: UUID
    session_number: int
    face_retention_outcome: str
    biometric_template_uuid: FaceId | None


class DeletedSessions(msgspec.Struct, frozen=True):
    """Sessions that are gone; numbers that no session has are left out."""

    deleted: list[DeletedSession]


@get(
    "/v3/session/{session_id:str}/decision",
    operation_id="diditSessionDecision",
    summary="Look up a saved call",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_decision(session_id: FromPath[str], caller: NamedDependency[Caller]) -> Decision:
    """Tell a saved call, with links to its pictures that are good for an hour."""
    tenant, verbs = caller.principal.tenant_id, caller.verbs
    request = await _session(caller, session_id)
    kept = read_kept(request)
    known = await verbs.browse_faces.known(tenant, matched_faces(kept))
    image_keys = {face_id: face.image_key for face_id, face in known.items()}
    reviews = await verbs.saved_requests.reviews(tenant, request.request_id)
    return make_decision(request, kept, image_keys, caller.link, reviews)


@delete(
    "/v3/session/{session_id:str}/delete",
    operation_id="diditDeleteSession",
    summary="Delete a saved call",
    responses=refusals(400, 404),
    operation_class=documented_body("application/json", _DELETION),
    status_code=200,
    permissions=(Permission.ERASE,),
)
async def delete_session(
    request: Request[Any, Any, Any], session_id: FromPath[str], caller: NamedDependency[Caller]
) -> DeletedSession:
    """Delete a saved call, its pictures and the face that it enrolled, or keep its template."""
    asked = _read(await request.body(), Deletion)
    return await _delete(caller, await _session(caller, session_id), asked)


@post(
    "/v3/sessions/delete",
    operation_id="diditDeleteSessions",
    summary="Delete saved calls",
    responses=refusals(400),
    operation_class=documented_body("application/json", {**_DELETION, **_WHICH}),
    status_code=200,
    permissions=(Permission.ERASE,),
)
async def delete_sessions(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> DeletedSessions:
    """Delete saved calls by their numbers, or all of them."""
    asked = _read(await request.body(), Deletions)
    if asked.session_number is None and not asked.delete_all:
        raise FieldError("session_number", "This field is required.")
    if caller.principal.sandbox:
        return DeletedSessions([])
    if asked.delete_all:
        return DeletedSessions(await _delete_all(caller, asked))
    found = await caller.verbs.saved_requests.by_numbers(
        caller.principal.tenant_id, asked.session_number, dialect=DIALECT
    )
    return DeletedSessions(await _delete_each(caller, found, asked))


async def _session(caller: Caller, session_id: str) -> SavedRequest:
    """A saved call of this dialect; a sandbox key has none."""
    try:
        request_id = RequestId(UUID(session_id))
    except ValueError as error:
        raise NotFoundError("session", session_id) from error
    if caller.principal.sandbox:
        raise NotFoundError("session", session_id)
    request = await caller.verbs.saved_requests.read(caller.principal.tenant_id, request_id)
    if request.dialect != DIALECT:
        raise NotFoundError("session", session_id)
    return request


async def _delete_all(caller: Caller, asked: Deletion) -> list[DeletedSession]:
    deleted: list[DeletedSession] = []
    before = None
    while found := await caller.verbs.saved_requests.page(
        caller.principal.tenant_id, RequestFilter(dialect=DIALECT), limit=PAGE, before=before
    ):
        deleted += await _delete_each(caller, found, asked)
        before = found[-1].number
    return deleted


async def _delete_each(
    caller: Caller, found: list[SavedRequest], asked: Deletion
) -> list[DeletedSession]:
    deleted = []
    for each in found:
        try:
            deleted.append(await _delete(caller, each, asked))
        except NotFoundError:
            # Another call deleted it meanwhile.
            continue
    return deleted


async def _delete(caller: Caller, request: SavedRequest, asked: Deletion) -> DeletedSession:
    tenant, vendor_data, days = (
        caller.principal.tenant_id,
        request.external_id,
        asked.face_retention_days,
    )
    retain = asked.retain_face_embeddings and vendor_data is not None
    if retain and request.face_id is not None and vendor_data is not None:
        await caller.verbs.keep_users.ensure(tenant, vendor_data)
    done = await caller.verbs.forget_request(
        tenant,
        request,
        retain=retain,
        keep_template=None if days is None else timedelta(days=days),
        actor=f"key {caller.principal.key_id}",
        said={
            "deletion_instruction": asked.deletion_instruction,
            "instruction_id": asked.instruction_id,
        },
    )
    is_ineligible = asked.retain_face_embeddings and not retain
    outcome = _OUTCOMES[done.outcome]
    if is_ineligible and done.outcome is FaceOutcome.PURGED:
        outcome = "ineligible_no_vendor_user"
    return DeletedSession(request.request_id, request.number, outcome, done.template)


Body = TypeVar("Body", Deletion, Deletions)


def _read(data: bytes, kind: type[Body]) -> Body:
    """A body that may be left out."""
    if not data.strip():
        return kind()
    try:
        body = msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$.")
        field = place.partition("[")[0].rstrip("`")
        raise FieldError(field or "non_field_errors", said) from error
    except msgspec.DecodeError as error:
        raise ClientException(f"JSON parse error: {error}") from error
    check_body(body)
    return body


_OUTCOMES = {
    FaceOutcome.NONE: "none",
    FaceOutcome.PURGED: "deleted",
    FaceOutcome.RETAINED: "retained_with_user",
}
