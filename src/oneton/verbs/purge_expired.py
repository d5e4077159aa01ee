"""Purge expired: face records that were to stay for a while only."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from oneton.domain.errors import NotFoundError
from oneton.records.audit import Audit
from oneton.records.face_expiries import FaceExpiries
from oneton.verbs.purge import Purge

AT_ONCE = 100


@dataclass(frozen=True)
class PurgeExpired:
    """Two processes at it do no harm: what is gone already is no error."""

    expiries: FaceExpiries
    purge: Purge
    audit: Audit

    async def __call__(self) -> int:
        """Purge all that is due; how many there were.

        Raises:
            StoreDownError: try again.
        """
        done = 0
        while due := await self.expiries.due(AT_ONCE):
            for tenant, face_id in due:
                with suppress(NotFoundError):
                    await self.purge(tenant, face_id)
                await self.expiries.remove(tenant, face_id)
                await self.audit.note(tenant, "retention", "purge expired", {"face": face_id})
            done += len(due)
        return done
