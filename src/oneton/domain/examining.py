"""What a deep examination looks at, finds and repairs."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import msgspec


class Kind(StrEnum):
    """Kinds of findings."""

    IMAGE_MISSING = "image missing"
    """A row names it, and the store does not have it."""
    IMAGE_EMPTY = "image empty"
    IMAGE_UNREADABLE = "image unreadable"
    LEFTOVER_OBJECT = "leftover object"
    """No row names it, and it is past the grace."""
    UNKNOWN_OBJECTS = "objects of an unknown tenant"
    HEADS = "heads out of order"
    TEMPLATE_MISSING = "template missing"
    TEMPLATE_DAMAGED = "template damaged"
    TEMPLATE_LEFTOVER = "leftover template"
    """Its face was removed, or was never there."""
    INDEX = "index against table"
    SEARCH = "self-search"
    SNAPSHOT_DAMAGED = "snapshot damaged"
    COPY_INCOMPLETE = "snapshot copy incomplete"
    DELIVERIES_STUCK = "deliveries stuck"
    JOB_STUCK = "job stuck"
    QUEUE_STUCK = "queue stuck"
    CLAIMS_LEFT = "dead claims"
    REINDEX_STUCK = "reindex stuck"


REPAIRS = {
    Kind.IMAGE_MISSING: "--accept-lost-images marks it as erased",
    Kind.IMAGE_EMPTY: "--accept-lost-images marks it as erased",
    Kind.IMAGE_UNREADABLE: "restore it from a backup, or purge the record",
    Kind.LEFTOVER_OBJECT: "--repair deletes it",
    Kind.UNKNOWN_OBJECTS: "delete them, unless another database keeps its images here",
    Kind.HEADS: "restore a backup; report it, for this cannot happen",
    Kind.TEMPLATE_MISSING: "--repair embeds the stored image again; without one, purge the record",
    Kind.TEMPLATE_DAMAGED: "--repair embeds the stored image again; without one, purge the record",
    Kind.TEMPLATE_LEFTOVER: "--repair deletes it",
    Kind.INDEX: "--repair sets the gallery's snapshots aside; then restart servers",
    Kind.SEARCH: "--repair sets the gallery's snapshots aside; then restart servers",
    Kind.SNAPSHOT_DAMAGED: "--repair sets it aside; the gallery is read from Postgres",
    Kind.COPY_INCOMPLETE: "--repair deletes it; the next one is whole",
    Kind.DELIVERIES_STUCK: "see that a worker runs, and that it reaches the endpoint",
    Kind.JOB_STUCK: "see that a worker runs, and its log",
    Kind.QUEUE_STUCK: "see that a worker runs, and its log",
    Kind.CLAIMS_LEFT: "--repair clears them",
    Kind.REINDEX_STUCK: "oneton reindex status says why",
}


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be.

    Attributes:
        subject: an id, a key or a file; empty when there is one at most.
        pack_no: of the template that it is about.
    """

    kind: Kind
    said: str
    subject: str = ""
    tenant: UUID | None = None
    gallery: str | None = None
    pack_no: int | None = None

    @property
    def name(self) -> tuple[object, ...]:
        """By which it is the same when it is found again."""
        return (self.kind, self.subject, self.tenant, self.gallery, self.pack_no)


class Examined(msgspec.Struct):
    """One subject, looked at whole.

    Attributes:
        looked_at: how many of what.
    """

    subject: str
    looked_at: dict[str, int] = msgspec.field(default_factory=dict)
    findings: list[Finding] = msgspec.field(default_factory=list)

    def count(self, what: str, more: int = 1) -> None:
        """So many more were looked at."""
        self.looked_at[what] = self.looked_at.get(what, 0) + more


class Repair(msgspec.Struct, frozen=True):
    """What was done about a finding, or why nothing was."""

    finding: Finding
    done: bool
    said: str
