"""Examine deep: every subject whole, and each finding twice, for a live system changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from oneton.domain.errors import UnavailableError
from oneton.domain.examining import Examined

SETTLE_S = 2.0
TRIES = 3


class Examiner(Protocol):
    """Looks at one subject of all tenants, and changes nothing."""

    async def __call__(self) -> Examined:
        """Look once; what it finds may be changing just then."""
        ...


@dataclass(frozen=True)
class ExamineDeep:
    """What is found, and found again after a moment, is so.

    Args:
        advance: is told what is looked at.
    """

    examiners: Sequence[Examiner]
    advance: Callable[[str], None]

    async def __call__(self) -> list[Examined]:
        """Examine everything.

        Raises:
            UnavailableError: a part does not answer.
        """
        examined = []
        for each in self.examiners:
            self.advance(type(each).__name__)
            examined.append(await _patiently(each))
        if any(each.findings for each in examined):
            await asyncio.sleep(SETTLE_S)
        return [
            await self._confirmed(each, before) if before.findings else before
            for each, before in zip(self.examiners, examined, strict=True)
        ]

    async def _confirmed(self, examiner: Examiner, before: Examined) -> Examined:
        """The same once more, with only those findings that are in both."""
        self.advance(type(examiner).__name__)
        again = await _patiently(examiner)
        names = {each.name for each in before.findings}
        again.findings = [each for each in again.findings if each.name in names]
        return again


async def _patiently(examiner: Examiner) -> Examined:
    """A part that restarts meanwhile is no reason to begin from the start."""
    for _ in range(TRIES - 1):
        try:
            return await examiner()
        except UnavailableError:
            await asyncio.sleep(SETTLE_S)
    return await examiner()
