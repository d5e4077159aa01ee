"""Verify: are these two pictures of one person?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
import numpy as np

from oneton.biometrics.calibration import match_level
from oneton.domain.audit import Act, Action
from oneton.domain.errors import ProbeError
from oneton.domain.model import Analysis, Cosine, TenantId, Verification
from oneton.records.trail import Trail
from oneton.verbs.analyse import Picture
from oneton.verbs.load_model import LoadModel, Model


class Comparison(msgspec.Struct, frozen=True):
    """What came of each picture, and of both when both can be used.

    Attributes:
        source: its analysis, or why it cannot be used; so is `target`.
    """

    source: Analysis | ProbeError
    target: Analysis | ProbeError
    verification: Verification | None


@dataclass(frozen=True)
class Verify:
    """Keeps nothing of either picture; compares under the pack that settings name."""

    load_model: LoadModel
    trail: Trail

    async def __call__(self, tenant: TenantId, source: Picture, target: Picture) -> Verification:
        """Score the largest faces of two pictures.

        Raises:
            ProbeError: one of them cannot be used.
            UnavailableError: try again.
        """
        model = await self.load_model(self.load_model.own_no)
        both = [asyncio.create_task(model.analyse(picture)) for picture in (source, target)]
        try:
            first, second = await asyncio.gather(*both)
        finally:
            for task in both:
                task.cancel()
        self.trail.note(tenant, _MATCHED)
        return _verification(model, first, second)

    async def analyse(self, picture: Picture) -> Analysis:
        """What one picture holds, under the same pack.

        Raises:
            ProbeError: it cannot be used.
            UnavailableError: try again.
        """
        model = await self.load_model(self.load_model.own_no)
        return await model.analyse(picture)

    async def outcomes(self, tenant: TenantId, source: Picture, target: Picture) -> Comparison:
        """The same, and with a picture that cannot be used say which it is.

        Raises:
            UnavailableError: try again.
        """
        model = await self.load_model(self.load_model.own_no)
        found = await asyncio.gather(
            model.analyse(source), model.analyse(target), return_exceptions=True
        )
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, ProbeError):
                raise each
        first, second = found
        assert isinstance(first, Analysis | ProbeError)
        assert isinstance(second, Analysis | ProbeError)
        if isinstance(first, ProbeError) or isinstance(second, ProbeError):
            return Comparison(first, second, None)
        self.trail.note(tenant, _MATCHED)
        return Comparison(first, second, _verification(model, first, second))


_MATCHED = Act(Action.MATCH)


def _verification(model: Model, source: Analysis, target: Analysis) -> Verification:
    cosine = Cosine(float(np.clip(source.embedding @ target.embedding, -1, 1)))
    score = model.calibration.score(cosine)
    return Verification(
        score=score, match_level=match_level(score), cosine=cosine, source=source, target=target
    )
