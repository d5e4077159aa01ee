"""Merchant liveness: sessions of frames, whose last one stands for the person."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec

from oneton.domain.errors import NotFoundError
from oneton.domain.merchants import LivenessSession, Refusal, checked_user_id
from oneton.domain.model import Score, TenantId
from oneton.records.liveness_sessions import LivenessSessions
from oneton.verbs.analyse import Picture
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.merchant_users import MerchantUsers
from oneton.verbs.verify import Verify

FIRST_FRAME_WITHIN = timedelta(minutes=3)
SESSION_LIFE = timedelta(minutes=10)
LIVE_FROM = 0.8
"""Confidence from which a frame passes; clients of like calls commonly ask as much."""


class Verdict(msgspec.Struct, frozen=True):
    """What a session came to.

    Attributes:
        confidence: that the last frame shows a living person, 0 to 1; None without a model.
        score: of the frame and the source; None where the frame did not pass.
    """

    live: bool
    match: bool
    confidence: float | None
    score: Score | None


@dataclass(frozen=True)
class MerchantLiveness:
    """The last frame counts: one that fails takes away one that passed.

    Args:
        has_model: frames are assessed; without a model they are taken for live.
    """

    sessions: LivenessSessions
    users: MerchantUsers
    keep_picture: KeepPicture
    verify: Verify
    has_model: bool
    clock: Callable[[], float] = time.time

    async def start(self, tenant: TenantId, user_id: str) -> UUID:
        """Open a session; it ends soon without a first frame.

        Raises:
            NotFoundError: the tenant has no such user.
        """
        now = self._now()
        session = LivenessSession(
            session_id=uuid4(),
            tenant_id=tenant,
            user_id=checked_user_id(user_id),
            frame_id=None,
            confidence=None,
            created_at=now,
            expires_at=now + FIRST_FRAME_WITHIN,
        )
        await self.sessions.add(session)
        return session.session_id

    async def read(self, tenant: TenantId, session_id: str) -> LivenessSession:
        """A session that is under way; NotFoundError when there is none of this id."""
        return await self.sessions.find(tenant, _checked(session_id), self._now())

    async def take_frame(
        self, session: LivenessSession, data: bytes, accepted: tuple[str, ...]
    ) -> tuple[bool, datetime]:
        """Assess a frame, and keep it when it passes, until the session ends.

        Returns:
            whether it passes, and when it came.

        Raises:
            ProbeError: it cannot be used, or has no face; nothing of it is kept.
            NotFoundError: the session ended meanwhile.
        """
        tenant, now = session.tenant_id, self._now()
        found = await self.verify.analyse(Picture(data, accepted=accepted, liveness=True))
        ends = session.created_at + SESSION_LIFE
        passes = not self.has_model or (found.liveness or 0.0) >= LIVE_FROM
        frame_id = None
        if passes:
            keep = max(ends - now, timedelta(0))
            kept = await self.keep_picture(tenant, data, found.content_type, keep=keep)
            frame_id = kept.picture_id
        try:
            replaced = await self.sessions.set_frame(
                tenant, session.session_id, now, (frame_id, found.liveness), ends
            )
        except BaseException:
            await self.keep_picture.erase(tenant, frame_id)
            raise
        await self.keep_picture.erase(tenant, replaced)
        return passes, now

    async def match(self, tenant: TenantId, user_id: str, session_id: str) -> Verdict | Refusal:
        """Compare the session's frame with the user's source; the session goes on.

        Raises:
            NotFoundError: there is no such user, or no such session of this user.
        """
        source_of = checked_user_id(user_id)
        await self.users.source_of(tenant, source_of)
        session = await self.read(tenant, session_id)
        if session.user_id != source_of:
            raise NotFoundError("session", session_id)
        return await self._judge(session)

    async def check(self, tenant: TenantId, session_id: str) -> Verdict | Refusal:
        """Liveness and comparison in one; a verdict ends the session and erases its frame.

        Raises:
            NotFoundError: there is no such session.
        """
        session = await self.read(tenant, session_id)
        if session.frame_id is None and session.confidence is not None:
            verdict: Verdict | Refusal = Verdict(
                live=False, match=False, confidence=session.confidence, score=None
            )
        else:
            verdict = await self._judge(session)
        if isinstance(verdict, Verdict):
            ended = await self.sessions.end(tenant, session.session_id, self._now())
            await self.keep_picture.erase(tenant, ended.frame_id)
        return verdict

    async def _judge(self, session: LivenessSession) -> Verdict | Refusal:
        if session.frame_id is None:
            return Refusal.FRAME_MISSING
        source_id = await self.users.source_of(session.tenant_id, session.user_id)
        if source_id is None:
            return Refusal.SOURCE_IMAGE_MISSING
        found = await self.users.compare(session.tenant_id, source_id, session.frame_id)
        if isinstance(found, Refusal):
            missing = Refusal.TARGET_IMAGE_MISSING
            return Refusal.FRAME_MISSING if found is missing else found
        verification, match = found
        return Verdict(
            live=True, match=match, confidence=session.confidence, score=verification.score
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)


def _checked(session_id: str) -> UUID:
    try:
        return UUID(session_id)
    except ValueError as error:
        raise NotFoundError("session", session_id) from error
