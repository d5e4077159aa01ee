"""Find subject: everything that is kept of one person of a tenant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import msgspec

from oneton.domain.audit import AuditEvent, AuditFilter
from oneton.domain.model import FaceId, Score, TenantId
from oneton.domain.screening import ScreenedFace
from oneton.domain.subjects import Roots, Subject, Thing, ThingKind, words_of
from oneton.records.audit import Audit
from oneton.records.galleries import Galleries
from oneton.records.idempotency import Idempotency
from oneton.records.subjects import Links, Subjects
from oneton.verbs.analyse import Picture
from oneton.verbs.screen import MOST, Screen, Terms


@dataclass(frozen=True)
class LookAlike:
    """Whom a photo shows, in all galleries; a person has to look at the candidates."""

    galleries: Galleries
    screen: Screen

    async def __call__(
        self, tenant: TenantId, picture: Picture, score: Score | None = None
    ) -> tuple[ScreenedFace, ...]:
        """The candidates of every gallery that reach its threshold, or a score, best first.

        Raises:
            ProbeError: the picture cannot be used.
            UnavailableError: try again.
        """
        galleries = [each.gallery_id for each in await self.galleries.list(tenant)]
        if not galleries:
            return ()
        terms = Terms(limit=MOST, each=True, matches_only=True, threshold=score)
        return (await self.screen(tenant, galleries, picture, terms)).candidates


@dataclass(frozen=True)
class FindSubject:
    """Follows face records, saved calls and external ids until nothing new is found.

    A caller's external id is taken for one person's. What a call answered is not searched: the
    calls of other persons may have this one's id as a candidate.
    """

    subjects: Subjects
    audit: Audit
    answers: Idempotency

    async def __call__(self, tenant: TenantId, roots: Roots) -> Subject:
        """All rows, each after what led to it, and the audit events of the face records."""
        scores = dict(roots.faces)
        wanted: set[UUID] = {each for each in scores if each not in roots.without}
        new = Links(face_ids=wanted, external_ids=set(roots.external_ids))
        known = Links()
        things: dict[tuple[ThingKind, str], Thing] = {}
        while new:
            _add(known, new)
            found = await self.subjects.linked(tenant, new)
            fresh = [
                each
                for each in found
                if (each.kind, each.thing_id) not in things and each.face_id not in roots.without
            ]
            things |= {(each.kind, each.thing_id): _named(each, scores) for each in fresh}
            new = _following(fresh, known)
        events = await self._events(tenant, things.values())
        words = words_of(things.values())
        answers = await self.answers.count(tenant, words) if words else 0
        return Subject(tuple(things.values()), events, answers)

    async def _events(self, tenant: TenantId, things: Iterable[Thing]) -> tuple[AuditEvent, ...]:
        """Of other face records in an event nothing is said, for they are other persons'."""
        own = {each.face_id for each in things if each.face_id is not None}
        found: dict[int, AuditEvent] = {}
        for face_id in own:
            async for event in self.audit.every(tenant, AuditFilter(face_id=face_id)):
                ours = tuple(each for each in event.face_ids if each in own)
                found[event.event_no] = msgspec.structs.replace(event, face_ids=ours)
        return tuple(found[event_no] for event_no in sorted(found))


def _add(known: Links, new: Links) -> None:
    known.face_ids |= new.face_ids
    known.request_ids |= new.request_ids
    known.external_ids |= new.external_ids


def _following(things: Iterable[Thing], known: Links) -> Links:
    new = Links()
    for each in things:
        if each.face_id is not None:
            new.face_ids.add(each.face_id)
        if each.request_id is not None:
            new.request_ids.add(each.request_id)
        if each.external_id:
            new.external_ids.add(each.external_id)
    new.face_ids -= known.face_ids
    new.request_ids -= known.request_ids
    new.external_ids -= known.external_ids
    return new


def _named(thing: Thing, scores: dict[FaceId, Score | None]) -> Thing:
    """With the photo's score where the search began there."""
    if thing.kind is not ThingKind.FACE or thing.face_id not in scores:
        return thing
    score = scores[thing.face_id]
    said = "its id" if score is None else f"the photo, score {score:.1f}"
    return msgspec.structs.replace(thing, found_by=said)
