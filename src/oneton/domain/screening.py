"""A search of several galleries, with what is known of every candidate."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from oneton.domain.model import (
    Analysis,
    Cosine,
    FaceId,
    FaceNote,
    FaceSource,
    GalleryId,
    GalleryKind,
    Score,
)
from oneton.domain.requests import RequestId, RequestState


class FaceDetails(msgspec.Struct, frozen=True):
    """A face record with its gallery and the saved call that it came from.

    Attributes:
        image_key: in the object store; None once the image was erased.
        request_state: of the saved call; None when there is none any more.
    """

    face_id: FaceId
    gallery_id: GalleryId
    kind: GalleryKind
    image_key: str | None
    created_at: datetime
    note: FaceNote
    request_id: RequestId | None = None
    request_number: int | None = None
    request_public_id: str | None = None
    request_kind: str | None = None
    request_dialect: str | None = None
    request_state: RequestState | None = None

    @property
    def source(self) -> FaceSource | None:
        """Where it came from; None is a plain enrolment."""
        return self.note.source


class ScreenedFace(msgspec.Struct, frozen=True):
    """A candidate; rank 1 is best over all galleries.

    Attributes:
        is_match: its score reaches the threshold that counts for its gallery.
        cosine: the least of this score.
        fmr: false match rate at this score.
    """

    rank: int
    score: Score
    is_match: bool
    face: FaceDetails
    cosine: Cosine = Cosine(-1.0)
    fmr: float = 1.0


class ScreenedGallery(msgspec.Struct, frozen=True):
    """A gallery as it was searched.

    Attributes:
        head: of the index that answered.
        faces: that it ranked.
        threshold: the least score that counts as a match in it.
        cosine: the threshold's.
        fmr: false match rate at the threshold.
    """

    gallery_id: GalleryId
    kind: GalleryKind
    model_pack: str
    head: int
    faces: int
    threshold: Score
    cosine: Cosine
    fmr: float


class Screening(msgspec.Struct, frozen=True):
    """The answer of screen.

    Attributes:
        candidates: best first.
        total: how many there are, the ones past the limit, too; counted up to `MOST`.
        analyses: of the picture, by the number of the model pack.
    """

    candidates: tuple[ScreenedFace, ...]
    total: int
    galleries: tuple[ScreenedGallery, ...]
    analysis: Analysis
    analyses: dict[int, Analysis]

    @property
    def match(self) -> bool:
        """Whether any candidate is one."""
        return any(each.is_match for each in self.candidates)


class FacePage(msgspec.Struct, frozen=True):
    """Some face records of a gallery, the oldest first.

    Attributes:
        after: where the next page begins; None at the end.
    """

    faces: tuple[FaceDetails, ...]
    after: UUID | None
