"""What several of the native API's calls answer with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from oneton.domain.model import DetectedFace, FaceId, FaceSource, GalleryId, GalleryKind
from oneton.domain.screening import FaceDetails

NULL = msgspec.Raw(b"null")


class Face(msgspec.Struct, frozen=True):
    """A face record.

    Attributes:
        metadata: yours, any JSON.
        has_image: false once the image was erased; the face keeps matching.
        source: where it came from when it was no plain enrolment.
        request_id: of the saved call that enrolled it.
    """

    face_id: FaceId
    gallery: GalleryId
    gallery_kind: GalleryKind
    external_id: str | None
    metadata: msgspec.Raw
    has_image: bool
    source: FaceSource | None
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


Warnings = tuple[Literal["several_faces"], ...]


def shown_face(details: FaceDetails) -> Face:
    """A face record as it is shown."""
    return Face(
        face_id=details.face_id,
        gallery=details.gallery_id,
        gallery_kind=details.kind,
        external_id=details.note.external_id,
        metadata=details.note.metadata or NULL,
        has_image=details.image_key is not None,
        source=details.source,
        request_id=details.note.request_id,
        created_at=details.created_at,
    )


def found_faces(faces: Sequence[DetectedFace]) -> tuple[FoundFace, ...]:
    """The faces of a picture; the first is the one that counts."""
    return tuple(
        FoundFace(
            box=Box(*each.box),
            confidence=each.confidence,
            size_px=each.quality.size_px,
            sharpness=each.quality.sharpness,
            exposure=each.quality.exposure,
        )
        for each in faces
    )


def warnings_of(*pictures: Sequence[DetectedFace]) -> Warnings:
    """What the caller should know of the pictures."""
    return ("several_faces",) if any(len(faces) > 1 for faces in pictures) else ()
