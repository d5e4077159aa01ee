"""A tenant's galleries."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from oneton.domain import model
from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import (
    DEFAULT_GALLERY,
    DEFAULT_THRESHOLD,
    GalleryId,
    GalleryKind,
    NewGallery,
    Permission,
    QualityFloor,
    Score,
)
from oneton.edge.native.bodies import Points, Share, read_body
from oneton.edge.native.callers import Caller
from oneton.edge.native.cursors import PAGE, Cursor, Limit, decode_cursor, encode_cursor
from oneton.edge.native.jobs import Job, shown_job
from oneton.edge.native.problems import InvalidInputError, post_refusals, refusals
from oneton.edge.native.schemas import takes
from oneton.verbs.manage_galleries import ShownGallery

GALLERY_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, Meta(pattern=GALLERY_NAME, max_length=63)]
Description = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00]*$")]
_NAME = re.compile(GALLERY_NAME.removesuffix("$"))
_LIST = "galleries"


class Floor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least that is accepted when enrolling; 0 accepts all.

    Attributes:
        size_px: shorter side of the face box.
        sharpness: variance of the Laplacian of its light.
        exposure: share of it neither crushed nor blown out.
    """

    size_px: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    sharpness: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    exposure: Annotated[float, Meta(ge=0, le=1)] = 0.0


class GalleryToBe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gallery that is to be made.

    Attributes:
        threshold: the least score that counts as a match; 50 when neither it nor a target is given.
        target_fpir: instead: the share of searches for strangers that may return a match; the
            threshold then follows the gallery's size.
    """

    name: Name
    kind: GalleryKind = GalleryKind.ENROLLMENT
    description: Description = ""
    threshold: Points | None = None
    target_fpir: Share | None = None
    quality_floor: Floor = Floor()


class GalleryChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed of a gallery; what is left out stays.

    Attributes:
        threshold: ends a target.
        target_fpir: ends a threshold.
    """

    description: Description | UnsetType = UNSET
    threshold: Points | UnsetType = UNSET
    target_fpir: Share | UnsetType = UNSET


class Gallery(msgspec.Struct, frozen=True):
    """A gallery, without what has to be counted.

    Attributes:
        threshold: the least score that counts as a match; null where a target sets it.
        target_fpir: null where a threshold is set.
    """

    name: GalleryId
    kind: GalleryKind
    description: str
    threshold: float | None
    target_fpir: float | None
    quality_floor: QualityFloor
    created_at: datetime | None


class ModelPack(msgspec.Struct, frozen=True):
    """Detector and recogniser; `sha256` is over its files."""

    name: str
    sha256: str
    dimension: int


class CountedGallery(Gallery, frozen=True):
    """A gallery with its size.

    Attributes:
        faces: face records.
        faces_without_image: of them, those whose image was erased.
        head: counts the gallery's changes.
        threshold_now: the least score that counts as a match at this size.
    """

    faces: int
    faces_without_image: int
    head: int
    model_pack: ModelPack
    threshold_now: float


class Galleries(msgspec.Struct, frozen=True):
    """A page of galleries, by name; `next_cursor` is null on the last one."""

    items: tuple[Gallery, ...]
    next_cursor: str | None


