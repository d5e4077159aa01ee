"""The calls about what is kept: galleries and face records."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from oneton.client.answers import (
    CountedGallery,
    Face,
    Gallery,
    Image,
    ImageLink,
    Job,
    Page,
    QualityFloor,
)
from oneton.client.errors import ForbiddenError, NotFoundError
from oneton.client.flows import Flow
from oneton.client.searching import DEFAULT_GALLERY, Metadata, as_id
from oneton.client.session import Call, Session, path_of, post_call, query_of

GalleryKind = Literal["enrollment", "blocklist", "allowlist"]
PAGE = 100


def faces(
    session: Session,
    cursor: str | None,
    gallery: str = DEFAULT_GALLERY,
    *,
    external_id: str | None = None,
    has_image: bool | None = None,
    page_size: int = PAGE,
) -> Flow[Page[Face]]:
    """Iterate over a gallery's face records, the oldest first; pages are asked for as you go.

    Args:
        external_id: only those with this reference.
        has_image: only those with an image, or only those without.
    """
    path = path_of("galleries", gallery, "faces")
    return session.page(
        path,
        Face,
        cursor=cursor,
        limit=page_size,
        external_id=external_id,
        has_image=has_image,
    )


def face(session: Session, face_id: UUID | str) -> Flow[Face]:
    """Show a face record of any gallery."""
    return session.ask(Call("GET", path_of("faces", as_id(face_id))), Face)


def change_face(
    session: Session,
    face_id: UUID | str,
    *,
    external_id: str | UnsetType | None = UNSET,
    metadata: Metadata | UnsetType | None = UNSET,
) -> Flow[Face]:
    """Change what you know a face by; what is left out stays, None removes."""
    body = _changes(external_id=external_id, metadata=metadata)
    return session.ask(Call("PATCH", path_of("faces", as_id(face_id)), body=body), Face)


def image_link(session: Session, face_id: UUID | str, *, life_s: int = 300) -> Flow[ImageLink]:
    """Get a link to a face's image that is good without a key, for so long.

    Raises:
        NotFoundError: the image was erased.
    """
    path = path_of("faces", as_id(face_id), "image-link")
    return session.ask(Call("GET", path, query_of(life_s=life_s)), ImageLink)


def image(session: Session, face_id: UUID | str) -> Flow[Image]:
    """Get a face's image as it was enrolled.

    Raises:
        NotFoundError: the image was erased.
    """
    link = yield from image_link(session, face_id)
    return (yield from image_at(session, link.url))


def image_at(session: Session, url: str) -> Flow[Image]:
    """Get a picture by its link, such as a candidate's `image_url`."""
    reply = yield from session.fetch_link(url)
    return Image(reply.body, reply.headers.get("content-type", "application/octet-stream"))


def erase(session: Session, face_id: UUID | str) -> Flow[None]:
    """Erase a face's image; the face keeps matching. Again is no error."""
    return session.do(Call("DELETE", path_of("faces", as_id(face_id), "image")))


def purge(session: Session, face_id: UUID | str) -> Flow[None]:
    """Remove a face record with its image and templates; its id is gone from every answer.

    Raises:
        NotFoundError: there is none, and no earlier try of this call can have removed it.
    """
    try:
        yield from session.do(Call("DELETE", path_of("faces", as_id(face_id))))
    except NotFoundError as error:
        if not error.may_be_done:
            raise


def galleries(
    session: Session, cursor: str | None, *, page_size: int = PAGE
) -> Flow[Page[Gallery]]:
    """Iterate over your galleries by name."""
    return session.page(path_of("galleries"), Gallery, cursor=cursor, limit=page_size)


def gallery(session: Session, name: str = DEFAULT_GALLERY) -> Flow[CountedGallery]:
    """Show a gallery with its size, its model pack, and what counts as a match now."""
    return session.ask(Call("GET", path_of("galleries", name)), CountedGallery)


def create_gallery(  # noqa: PLR0913 - one for each field
    session: Session,
    name: str,
    *,
    kind: GalleryKind = "enrollment",
    description: str = "",
    threshold: float | None = None,
    target_fpir: float | None = None,
    quality_floor: QualityFloor | None = None,
    idempotency_key: str | None = None,
) -> Flow[CountedGallery]:
    """Make an empty gallery.

    Args:
        threshold: the least score that counts as a match; 50 when neither it nor a target is given.
        target_fpir: instead: the share of searches for strangers that may return a match.

    Raises:
        ConflictError: there is one of this name.
    """
    body = {
        "name": name,
        "kind": kind,
        "description": description,
        "threshold": threshold,
        "target_fpir": target_fpir,
        "quality_floor": quality_floor,
    }
    return session.ask(post_call(path_of("galleries"), body, idempotency_key), CountedGallery)


def change_gallery(
    session: Session,
    name: str,
    *,
    description: str | UnsetType = UNSET,
    threshold: float | UnsetType = UNSET,
    target_fpir: float | UnsetType = UNSET,
) -> Flow[CountedGallery]:
    """Change a gallery's description, or what counts as a match in it."""
    body = _changes(description=description, threshold=threshold, target_fpir=target_fpir)
    return session.ask(Call("PATCH", path_of("galleries", name), body=body), CountedGallery)


def delete_gallery(session: Session, name: str) -> Flow[Job]:
    """Delete a gallery with its faces and images; see `wait_for_job`.

    Nobody sees it from now on, and a job erases it.

    Raises:
        ConflictError: it is the default gallery, or is being re-embedded.
    """
    call = Call("DELETE", path_of("galleries", name), query_of(confirm=name))
    try:
        return (yield from session.ask(call, Job))
    except NotFoundError as error:
        if not error.may_be_done:
            raise
        job = yield from _job_of_deletion(session, name)
        if job is None:
            raise
        return job


def _job_of_deletion(session: Session, name: str) -> Flow[Job | None]:
    """The newest job that deletes a gallery of this name: an earlier try's, its answer was lost."""
    try:
        page = yield from session.page(path_of("jobs"), Job, limit=PAGE)
    except ForbiddenError:
        return None
    for each in page.items:
        if each.kind == "delete_gallery" and each.subject == name:
            return each
    return None


def _changes(**fields: object) -> bytes:
    return msgspec.json.encode(
        {name: value for name, value in fields.items() if value is not UNSET}
    )
