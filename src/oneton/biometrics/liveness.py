"""Liveness: is a living person in front of the camera? A model of it plugs in here."""

from __future__ import annotations

import importlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oneton.domain.errors import SettingError


class Liveness(Protocol):
    """A presentation attack detector that looks at one picture."""

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        box: tuple[float, float, float, float],
        landmarks: NDArray[np.float32],
    ) -> float:
        """How sure it is that the face is a living person's, 0 to 1.

        Args:
            pixels: (height, width, 3), blue-green-red.
            box: (left, top, right, bottom) in pixels.
            landmarks: (5, 2) pixels: eyes, nose, mouth corners.
        """
        ...


def load_liveness(name: str) -> Liveness:
    """Make the model of `module:factory`; the factory takes no arguments.

    Raises:
        SettingError: there is none of this name, or it cannot be made.
    """
    module, _, factory = name.partition(":")
    try:
        made: Liveness = getattr(importlib.import_module(module), factory)()
    except Exception as error:
        raise SettingError(f"ONETON_LIVENESS={name}: {error}") from error
    if not callable(made):
        raise SettingError(f"ONETON_LIVENESS={name}: it makes nothing that can be called")
    return made
