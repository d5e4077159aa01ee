"""Who in several galleries is this?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from msgspec import Meta

from oneton.domain.errors import ProbeError
from oneton.domain.model import DEFAULT_GALLERY, FaceId, GalleryId, GalleryKind, Permission, Score
from oneton.domain.requests import NewPicture, RequestState
from oneton.domain.screening import ScreenedFace, ScreenedGallery, Screening
from oneton.edge.native.bodies import (
    ExternalId,
    Image,
    Metadata,
    Points,
    Share,
    kept_metadata,
    picture,
    read_body,
)
from oneton.edge.native.callers import Caller, origin
from oneton.edge.native.galleries import Name, gallery_named
from oneton.edge.native.problems import InvalidInputError, PictureError, post_refusals
from oneton.edge.native.saving import Call, as_raw, new_request_id, save_call
from oneton.edge.native.schemas import takes
from oneton.edge.native.wire import NULL, FoundFace, Warnings, found_faces, warnings_of
from oneton.verbs.screen import Terms

GalleryNames = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=20)]


class Identification(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search.

    Attributes:
        limit: candidates at most, over all galleries.
        threshold: the least score of a match; left out, it is each gallery's own.
        target_fpir: instead: the share of searches for strangers that may return a match of a
            gallery; the threshold then follows each gallery's size.
        matches_only: leave out candidates that are no match.
        explain: say what was searched and how scores came about.
        save: keep the call, its picture and its answer as a request.
        external_id: of the request; your own reference.
        metadata: of the request; any JSON object.
    """

    image: Image
    galleries: GalleryNames = (DEFAULT_GALLERY,)
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    threshold: Points | None = None
    target_fpir: Share | None = None
    matches_only: bool = False
    explain: bool = False
    save: bool = False
    external_id: ExternalId | None = None
    metadata: Metadata | None = None


class Candidate(msgspec.Struct, frozen=True):
    """A face record that was found.

    Attributes:
        rank: 1 is best over all galleries.
        score: 0 to 100.
        match: the score reaches the threshold that counts in its gallery.
        image_url: good for an hour without a key; null once the image was erased.
        cosine: the least of this score; null unless explained, as is `fmr`.
        fmr: share of pairs of different people that score as high.
    """

    rank: int
    score: float
    match: bool
    face_id: FaceId
    gallery: GalleryId
    gallery_kind: GalleryKind
    external_id: str | None
    metadata: msgspec.Raw
    image_url: str | None
    created_at: datetime
    cosine: float | None
    fmr: float | None


class SearchedGallery(msgspec.Struct, frozen=True):
    """A gallery as it was searched.

    Attributes:
        head: counts the gallery's changes; the answer is as of this one.
        faces: that were ranked.
        threshold: the least score of a match.
        cosine: the threshold's.
        fmr: share of pairs of different people that reach the threshold.
    """

    gallery: GalleryId
    gallery_kind: GalleryKind
    model_pack: str
    head: int
    faces: int
    threshold: float
    cosine: float
    fmr: float


class Explanation(msgspec.Struct, frozen=True):
    """What was searched."""

    galleries: tuple[SearchedGallery, ...]


