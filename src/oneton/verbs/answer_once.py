"""Answer once: whoever repeats an idempotency key, on any replica, gets the first answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog

from oneton.domain.audit import Act, Action
from oneton.domain.errors import UnavailableError
from oneton.domain.model import TenantId
from oneton.records.idempotency import Answer, Idempotency
from oneton.records.trail import Trail

__all__ = ["Answer", "AnswerOnce"]

log = structlog.get_logger()

TOO_MANY = 429
RENEW_S = 4.0
"""So often the others are told that the first call is still at it."""


@dataclass(frozen=True)
class AnswerOnce:
    """Of any number of concurrent calls with one key, one is carried out; the rest wait for it."""

    idempotency: Idempotency
    trail: Trail

    async def __call__(
        self,
        tenant: TenantId,
        key: str,
        fingerprint: bytes,
        work: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        """The answer of the first call with this key.

        Args:
            fingerprint: of the call; a key is good for one.
            work: carries the call out; what it raises is no answer, and the key is free again, as
                it is after an answer of 429, or of 500 and above.

        Raises:
            ConflictError: the key was used for another call.
            UnavailableError: another call with it is still under way.
        """
        owner = uuid4()
        earlier = await self.idempotency.claim(tenant, key, fingerprint, owner)
        if earlier is not None:
            return earlier
        renewing = asyncio.create_task(self._renew(tenant, key, owner))
        try:
            answer = await work()
        except BaseException:
            await self.idempotency.release(tenant, key, owner)
            raise
        finally:
            renewing.cancel()
        if answer.status >= 500 or answer.status == TOO_MANY:
            await self.idempotency.release(tenant, key, owner)
        else:
            await self.idempotency.keep(tenant, key, owner, answer)
        return answer

    def note_repeat(self, tenant: TenantId, call: str, status: int) -> None:
        """Note that whoever acts gets an answer once more; of what call the first event says.

        Args:
            call: its name in the API.

        Raises:
            UnavailableError: too many events wait for Postgres.
        """
        details = {"call": call, "status": status}
        self.trail.note(tenant, Act(Action.REPEAT_ANSWER, details=details))

    async def _renew(self, tenant: TenantId, key: str, owner: UUID) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self.idempotency.renew(tenant, key, owner)
            except UnavailableError as error:
                log.info("an idempotency key was not renewed", why=str(error))
