"""Expire face sessions: erase those whose time is over, with their photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from oneton.domain.face_sessions import SessionId, utc_now
from oneton.domain.model import TenantId
from oneton.records.face_sessions import FaceSessions
from oneton.verbs.keep_picture import KeepPicture

BATCH = 500


@dataclass(frozen=True)
class ExpireFaceSessions:
    """Of all tenants; any number of processes may be at it at once.

    An expired session is unknown to its caller before it is erased here. A photo whose erasure
    fails after its session's row is gone is erased with the pictures whose time is over.
    """

    sessions: FaceSessions
    keep_picture: KeepPicture
    clock: Callable[[], datetime] = utc_now

    async def __call__(self) -> int:
        """Erase all that are due; returns how many.

        Raises:
            StoreDownError: try again.
        """
        now, erased = self.clock(), 0
        while due := await self.sessions.due(now, BATCH):
            by_tenant: dict[TenantId, list[SessionId]] = {}
            for tenant, session_id in due:
                by_tenant.setdefault(tenant, []).append(session_id)
            for tenant, session_ids in by_tenant.items():
                photos = await self.sessions.remove_due(tenant, session_ids, now)
                await self.keep_picture.erase(tenant, *photos)
                erased += len(photos)
        return erased