class Identified(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        match: whether any candidate is one.
        candidates: best first.
        detected: faces in the picture; the first is the one that was looked for.
        explanation: null unless asked for.
        request_id: of the saved call.
    """

    match: bool
    candidates: tuple[Candidate, ...]
    detected: tuple[FoundFace, ...]
    warnings: Warnings
    explanation: Explanation | None
    request_id: UUID | None


@post(
    "/identify",
    operation_id="nativeIdentify",
    summary="Search galleries for a face",
    responses=post_refusals(404, 422),
    operation_class=takes(Identification, images=("image",)),
    status_code=200,
    permissions=(Permission.SEARCH,),
    computes=True,
)
async def identify_face(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> Identified:
    """Rank the faces of one or more galleries by likeness to the largest face of a picture.

    A saved call is declined when a block-listed face matches, else in review when an enrolled one
    does, for it may be a duplicate, and approved otherwise.
    """
    asked = await read_body(request, Identification, images=("image",))
    if asked.threshold is not None and asked.target_fpir is not None:
        raise InvalidInputError("target_fpir", "give it or a threshold, not both")
    metadata = kept_metadata(asked.metadata)
    terms = Terms(
        limit=asked.limit,
        threshold=None if asked.threshold is None else Score(asked.threshold),
        target_fpir=asked.target_fpir,
        matches_only=asked.matches_only,
    )
    galleries = [gallery_named(each) for each in dict.fromkeys(asked.galleries)]
    try:
        found = await caller.verbs.screen(caller.tenant, galleries, picture(asked.image), terms)
    except ProbeError as error:
        raise PictureError({"image": error}) from error
    request_id = new_request_id(caller, save=asked.save)
    answer = _answer(found, request_id, explain=asked.explain)
    if request_id is not None:
        await _save(caller, asked, found, answer, metadata)
    return msgspec.structs.replace(
        answer, candidates=tuple(_linked(caller, origin(request), answer, found))
    )


def _answer(found: Screening, request_id: UUID | None, *, explain: bool) -> Identified:
    """The answer without links, which a saved call would outlive."""
    faces = found.analysis.faces
    galleries = tuple(_searched(each) for each in found.galleries)
    return Identified(
        match=found.match,
        candidates=tuple(_candidate(each, explain=explain) for each in found.candidates),
        detected=found_faces(faces),
        warnings=warnings_of(faces),
        explanation=Explanation(galleries) if explain else None,
        request_id=request_id,
    )


def _candidate(each: ScreenedFace, *, explain: bool) -> Candidate:
    return Candidate(
        rank=each.rank,
        score=each.score,
        match=each.is_match,
        face_id=each.face.face_id,
        gallery=each.face.gallery_id,
        gallery_kind=each.face.kind,
        external_id=each.face.note.external_id,
        metadata=each.face.note.metadata or NULL,
        image_url=None,
        created_at=each.face.created_at,
        cosine=each.cosine if explain else None,
        fmr=each.fmr if explain else None,
    )


def _linked(
    caller: Caller, came_to: str, answer: Identified, found: Screening
) -> Iterable[Candidate]:
    may_read = Permission.READ in caller.principal.permissions
    for candidate, each in zip(answer.candidates, found.candidates, strict=True):
        url = caller.verbs.make_links(each.face.image_key, came_to) if may_read else None
        yield msgspec.structs.replace(candidate, image_url=url)


def _searched(each: ScreenedGallery) -> SearchedGallery:
    return SearchedGallery(
        gallery=each.gallery_id,
        gallery_kind=each.kind,
        model_pack=each.model_pack,
        head=each.head,
        faces=each.faces,
        threshold=each.threshold,
        cosine=each.cosine,
        fmr=each.fmr,
    )


def _state(found: Screening) -> RequestState:
    kinds = {each.face.kind for each in found.candidates if each.is_match}
    if GalleryKind.BLOCKLIST in kinds:
        return RequestState.DECLINED
    return RequestState.IN_REVIEW if GalleryKind.ENROLLMENT in kinds else RequestState.APPROVED


async def _save(
    caller: Caller,
    asked: Identification,
    found: Screening,
    answer: Identified,
    metadata: msgspec.Raw | None,
) -> None:
    assert answer.request_id is not None
    parameters = {
        name: getattr(asked, name)
        for name in ("galleries", "limit", "threshold", "target_fpir", "matches_only", "explain")
    }
    call = Call(
        request_id=answer.request_id,
        kind="identify",
        state=_state(found),
        score=found.candidates[0].score if found.candidates else None,
        external_id=asked.external_id,
        metadata=metadata,
        asked=as_raw(parameters),
        result=as_raw(answer),
    )
    kept = NewPicture("image", asked.image, found.analysis.content_type)
    await save_call(caller, call, [kept])
