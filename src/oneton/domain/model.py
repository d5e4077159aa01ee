"""The words of the product as frozen Structs and NewTypes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

TenantId = NewType("TenantId", UUID)
GalleryId = NewType("GalleryId", str)
"""A gallery's name, unique within its tenant: 1 to 63 of `[a-z0-9_-]`."""
FaceId = NewType("FaceId", UUID)
"""A face record's public name, a UUIDv7; `oneToNVerificationId` on the wire."""
FaceNo = NewType("FaceNo", int)
"""A face record's row number in FAISS, never negative."""
Cosine = NewType("Cosine", float)
Score = NewType("Score", float)
Embedding = NDArray[np.float32]
"""(D,) of unit L2 norm."""

DEFAULT_GALLERY = GalleryId("default")
DEFAULT_THRESHOLD = Score(50.0)
"""Match level 4, FMR 1e-5: one step above the 1:1 default, for 1:N multiplies false matches."""


class Permission(StrEnum):
    """What a key may do."""

    MATCH = "match"
    SEARCH = "search"
    INSERT = "insert"
    ERASE = "erase"
    PURGE = "purge"
    READ = "read"
    ADMIN = "admin"


class GalleryKind(StrEnum):
    """What a gallery's faces stand for."""

    ENROLLMENT = "enrollment"
    BLOCKLIST = "blocklist"
    ALLOWLIST = "allowlist"


class SecondPack(StrEnum):
    """What a gallery's second model pack is there for, while it has one.

    A gallery that is re-embedded has two: new faces get a template of each.
    """

    FILLING = "filling"
    """The pack to come; older faces are being re-embedded."""
    FILLED = "filled"
    """Every face that will stay has its template; indexes may load ahead."""
    KEPT = "kept"
    """The pack that was, for a rollback; every face has its template."""
    KEPT_PARTLY = "kept-partly"
    """The same, but it found no face in some picture that was enrolled since."""


class ModelPack(msgspec.Struct, frozen=True):
    """A detector and recogniser; templates of two packs never meet.

    Attributes:
        sha256: hex digest over the pack's files, see `biometrics.packs`.
        dimension: of its embeddings.
    """

    name: str
    sha256: str
    dimension: int


class FaceSource(StrEnum):
    """Where a face record came from, when it was no plain enrolment."""

    SESSION = "session"
    """A saved call that enrolls, such as passive liveness."""
    IMPORTED = "imported"
    """Put on a user's profile by the caller."""
    LIST_ENTRY = "list_entry"
    RETAINED_TEMPLATE = "retained_template"
    """Of a saved call that was deleted; its template was to stay."""


class FaceNote(msgspec.Struct, frozen=True):
    """What goes with a face record, and means nothing to the index.

    Attributes:
        external_id: the caller's own reference; several records may share one.
        metadata: JSON, the caller's.
        request_id: of the saved call that enrolled it.
    """

    external_id: str | None = None
    metadata: msgspec.Raw | None = None
    source: FaceSource | None = None
    request_id: UUID | None = None


NO_NOTE = FaceNote()


class Quality(msgspec.Struct, frozen=True):
    """How usable a face is.

    Attributes:
        size_px: shorter side of the face box, in pixels of the upright original.
        sharpness: variance of the Laplacian of the aligned face's luma; low is blurred.
        exposure: share of the aligned face's luma neither crushed nor blown out, 0 to 1.
        luminance: mean of the aligned face's luma, 0 to 100.
    """

    size_px: float
    sharpness: float
    exposure: float
    luminance: float = 0.0


class QualityFloor(msgspec.Struct, frozen=True):
    """The least that a gallery accepts when enrolling; 0 accepts all."""

    size_px: float = 0.0
    sharpness: float = 0.0
    exposure: float = 0.0


class Attributes(msgspec.Struct, frozen=True):
    """Estimates, not facts.

    Attributes:
        age: in years.
        gender: "female" or "male".
        gender_confidence: 0.5 to 1.
    """

    age: float
    gender: str
    gender_confidence: float


