"""What is kept of one person, for whoever asks by the right of access or erasure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from uuid import UUID

import msgspec

from oneton.domain.audit import AuditEvent
from oneton.domain.model import FaceId, Score


class ThingKind(StrEnum):
    """What a row is."""

    FACE = "face record"
    DROPPED_FACE = "face record kept for a rollback"
    REQUEST = "saved call"
    LIST_ENTRY = "list entry"
    VENDOR_USER = "vendor user"
    MERCHANT_USER = "merchant user"


class HeldImage(msgspec.Struct, frozen=True):
    """A picture in the object store.

    Attributes:
        name: what it is to its row.
    """

    name: str
    key: str
    content_type: str


class Thing(msgspec.Struct, frozen=True):
    """One row that is kept of a person.

    Attributes:
        thing_id: unique for its kind.
        found_by: what led to it, for a person to judge.
        facts: JSON object, all that the row says of the person.
        face_id: the face record that it is, enrolled or refers to.
        request_id: likewise of the saved call.
        external_id: likewise.
        list_id: of a list entry.
    """

    kind: ThingKind
    thing_id: str
    found_by: str
    facts: msgspec.Raw
    images: tuple[HeldImage, ...] = ()
    face_id: FaceId | None = None
    request_id: UUID | None = None
    external_id: str | None = None
    list_id: UUID | None = None


class Roots(msgspec.Struct, frozen=True):
    """Where a search for a person begins.

    Attributes:
        faces: face records, with the score of the photo that led to each; None of an id.
        without: face records that are another person's; nothing is followed from them.
    """

    faces: tuple[tuple[FaceId, Score | None], ...] = ()
    external_ids: tuple[str, ...] = ()
    without: frozenset[FaceId] = frozenset()


class Subject(msgspec.Struct, frozen=True):
    """All that was found.

    Attributes:
        things: each after what led to it.
        events: of the audit trail about the face records, the oldest first; those stay.
        answers: kept for calls that are repeated, and naming any of the things.
    """

    things: tuple[Thing, ...]
    events: tuple[AuditEvent, ...]
    answers: int = 0

    @property
    def face_ids(self) -> tuple[FaceId, ...]:
        """The face records."""
        faces = (ThingKind.FACE, ThingKind.DROPPED_FACE)
        return tuple(
            each.face_id for each in self.things if each.kind in faces and each.face_id is not None
        )


def words_of(things: Iterable[Thing]) -> frozenset[str]:
    """What an answer in JSON that tells of any of these holds: ids, and outer names in quotes."""
    words: set[str] = set()
    for each in things:
        words.add(each.thing_id)
        if each.face_id is not None:
            words.add(str(each.face_id))
        if each.external_id:
            words.add(msgspec.json.encode(each.external_id).decode())
    return frozenset(words)
