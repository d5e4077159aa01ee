"""What became of each photo of an import, as its report has it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from oneton.domain.errors import BadTextError, OnetonError, ProbeError
from oneton.domain.model import FaceId, Score
from oneton.sources import Item
from oneton.verbs.enroll_batch import Later, Outcome

IMPORTED, SAME_PERSON, LATER = "Imported", "SamePerson", "Later"


class Came(StrEnum):
    """What an item came to."""

    ADDED = "added"
    EXISTS = "exists"
    REFUSED = "refused"


class Line(msgspec.Struct, frozen=True):
    """An item's line of the report.

    Attributes:
        face_id: of the record that was added or is there; None where a dry run would add.
        score: of the record that is there, when it was found by its face.
        reason: why it was refused, or how it is known to be there; one word, for counting.
        stamp: of the item, to know whether it is the same in a later run.
        nth: of the lines of this file, from 1, where a table names it again.
    """

    file: str
    outcome: Came
    face_id: FaceId | None = None
    score: Score | None = None
    reason: str = ""
    message: str = ""
    stamp: str = ""
    nth: int = 1


def refused(item: Item, reason: str, message: str) -> Line:
    """The line of an item that cannot be used."""
    return _line(item, Came.REFUSED, reason=reason, message=message)


def refused_by(item: Item, error: Exception) -> Line:
    """The same, by an error of ours or of the system."""
    message = str(error.strerror) if isinstance(error, OSError) else str(error)
    return refused(item, type(error).__name__.removesuffix("Error"), message)


def exists(item: Item, face_id: FaceId, score: Score | None) -> Line:
    """The line of an item whose face is there; without a score it is known by its key."""
    if score is None:
        message = "it was enrolled under its key before"
        return _line(item, Came.EXISTS, face_id, reason=IMPORTED, message=message)
    return _line(item, Came.EXISTS, face_id, score, reason=SAME_PERSON)


def line_of(item: Item, outcome: Outcome | Line) -> Line | OnetonError:
    """What an item came to; an error that is not of its picture ends the import."""
    if isinstance(outcome, Line):
        return msgspec.structs.replace(outcome, file=item.name, stamp=item.stamp, nth=item.note.nth)
    if isinstance(outcome, ProbeError | BadTextError):
        return refused_by(item, outcome)
    if isinstance(outcome, Later):
        # Without a stamp it is taken up again by the run that goes on from here.
        return msgspec.structs.replace(refused(item, LATER, outcome.why), stamp="")
    if isinstance(outcome, OnetonError):
        return outcome
    if outcome.added:
        return _line(item, Came.ADDED, outcome.face_id)
    return exists(item, outcome.face_id, outcome.score)


def _line(
    item: Item,
    came: Came,
    face_id: FaceId | None = None,
    score: Score | None = None,
    *,
    reason: str = "",
    message: str = "",
) -> Line:
    return Line(item.name, came, face_id, score, reason, message, item.stamp, item.note.nth)