class DetectedFace(msgspec.Struct, frozen=True):
    """One face in a picture.

    Attributes:
        box: (left, top, right, bottom) in pixels of the upright original.
        landmarks: (5, 2) pixels of the upright original: eyes, nose, mouth corners.
        confidence: of the detector, 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    confidence: float
    quality: Quality
    attributes: Attributes | None = None


class Analysis(msgspec.Struct, frozen=True):
    """What one picture holds.

    Attributes:
        content_type: of the bytes, by their content.
        width: of the upright original, in pixels.
        height: likewise.
        rotation: degrees clockwise, 0, 90, 180 or 270, by which the picture was turned to find
            its faces upright; boxes and landmarks are in the turned picture.
        faces: at least one; the first is the one that counts, the others follow largest first.
        embedding: (D,) float32 of unit L2 norm, of the first face.
        liveness: of the first face, 0 to 1; None when it was not assessed.
    """

    content_type: str
    width: int
    height: int
    rotation: int
    faces: tuple[DetectedFace, ...]
    embedding: Embedding
    liveness: float | None = None


class Gallery(msgspec.Struct, frozen=True):
    """A gallery as Postgres holds it at one moment.

    Attributes:
        head: counts its changes; commit-ordered without gaps.
        threshold: the least score that counts as a match; unless there is a target.
        target_fpir: share of searches for strangers that may return a match; the threshold then
            follows the gallery's size.
        model_pack_no: of the pack that answers.
        second_pack_no: of the pack that new faces are embedded with, too.
    """

    tenant_id: TenantId
    gallery_id: GalleryId
    gallery_no: int
    kind: GalleryKind
    model_pack_no: int
    head: int
    threshold: Score
    quality_floor: QualityFloor
    target_fpir: float | None = None
    second_pack_no: int | None = None
    second: SecondPack | None = None
    model_fill: int = 0
    second_fill: int = 0
    description: str = ""
    created_at: datetime | None = None

    def fill_of(self, pack_no: int) -> int | None:
        """Which time a pack's templates are whole; None when they are not, or it is not used."""
        if pack_no == self.model_pack_no:
            return self.model_fill
        if pack_no == self.second_pack_no and self.second is not SecondPack.FILLING:
            return self.second_fill
        return None

    @property
    def pack_nos(self) -> tuple[int, ...]:
        """The packs of which a new face gets a template."""
        if self.second_pack_no is None:
            return (self.model_pack_no,)
        return (self.model_pack_no, self.second_pack_no)

    def answers_under(self, pack_no: int) -> bool:
        """Whether every face has a template of this pack, so that a search may use it."""
        if pack_no == self.model_pack_no:
            return True
        return self.second is SecondPack.KEPT and pack_no == self.second_pack_no


class NewGallery(msgspec.Struct, frozen=True):
    """What a gallery is created as; see `Gallery`."""

    threshold: Score = DEFAULT_THRESHOLD
    target_fpir: float | None = None
    kind: GalleryKind = GalleryKind.ENROLLMENT
    floor: QualityFloor = QualityFloor()
    description: str = ""


DEFAULT_NEW_GALLERY = NewGallery()


class Face(msgspec.Struct, frozen=True):
    """A face record.

    Attributes:
        has_image: false once the image was erased; the template keeps matching.
        content_type: of the original image.
    """

    face_id: FaceId
    face_no: FaceNo
    tenant_id: TenantId
    gallery_id: GalleryId
    has_image: bool
    content_type: str
    created_at: datetime
    note: FaceNote = NO_NOTE

    @property
    def image_key(self) -> str:
        """Its image's key in the object store."""
        return image_key(self.tenant_id, self.gallery_id, self.face_id)


def image_key(tenant: TenantId, gallery: GalleryId, face_id: FaceId | str) -> str:
    """Where the object store keeps a face record's image; of the id "", a gallery's prefix."""
    return f"{tenant}/{gallery}/{face_id}"


