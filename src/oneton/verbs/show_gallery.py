"""Show a gallery: its size, its pack, and what its threshold means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from oneton.biometrics.calibration import Calibration
from oneton.domain.model import Gallery, GalleryId, ModelPack, Score, TenantId
from oneton.records.galleries import FaceCounts, Galleries
from oneton.verbs.judge import threshold_of
from oneton.verbs.load_model import FindPack

WORTH_SAYING_FNMR = 0.05
"""Losing more true matches than this is said."""
FAR_DECADES = 1.0
"""So far beyond the measured rates a threshold is said to be guessed."""


class GalleryView(msgspec.Struct, frozen=True):
    """What `oneton gallery show` says.

    Attributes:
        erased: faces whose image was erased.
        threshold: that a search is judged by now.
        fmr: of the threshold: the share of pairs of different people that reaches it.
        fpir: expected share of searches for strangers that match.
        fnmr: share of pairs of one person's photos that do not reach it.
        warnings: what an operator should know about the threshold.
    """

    gallery: Gallery
    pack: ModelPack
    second_pack: ModelPack | None
    faces: int
    erased: int
    threshold: Score
    fmr: float
    fpir: float
    fnmr: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ShowGallery:
    """Needs no model in memory, only the calibration."""

    galleries: Galleries
    find_pack: FindPack

    async def __call__(self, tenant: TenantId, gallery_id: GalleryId) -> GalleryView:
        """Look at a gallery as it is now.

        Raises:
            NotFoundError: the tenant has no such gallery.
            ConflictError: its model pack is not on this machine.
        """
        gallery = await self.galleries.read(tenant, gallery_id)
        counts = await self.galleries.count(tenant, gallery)
        files, calibration = await self.find_pack(gallery.model_pack_no)
        second = gallery.second_pack_no
        second_pack = None if second is None else await self.find_pack.named(second)
        return make_view(gallery, counts, files.pack, second_pack, calibration)


def make_view(
    gallery: Gallery,
    counts: FaceCounts,
    pack: ModelPack,
    second_pack: ModelPack | None,
    calibration: Calibration,
) -> GalleryView:
    """What there is to say about a gallery of this size."""
    threshold = threshold_of(gallery, counts.faces, calibration)
    cosine = calibration.cosine(threshold)
    fmr, fnmr = calibration.fmr(cosine), calibration.fnmr(cosine)
    return GalleryView(
        gallery=gallery,
        pack=pack,
        second_pack=second_pack,
        faces=counts.faces,
        erased=counts.erased,
        threshold=threshold,
        fmr=fmr,
        fpir=min(1.0, fmr * counts.faces),
        fnmr=fnmr,
        warnings=tuple(_warnings(gallery, counts.faces, calibration, fnmr)),
    )


def _warnings(gallery: Gallery, faces: int, calibration: Calibration, fnmr: float) -> Iterator[str]:
    if gallery.target_fpir is None:
        return
    wanted = gallery.target_fpir / max(1, faces)
    if wanted < calibration.measured_fmr / 10**FAR_DECADES:
        yield (
            f"the target needs a false match rate of {wanted:.0e}; the pack was measured down to "
            f"{calibration.measured_fmr:.0e}, and its tail is extrapolated beyond"
        )
    if fnmr > WORTH_SAYING_FNMR:
        yield (
            f"the pack cannot reach the target at this size without losing {fnmr:.1%} of true "
            "matches"
        )
