"""Lists of blocked, trusted or watched values, and the users that faces are of."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

import msgspec

from oneton.domain.model import FaceId, GalleryId, GalleryKind, TenantId

ListId = NewType("ListId", UUID)
EntryId = NewType("EntryId", UUID)
UserId = NewType("UserId", UUID)

BLOCKLIST_GALLERY = GalleryId("blocklist")


class ListType(StrEnum):
    """What being on a list means."""

    BLOCKLIST = "blocklist"
    ALLOWLIST = "allowlist"
    CUSTOM = "custom"


class EntryType(StrEnum):
    """What a list is of."""

    FACE = "face"
    DOCUMENT = "document"
    PHONE = "phone"
    EMAIL = "email"
    IP_ADDRESS = "ip_address"
    DEVICE_FINGERPRINT = "device_fingerprint"
    WALLET_ADDRESS = "wallet_address"
    BANK_ACCOUNT = "bank_account"
    COUNTRY = "country"
    USER = "user"
    BUSINESS = "business"
    KEY = "key"


_GALLERY_KINDS = {
    ListType.BLOCKLIST: GalleryKind.BLOCKLIST,
    ListType.ALLOWLIST: GalleryKind.ALLOWLIST,
}


class NewList(msgspec.Struct, frozen=True):
    """A list that is to be; see `EntryList`."""

    list_id: ListId
    name: str
    list_type: ListType
    entry_type: EntryType
    description: str = ""
    is_system: bool = False

    @property
    def gallery_id(self) -> GalleryId | None:
        """Holds its faces, if it is of faces that are searched."""
        if self.entry_type is not EntryType.FACE or self.list_type not in _GALLERY_KINDS:
            return None
        return BLOCKLIST_GALLERY if self.is_system else GalleryId(f"list-{self.list_id}")


class EntryList(msgspec.Struct, frozen=True):
    """A tenant's list.

    Attributes:
        is_system: made by us, one block list for each type of entry.
        gallery_id: holds its faces; None when it is of anything else.
        last_entry_at: when its newest entry was added.
    """

    list_id: ListId
    tenant_id: TenantId
    name: str
    description: str
    list_type: ListType
    entry_type: EntryType
    is_system: bool
    gallery_id: GalleryId | None
    created_at: datetime
    updated_at: datetime
    entries: int = 0
    last_entry_at: datetime | None = None

    @property
    def gallery_kind(self) -> GalleryKind:
        """What its gallery is created as."""
        return _GALLERY_KINDS[self.list_type]


class NewEntry(msgspec.Struct, frozen=True):
    """An entry that is to be; see `ListEntry`."""

    value: str = ""
    display_label: str = ""
    comment: str = ""
    added_by: str = "api"
    request_id: UUID | None = None
    reference_id: UUID | None = None
    face_id: FaceId | None = None
    metadata: msgspec.Raw | None = None


class ListEntry(msgspec.Struct, frozen=True):
    """Something on a list.

    Attributes:
        value: of a face, its record's id.
        request_id: of the saved call that it was taken from, which may be gone.
        request_number: of that call, while it is there.
        reference_id: what the caller refers to.
        face_id: its record in the list's gallery.
        image_key: of that record's picture, while it is there.
        metadata: JSON object, the caller's.
    """

    entry_id: EntryId
    list_id: ListId
    entry_type: EntryType
    value: str
    display_label: str
    comment: str
    added_by: str
    request_id: UUID | None
    request_number: int | None
    reference_id: UUID | None
    face_id: FaceId | None
    image_key: str | None
    metadata: msgspec.Raw | None
    created_at: datetime


class UserDetails(msgspec.Struct, frozen=True):
    """What a caller has said of a user.

    Attributes:
        status: ACTIVE, FLAGGED or BLOCKED; a note of the caller's.
        metadata: JSON object.
    """

    full_name: str | None = None
    display_name: str | None = None
    date_of_birth: str | None = None
    status: str = "ACTIVE"
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


class VendorUser(msgspec.Struct, frozen=True):
    """Somebody whom a caller knows by `vendor_data`.

    Attributes:
        sessions: saved calls that name them, by state.
        first_session_at: of the oldest that is still there.
    """

    user_id: UserId
    tenant_id: TenantId
    vendor_data: str
    details: UserDetails
    created_at: datetime
    sessions: dict[str, int] = {}
    first_session_at: datetime | None = None
    last_session_at: datetime | None = None


class RetainedTemplate(msgspec.Struct, frozen=True):
    """A face record that outlived its saved call: no picture, and it keeps matching.

    Attributes:
        vendor_data: the user's that it is of.
        expires_at: when it is purged; None is never.
    """

    face_id: FaceId
    vendor_data: str | None
    user_id: UserId | None
    retained_at: datetime
    expires_at: datetime | None


class InvalidValueError(ValueError):
    """It is no value for its type of entry; the text says what is."""


def normalised(entry_type: EntryType, value: str) -> str:
    """A value as it is kept and compared: letter case does not count.

    Raises:
        InvalidValueError: it is no such value; the text says what is.
    """
    value = value.strip()
    if not value:
        raise InvalidValueError("This field may not be blank.")
    return _FORMS.get(entry_type, str.lower)(value)


def _email(value: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+", value):
        raise InvalidValueError("Enter a valid email address.")
    return value.lower()


def _phone(value: str) -> str:
    value = re.sub(r"[\s().-]", "", value)
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", value):
        raise InvalidValueError("Enter a valid international phone number, such as +14155552671.")
    return value


def _ip_address(value: str) -> str:
    try:
        if "/" in value:
            return str(ipaddress.ip_network(value, strict=False))
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise InvalidValueError("Enter a valid IP address or CIDR range.") from error


def _fingerprint(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z]{8,}", value):
        raise InvalidValueError("Enter at least 8 letters and digits.")
    return value.lower()


def _country(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,3}", value):
        raise InvalidValueError("Enter an ISO 3166-1 code of two or three letters.")
    return value.upper()


_FORMS: dict[EntryType, Callable[[str], str]] = {
    EntryType.EMAIL: _email,
    EntryType.PHONE: _phone,
    EntryType.IP_ADDRESS: _ip_address,
    EntryType.DEVICE_FINGERPRINT: _fingerprint,
    EntryType.COUNTRY: _country,
}