class Changes(msgspec.Struct, frozen=True):
    """What happened to a gallery after head `since`, up to `head`.

    Attributes:
        added_face_nos: (N,) int64, in order of head.
        added_embeddings: (N, D) float32 of unit L2 norm, row for row.
        removed_face_nos: (M,) int64; some may never have been added.
    """

    since: int
    head: int
    added_face_nos: NDArray[np.int64]
    added_embeddings: NDArray[np.float32]
    removed_face_nos: NDArray[np.int64]


class Candidate(msgspec.Struct, frozen=True):
    """A face record in a candidate list; rank 1 is best."""

    rank: int
    face_id: FaceId
    score: Score


class CandidateList(msgspec.Struct, frozen=True):
    """The answer of identify.

    Attributes:
        match: the best candidate's score reaches the threshold.
        candidates: best first, whatever their score.
    """

    match: bool
    threshold: Score
    candidates: tuple[Candidate, ...]
    faces: tuple[DetectedFace, ...]


class Enrolment(msgspec.Struct, frozen=True):
    """The answer of enroll.

    Attributes:
        added: false when a record that was there before matched.
        score: of the matching record; None when added.
    """

    face_id: FaceId
    added: bool
    score: Score | None
    faces: tuple[DetectedFace, ...]


class Verification(msgspec.Struct, frozen=True):
    """The answer of verify: one score for two pictures.

    Attributes:
        match_level: 0 to 5; level n is score >= 10 (n + 1).
    """

    score: Score
    match_level: int
    cosine: Cosine
    source: Analysis
    target: Analysis


class Reembedding(msgspec.Struct, frozen=True):
    """A gallery in a run that re-embeds it under another model pack.

    Attributes:
        failed: images that yield no face under the new pack.
        to_drop: records without an image when the run began.
        dropped: of them removed at the cut-over; None before it.
    """

    run_id: UUID
    run_state: str
    gallery_id: GalleryId
    from_pack: str
    to_pack: str
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


class Key(msgspec.Struct, frozen=True):
    """An API key, without its secret.

    Attributes:
        expires_at: from then on its calls are refused; None is never.
        addresses: and networks that it may be used from; none is everywhere.
    """

    key_id: UUID
    tenant_id: TenantId
    label: str
    permissions: tuple[Permission, ...]
    created_at: datetime
    revoked_at: datetime | None
    sandbox: bool = False
    expires_at: datetime | None = None
    addresses: tuple[str, ...] = ()


class TenantOptions(msgspec.Struct, frozen=True):
    """What a tenant has set; None is what the dialect has by default.

    Attributes:
        image_days: pictures of saved calls are erased after so many days.
        result_days: so are the saved calls.
        floor: least score that Didit's and VeriFlow's face search lists.
        sure: score from which they are sure.
        payment_threshold: score from which CypherFace's face match says yes.
    """

    image_days: int | None = None
    result_days: int | None = None
    floor: Score = Score(70.0)
    sure: Score = Score(90.0)
    payment_threshold: Score = Score(80.0)


class Tenant(msgspec.Struct, frozen=True):
    """One customer.

    Attributes:
        public_id: 24 hexadecimal digits; what dialects call merchant or organization.
        credits: calls that may still be made; None is without end.
        suspended_at: since when all its calls are refused.
        deleted_at: since when it is being erased.
        most_requests_a_day: None is without end.
    """

    tenant_id: TenantId
    name: str
    created_at: datetime
    public_id: str = ""
    credits: int | None = None
    options: TenantOptions = TenantOptions()
    suspended_at: datetime | None = None
    deleted_at: datetime | None = None
    most_requests_a_day: int | None = None


class Job(msgspec.Struct, frozen=True):
    """Long work for one tenant.

    Attributes:
        kind: "delete_gallery" or "delete_tenant".
        subject: what it is about, such as a gallery's name.
        state: queued, running, done or failed.
    """

    job_id: UUID
    tenant_id: TenantId
    kind: str
    subject: str
    subject_no: int | None
    state: str
    done: int
    total: int
    why: str
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None


class StoredObject(msgspec.Struct, frozen=True):
    """An object in the object store.

    Attributes:
        key: a picture's is `<tenant>/<gallery>/<face>`, or `<tenant>/_pictures/<picture>`.
    """

    key: str
    size_bytes: int
    modified_at: datetime
