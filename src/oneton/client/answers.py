"""What the API answers, as frozen Structs; fields that are not known here are left out.

Words such as a kind or a state are plain text, for a newer server may know more of them.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

T = TypeVar("T")


class Fault(msgspec.Struct, frozen=True):
    """One field that cannot be used."""

    field: str
    code: str
    detail: str


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A page of a list; `next_cursor` is None on the last one."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class Face(msgspec.Struct, frozen=True):
    """A face record.

    Attributes:
        metadata: yours, any JSON.
        has_image: false once the image was erased; the face keeps matching.
        source: where it came from when it was no plain enrolment.
        request_id: of the saved call that enrolled it.
    """

    face_id: UUID
    gallery: str
    gallery_kind: str
    external_id: str | None
    metadata: Any
    has_image: bool
    source: str | None
    request_id: UUID | None
    created_at: datetime


class Box(msgspec.Struct, frozen=True):
    """In pixels of the upright picture."""

    left: float
    top: float
    right: float
    bottom: float


class FoundFace(msgspec.Struct, frozen=True):
    """A face in a picture that was sent.

    Attributes:
        confidence: of the detector, 0 to 1.
        size_px: shorter side of the box.
        sharpness: variance of the Laplacian of its light; low is blurred.
        exposure: share of it neither crushed nor blown out, 0 to 1.
    """

    box: Box
    confidence: float
    size_px: float
    sharpness: float
    exposure: float


class Enrolled(msgspec.Struct, frozen=True):
    """What came of an enrolment.

    Attributes:
        added: false when a record that was there before matched.
        score: of the matching record; None when added.
        detected: faces in the picture; the first is the one that counts.
    """

    face_id: UUID
    gallery: str
    added: bool
    score: float | None
    detected: tuple[FoundFace, ...]
    warnings: tuple[str, ...]


class Candidate(msgspec.Struct, frozen=True):
    """A face record that was found.

    Attributes:
        rank: 1 is best over all galleries.
        score: 0 to 100.
        match: the score reaches the threshold that counts in its gallery.
        image_url: good for an hour without a key; None once the image was erased.
        cosine: the least of this score; None unless explained, as is `fmr`.
        fmr: share of pairs of different people that score as high.
    """

    rank: int
    score: float
    match: bool
    face_id: UUID
    gallery: str
    gallery_kind: str
    external_id: str | None
    metadata: Any
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

    gallery: str
    gallery_kind: str
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
    """What a search found.

    Attributes:
        match: whether any candidate is one.
        candidates: best first.
        detected: faces in the picture; the first is the one that was looked for.
        explanation: None unless asked for.
        request_id: of the saved call.
    """

    match: bool
    candidates: tuple[Candidate, ...]
    detected: tuple[FoundFace, ...]
    warnings: tuple[str, ...]
    explanation: Explanation | None
    request_id: UUID | None


class Detected(msgspec.Struct, frozen=True):
    """Faces of both pictures; the first of each are compared."""

    source: tuple[FoundFace, ...]
    target: tuple[FoundFace, ...]


class Compared(msgspec.Struct, frozen=True):
    """What a comparison came to.

    Attributes:
        score: 0 to 100.
        match_level: 0 to 5; level n is score >= 10 (n + 1).
        cosine: of the two embeddings.
        request_id: of the saved call.
    """

    match: bool
    score: float
    threshold: float
    match_level: int
    cosine: float
    detected: Detected
    warnings: tuple[str, ...]
    request_id: UUID | None


class QualityFloor(msgspec.Struct, frozen=True):
    """The least that is accepted when enrolling; 0 accepts all.

    Attributes:
        size_px: shorter side of the face box.
        sharpness: variance of the Laplacian of its light.
        exposure: share of it neither crushed nor blown out.
    """

    size_px: float = 0.0
    sharpness: float = 0.0
    exposure: float = 0.0


class Gallery(msgspec.Struct, frozen=True):
    """A gallery, without what has to be counted.

    Attributes:
        threshold: the least score that counts as a match; None where a target sets it.
        target_fpir: None where a threshold is set.
    """

    name: str
    kind: str
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


class ImageLink(msgspec.Struct, frozen=True):
    """Where a picture can be had without a key, until `expires_at`."""

    url: str
    expires_at: datetime


class Image(msgspec.Struct, frozen=True):
    """A picture as it was sent."""

    data: bytes
    content_type: str

    def __repr__(self) -> str:
        return f"Image({len(self.data)} bytes, {self.content_type!r})"


class Job(msgspec.Struct, frozen=True):
    """Long work that goes on after its call was answered.

    Attributes:
        kind: such as `delete_gallery`.
        subject: what it is about, such as a gallery's name.
        state: queued, running, done or failed.
        done: of `total`, such as faces.
        why: it failed, or waits and is tried again; else empty.
    """

    job_id: UUID
    kind: str
    subject: str
    state: str
    done: int
    total: int
    why: str
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @property
    def is_over(self) -> bool:
        """It is done, or failed for good."""
        return self.state in {"done", "failed"}


class SavedCall(msgspec.Struct, frozen=True):
    """A saved call, without its pictures and answer.

    Attributes:
        number: counts your requests from 1.
        public_id: what its dialect calls it.
        score: of the best candidate, or of the comparison.
        face_id: of the record that it enrolled.
    """

    request_id: UUID
    number: int
    public_id: str
    dialect: str
    kind: str
    state: str
    score: float | None
    external_id: str | None
    metadata: Any
    face_id: UUID | None
    created_at: datetime
    updated_at: datetime


class SavedImage(msgspec.Struct, frozen=True):
    """A picture of a saved call; the link is good for an hour without a key.

    Attributes:
        name: the field that it came in.
    """

    name: str
    content_type: str
    url: str | None


class Review(msgspec.Struct, frozen=True):
    """A change of state by a reviewer.

    Attributes:
        actor: who it was.
    """

    state_before: str
    state: str
    actor: str
    comment: str
    at: datetime


class WholeCall(SavedCall, frozen=True):
    """A saved call with everything.

    Attributes:
        asked: its parameters, in its dialect's form.
        result: its answer, likewise.
        images: those that are still there.
        reviews: the oldest first.
    """

    asked: Any
    result: Any
    images: tuple[SavedImage, ...]
    reviews: tuple[Review, ...]


class ReindexedGallery(msgspec.Struct, frozen=True):
    """One gallery in a run that re-embeds it.

    Attributes:
        state: filling, stopped, filled, kept (cut over, and can be rolled back), finished,
            cancelled or rolled_back.
        failed: images that yield no face under the new pack.
        to_drop: records without an image when the run began.
        dropped: of them removed at the cut-over.
    """

    gallery: str
    from_pack: str
    state: str
    embedded: int
    to_embed: int
    failed: int
    to_drop: int
    dropped: int | None
    started_at: datetime
    filled_at: datetime | None
    cut_over_at: datetime | None
    ended_at: datetime | None


class ReindexRun(msgspec.Struct, frozen=True):
    """A run, with your galleries in it.

    Attributes:
        state: running, paused, cancelled or finished.
    """

    run_id: UUID
    to_pack: str
    state: str
    galleries: tuple[ReindexedGallery, ...]


class AuditEvent(msgspec.Struct, frozen=True):
    """Something that was done with your data.

    Attributes:
        event_no: rises with time, with gaps.
        actor: `key <id>`, `operator <login>`, `link`, or the part of oneton that did it by itself.
        action: such as search, match, enroll, purge or read image.
        face_ids: those changed or read, or the matches that a search answered with.
        address: the caller's.
        request_id: of the call, as `ApiError.request_id` is.
        details: ids, names and counts.
    """

    event_no: int
    at: datetime
    actor: str
    action: str
    face_ids: tuple[UUID, ...]
    gallery: str | None
    address: str | None
    request_id: str | None
    details: Any


class UsedDay(msgspec.Struct, frozen=True):
    """Calls on a day of UTC.

    Attributes:
        kind: match, search, enroll, erase, purge, read, admin or other.
    """

    day: date
    dialect: str
    kind: str
    calls: int


class Usage(msgspec.Struct, frozen=True):
    """Calls by day, dialect and kind, and what there is now.

    Attributes:
        faces: face records in all galleries.
        pictures: of saved calls, sessions and uploads.
        most_faces: that there may be; None is without end.
        most_requests_a_day: likewise.
    """

    since: date
    until: date
    calls: int
    faces: int
    pictures: int
    most_faces: int | None
    most_requests_a_day: int | None
    days: tuple[UsedDay, ...]


class Health(msgspec.Struct, frozen=True):
    """Whether the server can do its work; each part is "ok" or says what is wrong."""

    ready: bool
    postgres: str
    images: str
