"""Answer once: whoever repeats an idempotency key, on any replica, gets the first answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from oneton.domain.model import TenantId
from oneton.records.idempotency import Answer, Idempotency

__all__ = ["Answer", "AnswerOnce"]


@dataclass(frozen=True)
class AnswerOnce:
    """Of any number of concurrent calls with one key, one is carried out; the rest wait for it."""

    idempotency: Idempotency

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
                it is after an answer of 500 and above.

        Raises:
            ConflictError: the key was used for another call.
            UnavailableError: another call with it is still under way.
        """
        earlier = await self.idempotency.claim(tenant, key, fingerprint)
        if earlier is not None:
            return earlier
        try:
            answer = await work()
        except BaseException:
            await self.idempotency.release(tenant, key)
            raise
        if answer.status >= 500:
            await self.idempotency.release(tenant, key)
        else:
            await self.idempotency.keep(tenant, key, answer)
        return answer
