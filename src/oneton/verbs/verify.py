"""Verify: are these two pictures of one person?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from oneton.biometrics.calibration import match_level
from oneton.domain.model import Cosine, Verification
from oneton.verbs.analyse import Picture
from oneton.verbs.load_model import LoadModel


@dataclass(frozen=True)
class Verify:
    """Keeps nothing of either picture; compares under the pack that settings name."""

    load_model: LoadModel

    async def __call__(self, source: Picture, target: Picture) -> Verification:
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
        cosine = Cosine(float(np.clip(first.embedding @ second.embedding, -1, 1)))
        score = model.calibration.score(cosine)
        return Verification(
            score=score,
            match_level=match_level(score),
            cosine=cosine,
            source=first.faces,
            target=second.faces,
        )
