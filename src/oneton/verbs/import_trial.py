"""Try an import: what would be added, refused, or is there; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from oneton.domain.model import Cosine, Embedding, GalleryId, TenantId
from oneton.verbs.enroll_batch import Embedded, EnrollBatch, Outcome
from oneton.verbs.import_lines import SAME_PERSON, Came, Line

FIRST_ROOM = 1024


class TryBatch:
    """Takes the place of enrolling; remembers who would have been added, 2 KiB each.

    Args:
        if_missing: as of the import that is tried.
    """

    def __init__(self, enroll: EnrollBatch, *, if_missing: bool) -> None:
        self._enroll = enroll
        self._if_missing = if_missing
        self._added: dict[tuple[GalleryId, int], _Added] = {}

    async def __call__(
        self, tenant: TenantId, gallery_id: GalleryId, batch: Sequence[Embedded]
    ) -> Sequence[Outcome | Line]:
        """Judge a batch as if those before it were in the gallery."""
        found, plan, model = await self._enroll.judge(
            tenant, gallery_id, batch, if_missing=self._if_missing
        )
        outcomes: dict[int, Outcome | Line] = dict(found)
        key = (gallery_id, model.number)
        added = self._added.setdefault(key, _Added(model.pack.dimension))
        for planned in plan:
            line = Line("", Came.ADDED)
            if self._if_missing and added.names:
                nearest = partial(added.nearest, planned.embedding)
                name, cosine = await self._enroll.cpu.run_upkeep(nearest)
                score = model.calibration.score(cosine)
                if score >= planned.threshold:
                    message = f"the same person as {name}, which would be added"
                    line = Line("", Came.EXISTS, None, score, SAME_PERSON, message)
            if line.outcome is Came.ADDED:
                added.add(planned.each.name, planned.embedding)
            outcomes[planned.place] = line
        return [outcomes[place] for place in range(len(batch))]


class _Added:
    """Embeddings by name, compared with all of them."""

    def __init__(self, dimension: int) -> None:
        self.names: list[str] = []
        self._rows: NDArray[np.float32] = np.empty((FIRST_ROOM, dimension), dtype=np.float32)

    def add(self, name: str, embedding: Embedding) -> None:
        if len(self.names) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[len(self.names)] = embedding
        self.names.append(name)

    def nearest(self, embedding: Embedding) -> tuple[str, Cosine]:
        cosines = self._rows[: len(self.names)] @ embedding
        best = int(np.argmax(cosines))
        return self.names[best], Cosine(float(cosines[best]))
