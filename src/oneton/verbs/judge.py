"""Judge: from which score on is it a match?"""

from __future__ import annotations

from oneton.biometrics.calibration import Calibration
from oneton.domain.model import Gallery, Score


def threshold_of(gallery: Gallery, faces: int, calibration: Calibration) -> Score:
    """The least score that counts as a match in a gallery of so many faces.

    With a target the false match rate is that target shared among the faces: a search compares
    with each of them. Source: ISO/IEC 19795-1, FPIR of an exhaustive search.
    """
    if gallery.target_fpir is None:
        return gallery.threshold
    return calibration.score(calibration.cosine_at(gallery.target_fpir / max(1, faces)))
