"""The audit trail: who did what to which face, when, from where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

import msgspec

from oneton.domain.model import FaceId, GalleryId, TenantId

NO_DETAILS: Mapping[str, object] = MappingProxyType({})


class Action(StrEnum):
    """What is noted of faces, galleries and calls; operators' own acts have names beside these."""

    ENROLL = "enroll"
    ENROLL_FOUND = "enroll found"
    SEARCH = "search"
    MATCH = "match"
    READ_IMAGE = "read image"
    REPEAT_ANSWER = "repeat answer"
    ERASE = "erase image"
    PURGE = "purge"
    CHANGE_FACE = "change face"
    CREATE_GALLERY = "create gallery"
    CHANGE_GALLERY = "change gallery"
    DELETE_GALLERY = "delete gallery"
    CREATE_LIST = "create list"
    ADD_ENTRY = "add list entry"
    REMOVE_ENTRY = "remove list entry"
    REVIEW_REQUEST = "review request"
    REMOVE_REQUEST = "remove request"
    ADD_WEBHOOK = "add webhook"
    CHANGE_WEBHOOK = "change webhook"
    REMOVE_WEBHOOK = "remove webhook"
    CREATE_USER = "create user"
    REMOVE_USER = "remove user"
    END_SESSION = "end session"
    REMOVE_SESSION = "remove session"
    REINDEX_GALLERY = "reindex gallery"
    EXPORT_SUBJECT = "export subject"
    PURGE_SUBJECT = "purge subject"
    EXPORT_AUDIT = "export audit"
    EXPIRE_AUDIT = "expire audit"


SEARCHES = frozenset({Action.SEARCH, Action.MATCH})
"""What ONETON_AUDIT_SEARCHES may leave out."""


class Act(msgspec.Struct, frozen=True):
    """What is to be noted; by whom is known from the call.

    Attributes:
        face_ids: those changed or read, or the matches that a search answered with.
        details: ids, names and counts; nothing of a face, and no external id.
    """

    action: str
    face_ids: Sequence[FaceId] = ()
    gallery_id: GalleryId | None = None
    details: Mapping[str, object] = NO_DETAILS


class AuditEvent(msgspec.Struct, frozen=True):
    """Something that was done.

    Attributes:
        event_no: rises with time.
        tenant_id: None is an operator's act outside of any tenant.
        actor: `key <id>`, `operator <login>`, `link`, or the part of oneton that did it by itself.
        address: the caller's.
        request_id: of the call, as in its log line.
        details: JSON object.
    """

    event_no: int
    at: datetime
    tenant_id: TenantId | None
    actor: str
    action: str
    face_ids: tuple[FaceId, ...]
    gallery_id: GalleryId | None
    address: str | None
    request_id: str | None
    details: msgspec.Raw


class AuditFilter(msgspec.Struct, frozen=True):
    """Which events; None is all.

    Attributes:
        since: at this time or after.
        until: before this time.
    """

    face_id: FaceId | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


EVERY = AuditFilter()
