"""Analyse: a picture's faces and the embedding of its largest, within the CPU budget."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.decode import ALL_TYPES
from oneton.domain.model import Analysis
from oneton.verbs.cpu import Cpu


@dataclass(frozen=True)
class Picture:
    """What a caller sent, and how it wants it read.

    Attributes:
        accepted: the content types that the caller's dialect allows.
        rotate: look for upright faces at every right angle.
        attributes: estimate age and gender.
    """

    data: bytes
    accepted: tuple[str, ...] = ALL_TYPES
    rotate: bool = False
    attributes: bool = False


@dataclass(frozen=True)
class Analyse:
    """Errors are those of `biometrics.analyse` and BusyError."""

    analyser: Analyser
    cpu: Cpu

    async def __call__(self, picture: Picture) -> Analysis:
        return await self.cpu.run(
            partial(
                self.analyser.analyse,
                picture.data,
                accepted=picture.accepted,
                rotate=picture.rotate,
                attributes=picture.attributes,
            )
        )
