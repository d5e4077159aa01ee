"""Run face sessions: a photo first, then selfies until one matches, then a signed result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from oneton.domain.errors import NotFoundError, OnetonError, ProbeError
from oneton.domain.face_sessions import (
    IMAGE_LIFE,
    LIVE,
    SESSION_LIFE,
    ComparedSelfie,
    FaceSession,
    OneToN,
    SelfieOutcome,
    SelfieState,
    SelfieTerms,
    SessionId,
    SessionImage,
    utc_now,
)
from oneton.domain.model import DEFAULT_GALLERY, Analysis, Permission, TenantId
from oneton.domain.requests import PictureId
from oneton.records.face_sessions import FaceSessions
from oneton.verbs.analyse import Picture
from oneton.verbs.authenticate import Principal
from oneton.verbs.enroll import Enroll
from oneton.verbs.identify import Identify
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.sign_results import SignResults
from oneton.verbs.verify import Verify

Describe = Callable[[ComparedSelfie], Mapping[str, object]]
"""What a result says of a selfie, in the dialect's words."""


@dataclass(frozen=True)
class _Compared:
    analysis: Analysis
    match: bool
    match_level: int
    one_to_n: OneToN | None


@dataclass(frozen=True)
class RunFaceSessions:
    """A session of another tenant or key, or whose ten minutes are over, is unknown."""

    sessions: FaceSessions
    keep_picture: KeepPicture
    verify: Verify
    identify: Identify
    enroll: Enroll
    sign_results: SignResults
    clock: Callable[[], datetime] = utc_now

    async def create(self, principal: Principal, photo: Picture) -> SessionId:
        """Keep a photo, and wait for a selfie for ten minutes.

        Raises:
            ProbeError: the photo cannot be used; nothing is kept.
            UnavailableError: try again.
        """
        tenant = principal.tenant_id
        model = await self.verify.load_model(self.verify.load_model.own_no)
        analysis = await model.analyse(photo)
        kept = await self.keep_picture(tenant, photo.data, analysis.content_type, keep=SESSION_LIFE)
        now = self.clock()
        session = FaceSession(
            session_id=SessionId(uuid4()),
            tenant_id=tenant,
            key_id=principal.key_id,
            picture_id=kept.picture_id,
            attempts=0,
            max_attempts=None,
            result=None,
            expires_at=now + SESSION_LIFE,
        )
        await self.sessions.add(tenant, session, now)
        return session.session_id

    async def take_selfie(
        self,
        principal: Principal,
        session_id: SessionId,
        selfie: Picture,
        terms: SelfieTerms,
        describe: Describe,
    ) -> SelfieOutcome:
        """Compare a selfie with a session's photo; sign a result when that ends the session.

        Every comparison is an attempt; a selfie that cannot be used is none.

        Raises:
            ProbeError: the selfie cannot be used.
            ForbiddenError: `insert` without the permission.
            NotFoundError: there is no such session.
            UnavailableError: try again.
        """
        if terms.insert:
            principal.require(Permission.INSERT)
        session = await self.sessions.claim(
            principal.tenant_id, principal.key_id, session_id, terms.max_attempts, self.clock()
        )
        if session is None:
            return SelfieOutcome(SelfieState.OVER)
        try:
            return await self._answer(principal, session, selfie, terms, describe)
        except OnetonError:
            await self.sessions.give_back(principal.tenant_id, session_id)
            raise

    async def result(self, principal: Principal, name: UUID) -> str:
        """The signed result of a session.

        Args:
            name: the session's id, or the `jti` of its result.

        Raises:
            NotFoundError: there is no such session, or it has no result yet.
        """
        session = await self.sessions.find(
            principal.tenant_id, principal.key_id, name, self.clock()
        )
        if session.result is None:
            raise NotFoundError("result of session", name)
        return session.result

    async def image(self, principal: Principal, picture_id: PictureId) -> tuple[bytes, str]:
        """The selfie that a result names, for half an hour, and its content type.

        Raises:
            NotFoundError: there is none of this id.
        """
        tenant = principal.tenant_id
        image = await self.sessions.image(tenant, principal.key_id, picture_id, self.clock())
        return await self.keep_picture.show(tenant, image.picture_id)

    async def purge(self, principal: Principal, name: UUID) -> None:
        """Erase a session, its photo, its result and the result's selfie.

        Args:
            name: the session's id, or the `jti` of its result.

        Raises:
            NotFoundError: nothing of it is there.
        """
        tenant = principal.tenant_id
        gone = await self.sessions.remove(tenant, principal.key_id, name, self.clock())
        await self.keep_picture.erase(tenant, *gone)

    async def _answer(
        self,
        principal: Principal,
        session: FaceSession,
        selfie: Picture,
        terms: SelfieTerms,
        describe: Describe,
    ) -> SelfieOutcome:
        compared = await self._compare(principal, session, selfie, terms)
        level = compared.match_level
        if compared.match:
            result = await self._finish(session, selfie, compared, describe)
            state = SelfieState.OVER if result is None else SelfieState.MATCH
            return SelfieOutcome(state, level, 0, result)
        left = max(0, (session.max_attempts or terms.max_attempts) - session.attempts)
        result = None
        if left == 0 and terms.return_incomplete:
            result = await self._finish(session, selfie, compared, describe)
        return SelfieOutcome(SelfieState.MISMATCH, level, left, result)

    async def _compare(
        self, principal: Principal, session: FaceSession, selfie: Picture, terms: SelfieTerms
    ) -> _Compared:
        tenant = principal.tenant_id
        photo, content_type = await self.keep_picture.read(tenant, session.picture_id)
        found = await self.verify.outcomes(tenant, Picture(photo, accepted=(content_type,)), selfie)
        # The selfie's error first, for the caller can send another one.
        for each in (found.target, found.source):
            if isinstance(each, ProbeError):
                raise each
        assert found.verification is not None
        level, analysis = found.verification.match_level, found.verification.target
        is_live = analysis.liveness is None or analysis.liveness >= LIVE
        match = is_live and level >= terms.minimum_match_level
        one_to_n = None
        if match and terms.one_to_n and Permission.SEARCH in principal.permissions:
            one_to_n = await self._look_up(tenant, selfie, analysis, insert=terms.insert)
        return _Compared(analysis, match, level, one_to_n)

    async def _look_up(
        self, tenant: TenantId, selfie: Picture, analysis: Analysis, *, insert: bool
    ) -> OneToN:
        if insert:
            known = {self.verify.load_model.own_no: analysis}
            enrolment = await self.enroll(
                tenant, DEFAULT_GALLERY, selfie, if_missing=True, known=known
            )
            return OneToN(enrolment.face_id, not enrolment.added)
        found = await self.identify(tenant, DEFAULT_GALLERY, selfie, matches_only=True)
        return OneToN(found.candidates[0].face_id if found.match else None, found.match)

    async def _finish(
        self, session: FaceSession, selfie: Picture, compared: _Compared, describe: Describe
    ) -> str | None:
        """Keep the selfie and sign; None when another selfie has ended the session meanwhile."""
        tenant = session.tenant_id
        kept = await self.keep_picture(
            tenant, selfie.data, compared.analysis.content_type, keep=IMAGE_LIFE
        )
        now, jti = self.clock(), uuid4()
        image = SessionImage(
            picture_id=kept.picture_id,
            tenant_id=tenant,
            key_id=session.key_id,
            session_id=session.session_id,
            jti=jti,
            expires_at=now + IMAGE_LIFE,
        )
        told = ComparedSelfie(
            session_id=session.session_id,
            picture_id=kept.picture_id,
            sha256=hashlib.sha256(selfie.data).hexdigest(),
            match=compared.match,
            match_level=compared.match_level,
            one_to_n=compared.one_to_n,
        )
        result = await self.sign_results(str(session.key_id), jti, describe(told))
        done = await self.sessions.finish(image, result, now, matched=compared.match)
        if not done:
            await self.keep_picture.erase(tenant, kept.picture_id)
        return result if done else None
