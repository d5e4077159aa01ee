"""`oneton gallery` on a server: what its API tells, in the words of this machine's commands."""

from __future__ import annotations

from typing import cast

import msgspec

from oneton.cli.remote import ask_server
from oneton.client import UNSET, Client, NotFoundError
from oneton.client.answers import CountedGallery, ModelPack, QualityFloor
from oneton.client.keeping import GalleryKind


class GalleryThere(msgspec.Struct, frozen=True):
    """A gallery; `threshold` is null where a target sets it."""

    gallery_id: str
    kind: str
    head: int
    threshold: float | None
    target_fpir: float | None
    quality_floor: QualityFloor
    description: str
    created_at: str | None


class ViewThere(msgspec.Struct, frozen=True):
    """What `oneton gallery show` says of it.

    Attributes:
        erased: faces whose image was erased.
        threshold: that a search is judged by now.
    """

    gallery: GalleryThere
    pack: ModelPack
    faces: int
    erased: int
    threshold: float


def create_there(
    name: str, kind: str, threshold: float | None, target_fpir: float | None
) -> GalleryThere:
    """Make a gallery."""
    made = ask_server(
        lambda client: client.create_gallery(
            name, kind=cast("GalleryKind", kind), threshold=threshold, target_fpir=target_fpir
        )
    )
    return _gallery(made)


def list_there() -> list[ViewThere]:
    """All galleries by name."""

    def work(client: Client) -> list[ViewThere]:
        views = []
        for each in client.galleries():
            try:
                views.append(_view(client.gallery(each.name)))
            except NotFoundError:
                continue  # deleted since it was listed
        return views

    return ask_server(work)


def show_there(name: str) -> ViewThere:
    """One gallery."""
    return _view(ask_server(lambda client: client.gallery(name)))


def set_there(name: str, threshold: float | None, target_fpir: float | None) -> ViewThere:
    """Set what counts as a match."""
    changed = ask_server(
        lambda client: client.change_gallery(
            name,
            threshold=UNSET if threshold is None else threshold,
            target_fpir=UNSET if target_fpir is None else target_fpir,
        )
    )
    return _view(changed)


def _view(each: CountedGallery) -> ViewThere:
    return ViewThere(
        gallery=_gallery(each),
        pack=each.model_pack,
        faces=each.faces,
        erased=each.faces_without_image,
        threshold=each.threshold_now,
    )


def _gallery(each: CountedGallery) -> GalleryThere:
    return GalleryThere(
        gallery_id=each.name,
        kind=each.kind,
        head=each.head,
        threshold=each.threshold,
        target_fpir=each.target_fpir,
        quality_floor=each.quality_floor,
        description=each.description,
        created_at=None if each.created_at is None else each.created_at.isoformat(),
    )
