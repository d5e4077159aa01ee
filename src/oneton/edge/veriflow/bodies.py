"""The bodies that callers of the VeriFlow dialect send."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

NULL = msgspec.Raw(b"null")
Number = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
"""A threshold as it was written, for it is repeated."""
Text = Annotated[str, Meta(max_length=2000, pattern=r"\A[^\x00]*\Z")]
"""Postgres keeps every character but U+0000."""
Address = Annotated[str, Meta(max_length=2000, pattern=r"\Ahttps?://[^\s\x00]+\Z")]
SearchType = Literal["most_similar", "blocklisted_or_approved"]


class FaceMatchAsked(msgspec.Struct, rename="camel", frozen=True):
    """Two pictures in base64; unknown fields are ignored."""

    user_image: str
    ref_image: str
    face_match_score_decline_threshold: Number = 30
    rotate_image: bool = False
    metadata: msgspec.Raw = NULL


class FaceSearchAsked(msgspec.Struct, rename="camel", frozen=True):
    """A picture in base64."""

    user_image: str
    search_type: SearchType = "most_similar"
    rotate_image: bool = False
    metadata: msgspec.Raw = NULL


class PassiveLivenessAsked(msgspec.Struct, rename="camel", frozen=True):
    """A picture in base64."""

    user_image: str
    face_liveness_score_decline_threshold: Number = 30
    rotate_image: bool = False
    metadata: msgspec.Raw = NULL


class ExpectedDetails(msgspec.Struct, rename="camel", frozen=True):
    """Who is expected."""

    first_name: Text | None = None
    last_name: Text | None = None


class ContactDetails(msgspec.Struct, rename="camel", frozen=True):
    """How to reach them; nothing is sent from here."""

    email: Text | None = None
    email_lang: Text | None = None
    send_notification_emails: bool | None = None


class SessionAsked(msgspec.Struct, rename="camel", frozen=True):
    """A request that a reviewer decides."""

    workflow_id: Text | None = None
    callback: Address | None = None
    metadata: msgspec.Raw = NULL
    expected_details: ExpectedDetails | None = None
    contact_details: ContactDetails | None = None


class ReviewAsked(msgspec.Struct, rename="camel", frozen=True):
    """A reviewer's word."""

    status: Literal["approved", "declined"]
    comment: Text = ""