@post(
    "/galleries",
    operation_id="nativeCreateGallery",
    summary="Make a gallery",
    responses=post_refusals(),
    operation_class=takes(GalleryToBe),
    permissions=(Permission.ADMIN,),
)
async def create_gallery(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> Response[CountedGallery]:
    """Make an empty gallery; 409 when there is one of this name."""
    asked = await read_body(request, GalleryToBe)
    name = _checked(asked.name)
    if asked.threshold is not None and asked.target_fpir is not None:
        raise InvalidInputError("target_fpir", "give it or a threshold, not both")
    threshold = DEFAULT_THRESHOLD if asked.threshold is None else Score(asked.threshold)
    floor = asked.quality_floor
    new = NewGallery(
        threshold=threshold,
        target_fpir=asked.target_fpir,
        kind=asked.kind,
        floor=QualityFloor(floor.size_px, floor.sharpness, floor.exposure),
        description=asked.description,
    )
    await caller.verbs.manage_galleries.create(caller.tenant, name, new)
    shown = await caller.verbs.manage_galleries.show(caller.tenant, name)
    return Response(_counted(shown), headers={"Location": f"/v1/galleries/{name}"})


@get(
    "/galleries",
    operation_id="nativeListGalleries",
    summary="List galleries",
    responses=refusals(),
    permissions=(Permission.READ,),
)
async def list_galleries(
    caller: NamedDependency[Caller], cursor: Cursor = None, limit: Limit = PAGE
) -> Galleries:
    """List galleries by name."""
    after = "" if cursor is None else decode_cursor(_LIST, cursor)
    every = sorted(
        await caller.verbs.manage_galleries.list(caller.tenant), key=lambda each: each.gallery_id
    )
    left = [each for each in every if each.gallery_id > after]
    page = left[:limit]
    following = encode_cursor(_LIST, page[-1].gallery_id) if len(left) > limit else None
    return Galleries(tuple(_gallery(each) for each in page), following)


@get(
    "/galleries/{gallery:str}",
    operation_id="nativeShowGallery",
    summary="Show a gallery",
    responses=refusals(404),
    permissions=(Permission.READ,),
)
async def show_gallery(gallery: FromPath[str], caller: NamedDependency[Caller]) -> CountedGallery:
    """Show a gallery with its size, its model pack, and what counts as a match now."""
    shown = await caller.verbs.manage_galleries.show(caller.tenant, gallery_named(gallery))
    return _counted(shown)


@patch(
    "/galleries/{gallery:str}",
    operation_id="nativeChangeGallery",
    summary="Change a gallery",
    responses=refusals(404, 413, 415),
    operation_class=takes(GalleryChanges, once=False),
    permissions=(Permission.ADMIN,),
)
async def change_gallery(
    gallery: FromPath[str], request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> CountedGallery:
    """Change a gallery's description, or what counts as a match in it."""
    asked = await read_body(request, GalleryChanges)
    if asked.threshold is not UNSET and asked.target_fpir is not UNSET:
        raise InvalidInputError("target_fpir", "give it or a threshold, not both")
    shown = await caller.verbs.manage_galleries.change(
        caller.tenant,
        gallery_named(gallery),
        description=None if asked.description is UNSET else asked.description,
        threshold=None if asked.threshold is UNSET else Score(asked.threshold),
        target_fpir=None if asked.target_fpir is UNSET else asked.target_fpir,
    )
    return _counted(shown)


@delete(
    "/galleries/{gallery:str}",
    operation_id="nativeDeleteGallery",
    summary="Delete a gallery",
    responses={
        202: ResponseSpec(Job, generate_examples=False, description="It is gone, its job is on"),
        **refusals(404, 409),
    },
    status_code=202,
    permissions=(Permission.ADMIN,),
)
async def delete_gallery(
    gallery: FromPath[str],
    caller: NamedDependency[Caller],
    confirm: Annotated[str | None, QueryParameter(description="The gallery's name again.")] = None,
) -> Response[Job]:
    """Delete a gallery with its faces and images; nobody sees it from now on, a job erases it.

    409 for the default gallery, which dialects without galleries use, and for one that is being
    re-embedded.
    """
    name = gallery_named(gallery)
    if confirm is None or confirm != name:
        raise InvalidInputError("confirm", "the gallery's name is expected")
    if name == DEFAULT_GALLERY:
        raise ConflictError("the default gallery is used by other dialects, and stays")
    job = await caller.verbs.manage_galleries.delete(caller.tenant, name)
    return Response(shown_job(job), headers={"Location": f"/v1/jobs/{job.job_id}"})


def gallery_named(name: str) -> GalleryId:
    """A gallery's name out of a path or a body; NotFoundError for what can be none."""
    if not _NAME.fullmatch(name):
        raise NotFoundError("gallery", name)
    return GalleryId(name)


def _checked(name: str) -> GalleryId:
    if not _NAME.fullmatch(name):
        raise InvalidInputError("name", f"it does not match {GALLERY_NAME}")
    return GalleryId(name)


def _gallery(each: model.Gallery) -> Gallery:
    return Gallery(
        name=each.gallery_id,
        kind=each.kind,
        description=each.description,
        threshold=each.threshold if each.target_fpir is None else None,
        target_fpir=each.target_fpir,
        quality_floor=each.quality_floor,
        created_at=each.created_at,
    )


def _counted(shown: ShownGallery) -> CountedGallery:
    return CountedGallery(
        **msgspec.structs.asdict(_gallery(shown.gallery)),
        faces=shown.counts.faces,
        faces_without_image=shown.counts.erased,
        head=shown.gallery.head,
        model_pack=ModelPack(shown.pack.name, shown.pack.sha256, shown.pack.dimension),
        threshold_now=shown.threshold,
    )
