"""Purge subject: remove everything that is kept of one person."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import msgspec

from oneton.domain.acting import actor
from oneton.domain.audit import Act, Action
from oneton.domain.errors import NotFoundError
from oneton.domain.lists import EntryId, ListId, UserId
from oneton.domain.model import FaceId, TenantId
from oneton.domain.requests import RequestId
from oneton.domain.subjects import Subject, Thing, ThingKind, words_of
from oneton.records.audit import Audit
from oneton.records.face_expiries import FaceExpiries
from oneton.records.idempotency import Idempotency
from oneton.records.lists import Lists
from oneton.records.vendor_users import VendorUsers
from oneton.verbs.forget_merchant_user import ForgetMerchantUser
from oneton.verbs.forget_request import ForgetRequest
from oneton.verbs.purge import Purge


@dataclass(frozen=True)
class PurgeSubject:
    """Each thing goes before what led to it: after a crash the same call finds all that is left.

    The audit trail stays, and gets an event: it has ids only.
    """

    purge: Purge
    forget_request: ForgetRequest
    forget_merchant_user: ForgetMerchantUser
    lists: Lists
    users: VendorUsers
    expiries: FaceExpiries
    audit: Audit
    answers: Idempotency

    async def __call__(self, tenant: TenantId, subject: Subject) -> None:
        """Purge what was found; what is gone already is no error.

        Raises:
            StoreDownError: call again.
        """
        words = words_of(subject.things)
        # First, for after a crash there may be no thing left that leads to them.
        gone = await self.answers.forget(tenant, words) if words else 0
        for thing in reversed(subject.things):
            with suppress(NotFoundError):
                await self._remove(tenant, thing)
        if subject.things:
            # Of calls that ended meanwhile.
            gone += await self.answers.forget(tenant, words)
            counts = {
                str(kind): sum(each.kind is kind for each in subject.things) for kind in ThingKind
            }
            counts["kept answer"] = gone
            details = {kind: count for kind, count in counts.items() if count}
            act = Act(Action.PURGE_SUBJECT, subject.face_ids, details=details)
            await self.audit.note_act(tenant, act)

    async def _remove(self, tenant: TenantId, thing: Thing) -> None:
        match thing.kind:
            case ThingKind.FACE | ThingKind.DROPPED_FACE:
                face_id = FaceId(UUID(thing.thing_id))
                await self.purge(tenant, face_id)
                await self.expiries.remove(tenant, face_id)
            case ThingKind.REQUEST:
                saved = await self.forget_request.saved_requests.read(
                    tenant, RequestId(UUID(thing.thing_id))
                )
                # Its face is a thing of its own, whose turn comes.
                bare = msgspec.structs.replace(saved, face_id=None)
                said = {"why": "data subject"}
                await self.forget_request(tenant, bare, actor=actor().name, said=said)
            case ThingKind.LIST_ENTRY:
                assert thing.list_id is not None
                entry = EntryId(UUID(thing.thing_id))
                await self.lists.remove(tenant, ListId(thing.list_id), entry)
            case ThingKind.VENDOR_USER:
                await self.users.remove(tenant, UserId(UUID(thing.thing_id)))
            case ThingKind.MERCHANT_USER:
                await self.forget_merchant_user(tenant, thing.thing_id, actor=actor().name)
