"""Whom a face resembles among a tenant's faces and lists, as face search and liveness tell it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from oneton.domain.model import DEFAULT_GALLERY, FaceId, FaceSource, GalleryKind, TenantOptions
from oneton.domain.requests import RequestId
from oneton.domain.screening import FaceDetails, ScreenedFace, Screening
from oneton.edge.didit.answers import (
    LIVENESS,
    STATUSES,
    AboutSession,
    BlocklistedSession,
    DuplicatedSession,
    FaceWarning,
    Match,
    make_warning,
    seconds,
    shown_score,
)
from oneton.edge.didit.calls import Caller
from oneton.edge.didit.decision import ImageKeys, KeptMatch
from oneton.verbs.analyse import Picture
from oneton.verbs.judge_screening import (
    LISTED,
    SCREENED,
    Risk,
    blocklisted_first,
    is_allowlisted,
    is_blocklisted,
    judge_screening,
    screened_galleries,
)
from oneton.verbs.screen import Terms, Wanted

_BLOCKLIST_RISKS = (Risk.FACE_IN_BLOCKLIST, Risk.POSSIBLE_FACE_IN_BLOCKLIST)
_DUPLICATE_RISKS = (Risk.DUPLICATED_FACE, Risk.POSSIBLE_DUPLICATED_FACE)


class Screened(msgspec.Struct, frozen=True):
    """What a screening comes to.

    Attributes:
        matches: at most five.
        total: how many there are.
        image_keys: of the faces of `matches`.
    """

    screening: Screening
    warnings: tuple[FaceWarning, ...]
    matches: tuple[KeptMatch, ...]
    total: int
    image_keys: ImageKeys

    def shown(self, caller: Caller) -> tuple[Match, ...]:
        """The matches with links to their images."""
        return tuple(
            msgspec.structs.replace(
                each.match, match_image_url=caller.link(self.image_keys[each.face_id])
            )
            for each in self.matches
        )


class _Found(msgspec.Struct, frozen=True):
    """A face, or a session with all its faces; the best candidate of them."""

    best: ScreenedFace
    blocklisted: bool
    allowlisted: bool


async def screen(
    caller: Caller,
    picture: Picture,
    options: TenantOptions,
    *,
    wanted: Wanted | None = None,
    blocked_first: bool = False,
) -> Screened:
    """Search the tenant's enrolled faces and all its block and allow lists.

    Raises:
        ProbeError: the picture cannot be used.
    """
    tenant, verbs = caller.principal.tenant_id, caller.verbs
    galleries = await verbs.manage_galleries.list(tenant)
    screening = await verbs.screen(
        tenant,
        screened_galleries(((each.gallery_id, each.kind) for each in galleries), DEFAULT_GALLERY),
        picture,
        Terms(limit=SCREENED, each=True, least=options.floor, wanted=wanted),
    )
    verdict = judge_screening(screening, floor=options.floor, sure=options.sure)
    candidates: Sequence[ScreenedFace] = verdict.candidates
    found = _by_session(blocklisted_first(candidates) if blocked_first else candidates)
    users = await _users(caller, found[:LISTED])
    return Screened(
        screening=screening,
        warnings=tuple(
            make_warning(each.risk, LIVENESS, _about(each.risk, each.face))
            for each in verdict.warnings
        ),
        matches=tuple(_match(each, users) for each in found[:LISTED]),
        total=len(found),
        image_keys={each.best.face.face_id: each.best.face.image_key for each in found[:LISTED]},
    )


def _by_session(candidates: Sequence[ScreenedFace]) -> list[_Found]:
    """One entry a session: the record that it enrolled, and its copies in lists, are one face."""
    groups: dict[RequestId | FaceId, list[ScreenedFace]] = {}
    for each in candidates:
        groups.setdefault(each.face.request_id or each.face.face_id, []).append(each)
    return [
        _Found(
            best=max(group, key=lambda each: each.score),
            blocklisted=any(is_blocklisted(each.face) for each in group),
            allowlisted=any(is_allowlisted(each.face) for each in group),
        )
        for group in groups.values()
    ]


async def _users(caller: Caller, found: Sequence[_Found]) -> dict[str, UUID]:
    """Our names for the users of retained templates, by the caller's."""
    names = [
        each.best.face.note.external_id
        for each in found
        if each.best.face.source is FaceSource.RETAINED_TEMPLATE
    ]
    known = [each for each in names if each is not None]
    if not known:
        return {}
    return {**await caller.verbs.keep_users.ids(caller.principal.tenant_id, known)}


def _match(found: _Found, users: dict[str, UUID]) -> KeptMatch:
    face = found.best.face
    source = _source(face)
    is_template = source is FaceSource.RETAINED_TEMPLATE
    match = Match(
        session_id=face.request_id,
        session_number=face.request_number,
        similarity_percentage=shown_score(found.best.score),
        source=str(source),
        vendor_data=face.note.external_id,
        verification_date=seconds(face.created_at),
        match_image_url=None,
        status=None if face.request_state is None else STATUSES[face.request_state],
        is_blocklisted=found.blocklisted,
        is_allowlisted=found.allowlisted,
        api_service=_service(face),
        vendor_user_id=users.get(face.note.external_id or "") if is_template else None,
        biometric_template_id=face.face_id if is_template else None,
    )
    return KeptMatch(face.face_id, match)


def _source(face: FaceDetails) -> FaceSource:
    """A face that a list took over from a session is that session's."""
    if face.request_id is not None:
        return FaceSource.SESSION
    if face.kind is not GalleryKind.ENROLLMENT:
        return FaceSource.LIST_ENTRY
    return face.source or FaceSource.IMPORTED


def _service(face: FaceDetails) -> str | None:
    return None if face.request_kind is None else face.request_kind.upper()


def _about(risk: Risk, face: FaceDetails | None) -> AboutSession | None:
    if face is None:
        return None
    about = (face.request_id, face.request_number, _service(face))
    if risk in _BLOCKLIST_RISKS:
        return BlocklistedSession(*about)
    assert risk in _DUPLICATE_RISKS
    return DuplicatedSession(*about)
