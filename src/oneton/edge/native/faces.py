"""Face records: enroll, list, show, change, erase, purge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import UNSET, UnsetType

from oneton.domain.errors import NotFoundError, ProbeError
from oneton.domain.model import FaceId, FaceNote, GalleryId, Permission
from oneton.edge.native.bodies import (
    ExternalId,
    Image,
    Metadata,
    WantedId,
    kept_metadata,
    picture,
    read_body,
)
from oneton.edge.native.callers import Caller, origin
from oneton.edge.native.cursors import PAGE, Cursor, Limit, decode_id, encode_cursor
from oneton.edge.native.galleries import gallery_named
from oneton.edge.native.problems import PictureError, post_refusals, refusals
from oneton.edge.native.repeats import ENROLL_KEY
from oneton.edge.native.schemas import takes
from oneton.edge.native.wire import (
    Face,
    FoundFace,
    Warnings,
    found_faces,
    shown_face,
    warnings_of,
)

LINK_LIFE_S = 300
_LIST = "faces"


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A face that is to be enrolled.

    Attributes:
        if_missing: answer with the record that matches, when there is one, and add nothing.
    """

    image: Image
    if_missing: bool = False
    external_id: ExternalId | None = None
    metadata: Metadata | None = None


class Enrolled(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        added: false when a record that was there before matched.
        score: of the matching record; null when added.
        detected: faces in the picture; the first is the one that counts.
    """

    face_id: FaceId
    gallery: GalleryId
    added: bool
    score: float | None
    detected: tuple[FoundFace, ...]
    warnings: Warnings


class Faces(msgspec.Struct, frozen=True):
    """A page of face records, the oldest first; `next_cursor` is null on the last one."""

    items: tuple[Face, ...]
    next_cursor: str | None


class FaceChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed of a face record; what is left out stays, null removes."""

    external_id: ExternalId | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET


class ImageLink(msgspec.Struct, frozen=True):
    """Where a picture can be had without a key, until `expires_at`."""

    url: str
    expires_at: datetime


@post(
    "/galleries/{gallery:str}/faces",
    operation_id="nativeEnroll",
    summary="Enroll a face",
    responses={
        200: ResponseSpec(Enrolled, generate_examples=False, description="One matched"),
        **post_refusals(404, 422),
    },
    operation_class=takes(Enrolment, images=("image",)),
    permissions=(Permission.INSERT,),
    computes=True,
)
async def enroll_face(
    gallery: FromPath[str], request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> Response[Enrolled]:
    """Add the largest face of a picture, always or only when nobody in the gallery matches.

    201 when it was added, 200 when a record that was there before matched.
    """
    asked = await read_body(request, Enrolment, images=("image",))
    name = gallery_named(gallery)
    metadata = kept_metadata(asked.metadata)
    try:
        done = await caller.verbs.enroll(
            caller.tenant,
            name,
            picture(asked.image),
            if_missing=asked.if_missing,
            idempotency_key=request.state.get(ENROLL_KEY),
            note=FaceNote(asked.external_id, metadata),
        )
    except ProbeError as error:
        raise PictureError({"image": error}) from error
    # Without a score it is what an earlier try of this very call added.
    added = done.added or done.score is None
    return Response(
        Enrolled(
            face_id=done.face_id,
            gallery=name,
            added=added,
            score=done.score,
            detected=found_faces(done.faces),
            warnings=warnings_of(done.faces),
        ),
        status_code=201 if added else 200,
        headers={"Location": f"/v1/faces/{done.face_id}"},
    )


@get(
    "/galleries/{gallery:str}/faces",
    operation_id="nativeListFaces",
    summary="List faces",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def list_faces(
    gallery: FromPath[str],
    caller: NamedDependency[Caller],
    cursor: Cursor = None,
    limit: Limit = PAGE,
    external_id: WantedId = None,
    has_image: FromQuery[bool | None] = None,
) -> Faces:
    """List a gallery's face records, the oldest first."""
    page = await caller.verbs.browse_faces.page(
        caller.tenant,
        gallery_named(gallery),
        after=_after(cursor),
        limit=limit,
        external_id=external_id,
        has_image=has_image,
    )
    following = None if page.after is None else encode_cursor(_LIST, page.after)
    return Faces(tuple(shown_face(each) for each in page.faces), following)


@get(
    "/faces/{face_id:uuid}",
    operation_id="nativeShowFace",
    summary="Show a face",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_face(face_id: FromPath[UUID], caller: NamedDependency[Caller]) -> Face:
    """Show a face record of any gallery."""
    return shown_face(await caller.verbs.browse_faces.show(caller.tenant, FaceId(face_id)))


@patch(
    "/faces/{face_id:uuid}",
    operation_id="nativeChangeFace",
    summary="Change a face's reference",
    responses=refusals(404, 413, 415),
    operation_class=takes(FaceChanges, once=False),
    permissions=(Permission.INSERT,),
)
async def change_face(
    face_id: FromPath[UUID], request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> Face:
    """Change what you know a face by."""
    asked = await read_body(request, FaceChanges)
    browse = caller.verbs.browse_faces
    note = (await browse.show(caller.tenant, FaceId(face_id))).note
    if asked.external_id is not UNSET:
        note = msgspec.structs.replace(note, external_id=asked.external_id)
    if asked.metadata is not UNSET:
        note = msgspec.structs.replace(note, metadata=kept_metadata(asked.metadata))
    await browse.change_note(caller.tenant, FaceId(face_id), note)
    return shown_face(await browse.show(caller.tenant, FaceId(face_id)))


@get(
    "/faces/{face_id:uuid}/image-link",
    operation_id="nativeLinkImage",
    summary="Get a link to a face's image",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def link_image(
    face_id: FromPath[UUID],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    life_s: Annotated[
        int, QueryParameter(ge=10, le=3600, description="How long it is good.")
    ] = LINK_LIFE_S,
) -> ImageLink:
    """Get a short-lived link to a face's image; 404 once the image was erased."""
    details = await caller.verbs.browse_faces.show(caller.tenant, FaceId(face_id))
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=life_s)
    url = caller.verbs.make_links(details.image_key, origin(request), life_s)
    if url is None:
        raise NotFoundError("image of face record", face_id)
    return ImageLink(url, expires_at)


@delete(
    "/faces/{face_id:uuid}/image",
    operation_id="nativeEraseImage",
    summary="Erase a face's image",
    responses=refusals(404),
    permissions=(Permission.ERASE,),
)
async def erase_image(face_id: FromPath[UUID], caller: NamedDependency[Caller]) -> None:
    """Erase a face's image; the face keeps matching. Again is no error."""
    await caller.verbs.erase(caller.tenant, FaceId(face_id))


@delete(
    "/faces/{face_id:uuid}",
    operation_id="nativePurgeFace",
    summary="Purge a face",
    responses=refusals(404),
    permissions=(Permission.PURGE,),
)
async def purge_face(face_id: FromPath[UUID], caller: NamedDependency[Caller]) -> None:
    """Remove a face record with its image and templates; its id is gone from every answer."""
    await caller.verbs.purge(caller.tenant, FaceId(face_id))


def _after(cursor: str | None) -> FaceId | None:
    found = decode_id(_LIST, cursor)
    return None if found is None else FaceId(found)
