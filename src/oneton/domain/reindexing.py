"""Runs that re-embed galleries under another model pack: their words."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from oneton.domain.model import FaceId, FaceNo, GalleryId, TenantId


class RunState(StrEnum):
    """Of a run."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FINISHED = "finished"


class GalleryState(StrEnum):
    """Of a gallery in a run."""

    FILLING = "filling"
    STOPPED = "stopped"
    """Images yielded no face, or neighbours disagree; an operator decides."""
    FILLED = "filled"
    KEPT = "kept"
    """Cut over; the old pack is kept for a rollback."""
    FINISHED = "finished"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"


class OnFailure(StrEnum):
    """What becomes of records whose image yields no face under the new pack."""

    KEEP_ERASED = "keep-erased"
    """They stay, with their image, and match nothing until a later pack finds their face."""
    STOP = "stop"
    """The gallery is not cut over until an operator decides."""


class Plan(msgspec.Struct, frozen=True):
    """What re-embedding a gallery would take.

    Attributes:
        to_embed: faces with an image and without a template of the new pack.
        to_drop: faces whose image was erased: their records would be removed.
        done: faces that have a template of the new pack.
    """

    faces: int
    to_embed: int
    to_drop: int
    done: int


class NewRun(msgspec.Struct, frozen=True):
    """A run as it is started.

    Attributes:
        rate: percent of the CPU time that it may take.
    """

    run_id: UUID
    to_pack_no: int
    rate: int
    on_failure: OnFailure
    keep_old: timedelta
    started_by: str


class Work(msgspec.Struct, frozen=True):
    """One gallery of one run.

    Attributes:
        start_head: faces added later have both templates.
        handed_head: faces up to here were handed out.
        failed: images that yielded no face.
        compared: faces whose nearest neighbours were compared under both packs.
        agreed: how many of them agree.
        cleaned: no template is left that nobody needs.
    """

    run_id: UUID
    run_state: RunState
    rate: int
    on_failure: OnFailure
    keep_old: timedelta
    to_pack_no: int
    tenant_id: TenantId
    gallery_no: int
    gallery_id: GalleryId
    from_pack_no: int
    state: GalleryState
    start_head: int
    handed_head: int
    to_embed: int
    to_drop: int
    embedded: int
    dropped: int | None
    failed: int
    compared: int | None
    agreed: int | None
    cleaned: bool
    why: str
    started_by: str
    started_at: datetime
    filled_at: datetime | None
    cut_over_at: datetime | None
    ended_at: datetime | None


class ToEmbed(msgspec.Struct, frozen=True):
    """A face whose image is to be embedded."""

    face_no: FaceNo
    face_id: FaceId


class BothTemplates(msgspec.Struct, frozen=True):
    """A face's templates as they are stored, under the old and the new pack."""

    face_no: FaceNo
    old: bytes
    new: bytes
