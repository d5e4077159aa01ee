"""Sample searches: a stored image has to find its own face record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from oneton.domain.backups import Sampled
from oneton.domain.errors import KeyDestroyedError, NoFaceError, NotFoundError, OnetonError
from oneton.domain.model import CandidateList, FaceId, GalleryId, Score, TenantId, image_key
from oneton.images import ImageStore
from oneton.verbs.analyse import Picture
from oneton.verbs.identify import Identify

LEAST = Score(99.0)
"""The image that a template was made of finds it at 100, less the rounding to fp16."""
SAME = 0.5
"""Scores so near are a tie, as of a photo that was enrolled twice."""
LIMIT = 20


@dataclass(frozen=True)
class SampleSearches:
    """Searches as a caller does, through model, index and rows."""

    identify: Identify
    images: ImageStore
    advance: Callable[[str, int, int], None]

    async def __call__(self, sample: list[tuple[UUID, str, UUID]]) -> Sampled:
        """Search with the image of each of these face records."""
        sampled = Sampled()
        for tenant, gallery, face in sample:
            try:
                why = await self._wrong(TenantId(tenant), GalleryId(gallery), FaceId(face))
            except KeyDestroyedError:
                continue  # Nothing of it is to open.
            sampled.searched += 1
            if why:
                sampled.wrong.append(f"{face} in {gallery}: {why}")
            else:
                sampled.agreed += 1
            self.advance("searches", sampled.searched, len(sample))
        return sampled

    async def _wrong(self, tenant: TenantId, gallery: GalleryId, face: FaceId) -> str:
        """Why a search is not as it should be; empty when it is."""
        try:
            data, _ = await self.images.get(image_key(tenant, gallery, face))
            found = await self._search(tenant, gallery, data)
        except KeyDestroyedError:
            raise
        except NotFoundError:
            return "its image is not in the store"
        except OnetonError as error:
            return str(error)
        best = found.candidates[0].score if found.candidates else Score(0.0)
        least = max(LEAST, best - SAME)
        first = [each.face_id for each in found.candidates if each.score >= least]
        # Where one photo was enrolled more often than that, any of its records may come first.
        if face in first or len(first) == LIMIT:
            return ""
        return f"it is not found by its own image; the best score is {best:.1f}"

    async def _search(self, tenant: TenantId, gallery: GalleryId, data: bytes) -> CandidateList:
        try:
            return await self.identify(tenant, gallery, Picture(data), limit=LIMIT)
        except NoFaceError:
            # It may have been enrolled lying on its side.
            return await self.identify(tenant, gallery, Picture(data, rotate=True), limit=LIMIT)
