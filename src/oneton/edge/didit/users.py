"""Users, whom callers know by `vendor_data`, and the faces on their profiles."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from oneton.domain import errors
from oneton.domain.lists import UserDetails, UserId, VendorUser
from oneton.domain.model import FaceId, Permission
from oneton.domain.requests import RequestState
from oneton.edge.didit.answers import microseconds
from oneton.edge.didit.bodies import (
    blamed_on,
    check_body,
    read_metadata,
    read_picture,
    refusals,
    require_live,
)
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.entries import Comment
from oneton.edge.didit.forms import VENDOR_DATA_LIMIT
from oneton.edge.didit.refusals import FieldError

UPLOADED = ("image/jpeg", "image/png")

Name = Annotated[str, msgspec.Meta(max_length=512)]


class UserRequest(msgspec.Struct):
    """A user that is to be."""

    vendor_data: Annotated[str, msgspec.Meta(min_length=1, max_length=VENDOR_DATA_LIMIT)]
    full_name: Name | None = None
    display_name: Name | None = None
    date_of_birth: date | None = None
    status: Literal["ACTIVE", "FLAGGED", "BLOCKED"] = "ACTIVE"
    metadata: Any = None


class UserReply(msgspec.Struct):
    """A user.

    Attributes:
        didit_internal_id: for uploading faces to the profile.
        effective_name: the display name, else the full name.
        session_count: saved calls that named this user.
    """

    didit_internal_id: UserId
    vendor_data: str
    display_name: str | None
    full_name: str | None
    date_of_birth: str | None
    effective_name: str | None
    status: str
    session_count: int
    approved_count: int
    declined_count: int
    in_review_count: int
    first_session_at: str | None
    last_session_at: str | None
    metadata: dict[str, Any]
    comments: list[str]
    created_at: str
    updated_at: str


class ProfileFaceUpload(msgspec.Struct):
    """A picture in bare base64: jpg or png of at most 2 MB."""

    image: str
    comment: Comment | None = None


class ProfileFaceReply(msgspec.Struct):
    """A face on a user's profile."""

    uuid: FaceId
    image_url: str | None
    comment: str | None
    uploaded_by: str
    created_at: str


@post(
    "/v3/users/create",
    operation_id="diditCreateUser",
    summary="Create a user",
    responses=refusals(400),
    status_code=201,
    permissions=(Permission.INSERT,),
)
async def create_user(data: JSONBody[UserRequest], caller: NamedDependency[Caller]) -> UserReply:
    """Create a user before the first call that names them in `vendor_data`."""
    require_live(caller)
    check_body(data)
    details = UserDetails(
        full_name=data.full_name,
        display_name=data.display_name,
        date_of_birth=None if data.date_of_birth is None else data.date_of_birth.isoformat(),
        status=data.status,
        metadata=read_metadata(data.metadata) or msgspec.Raw(b"{}"),
    )
    tenant, keep_users = caller.principal.tenant_id, caller.verbs.keep_users
    try:
        created = await keep_users.create(tenant, data.vendor_data, details)
    except errors.ConflictError as error:
        raise FieldError("vendor_data", "A user with this vendor_data exists already.") from error
    return _user_reply(created)


@get(
    "/v3/users/{vendor_data:path}",
    operation_id="diditShowUser",
    summary="Show a user",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_user(vendor_data: FromPath[str], caller: NamedDependency[Caller]) -> UserReply:
    """Show a user that was created, or that a saved call has named."""
    name = vendor_data.removeprefix("/").removesuffix("/")
    if "\0" in name:
        raise errors.NotFoundError("user", "of this name")
    return _user_reply(await caller.verbs.keep_users.find(caller.principal.tenant_id, name))


@post(
    "/v3/organization/{organization_id:str}/application/{application_id:str}"
    "/vendor-users/by-id/{didit_internal_id:str}/faces/upload",
    operation_id="diditUploadUserFace",
    summary="Put a face on a user's profile",
    responses=refusals(400, 404),
    status_code=201,
    permissions=(Permission.INSERT,),
    computes=True,
)
async def upload_user_face(
    organization_id: FromPath[str],
    application_id: FromPath[str],
    didit_internal_id: FromPath[str],
    data: JSONBody[ProfileFaceUpload],
    caller: NamedDependency[Caller],
) -> ProfileFaceReply:
    """Put a face on a user's profile, at most 5; searches find it with source `imported`.

    Both the organization and the application are your tenant's id.
    """
    require_live(caller)
    check_body(data)
    tenant = caller.principal.tenant_id
    for given in (organization_id, application_id):
        if given.lower() != str(tenant):
            raise errors.NotFoundError("application", given)
    try:
        user_id = UserId(UUID(didit_internal_id))
    except ValueError as error:
        raise errors.NotFoundError("user", didit_internal_id) from error
    picture = read_picture(data.image, UPLOADED, bare=True)
    try:
        with blamed_on("image"):
            face_id = await caller.verbs.keep_users.add_face(tenant, user_id, picture, data.comment)
    except errors.ConflictError as error:
        raise FieldError("image", str(error)) from error
    face = await caller.verbs.browse_faces.show(tenant, face_id)
    return ProfileFaceReply(
        uuid=face_id,
        image_url=caller.link(face.image_key),
        comment=data.comment,
        uploaded_by="api",
        created_at=microseconds(face.created_at),
    )


def _user_reply(user: VendorUser) -> UserReply:
    details, at = user.details, microseconds(user.created_at)
    first, last = user.first_session_at, user.last_session_at
    return UserReply(
        didit_internal_id=user.user_id,
        vendor_data=user.vendor_data,
        display_name=details.display_name,
        full_name=details.full_name,
        date_of_birth=details.date_of_birth,
        effective_name=details.display_name or details.full_name,
        status=details.status,
        session_count=sum(user.sessions.values()),
        approved_count=user.sessions.get(RequestState.APPROVED, 0),
        declined_count=user.sessions.get(RequestState.DECLINED, 0),
        in_review_count=user.sessions.get(RequestState.IN_REVIEW, 0),
        first_session_at=None if first is None else microseconds(first),
        last_session_at=None if last is None else microseconds(last),
        metadata=msgspec.json.decode(details.metadata, type=dict[str, Any]),
        comments=[],
        created_at=at,
        updated_at=at,
    )
