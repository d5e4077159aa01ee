"""Forget a saved call: delete it and what it enrolled, or keep the bare template."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import msgspec

from oneton.domain.errors import NotFoundError
from oneton.domain.model import FaceId, FaceNote, FaceSource, TenantId
from oneton.domain.requests import SavedRequest
from oneton.records.audit import Audit
from oneton.records.face_expiries import FaceExpiries
from oneton.records.faces import Faces
from oneton.verbs.erase import Erase
from oneton.verbs.purge import Purge
from oneton.verbs.saved_requests import SavedRequests


class FaceOutcome(StrEnum):
    """What became of the face that a call enrolled."""

    NONE = "it enrolled none, or it was gone"
    PURGED = "purged"
    RETAINED = "its template stays, without a picture"


class Forgotten(msgspec.Struct, frozen=True):
    """What became of a call's face.

    Attributes:
        template: the record that stays.
    """

    outcome: FaceOutcome
    template: FaceId | None = None


@dataclass(frozen=True)
class ForgetRequest:
    """The call's row goes last, so that after a crash the same call ends what was begun.

    Copies of its face in block and allow lists are records of their own, and stay.
    """

    saved_requests: SavedRequests
    faces: Faces
    erase: Erase
    purge: Purge
    expiries: FaceExpiries
    audit: Audit

    async def __call__(
        self,
        tenant: TenantId,
        request: SavedRequest,
        *,
        actor: str,
        said: Mapping[str, str | None],
        retain: bool = False,
        keep_template: timedelta | None = None,
    ) -> Forgotten:
        """Delete a saved call and its pictures.

        Args:
            actor: who does it, for the audit trail.
            said: why, for it too.
            retain: keep the template of its face, which goes on matching.
            keep_template: for so long; None is without end.

        Raises:
            NotFoundError: it was deleted meanwhile.
            StoreDownError: try again.
        """
        forgotten = Forgotten(FaceOutcome.NONE)
        if request.face_id is not None:
            with suppress(NotFoundError):
                if retain:
                    forgotten = await self._retain(tenant, request.face_id, request, keep_template)
                else:
                    await self.purge(tenant, request.face_id)
                    forgotten = Forgotten(FaceOutcome.PURGED)
        await self.saved_requests.delete(tenant, request.request_id)
        details = {**said, "request": request.request_id, "face": forgotten.outcome.name.lower()}
        await self.audit.note(tenant, actor, "delete request", details)
        return forgotten

    async def _retain(
        self,
        tenant: TenantId,
        face_id: FaceId,
        request: SavedRequest,
        keep: timedelta | None,
    ) -> Forgotten:
        note = FaceNote(external_id=request.external_id, source=FaceSource.RETAINED_TEMPLATE)
        await self.erase(tenant, face_id)
        await self.faces.change_note(tenant, face_id, note)
        if keep is not None:
            await self.expiries.set(tenant, face_id, keep)
        return Forgotten(FaceOutcome.RETAINED, face_id)
