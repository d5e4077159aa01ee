"""Find duplicates: every pair of faces of one gallery that scores high enough (N:N)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from oneton.biometrics.calibration import Calibration
from oneton.domain.errors import ConflictError, IndexLoadingError, SnapshotError
from oneton.domain.model import Cosine, FaceId, FaceNo, Gallery, GalleryId, Score, TenantId
from oneton.index import GalleryIndex
from oneton.records.duplicates import Enrolled, EnrolledFaces
from oneton.verbs.catch_up import CatchUp, Current
from oneton.verbs.cpu import Cpu

MARGIN = 1e-4
"""In cosine: what is this little below the limit is looked at again, as a score."""
CELLS = 4_000_000
"""Candidates that one computation may ask the index for at once: 48 MB."""
WIDER = 4
ROUNDS = 24
"""Enough for any gallery, four times as many candidates each."""
TRIES = 3


class Pairs(msgspec.Struct, frozen=True):
    """Pairs of faces of one gallery.

    Attributes:
        earlier: (P,) int64, the face_no of the face that was enrolled first.
        later: (P,) int64, of the other.
        cosines: (P,) float32.
    """

    earlier: NDArray[np.int64]
    later: NDArray[np.int64]
    cosines: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.earlier)

    def once(self) -> Pairs:
        """Each pair once, with the best cosine that it was found with; by later, then earlier."""
        order = np.lexsort((-self.cosines, self.earlier, self.later))
        earlier, later = self.earlier[order], self.later[order]
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = (np.diff(later) != 0) | (np.diff(earlier) != 0)
        return Pairs(earlier[first], later[first], self.cosines[order][first])


class Batch(msgspec.Struct, frozen=True):
    """What searching with some faces that follow each other came to.

    Attributes:
        head: every pair whose later face was added up to here is known now.
        probes: faces that were searched with.
        last: face_no and public name of the last of them; None when there was none.
        pairs: of the probes and any face of the gallery, each once; a pair of two batches is in
            both, as a rule.
    """

    head: int
    probes: int
    last: tuple[FaceNo, FaceId] | None
    pairs: Pairs

    @property
    def settled(self) -> int:
        """How many of the pairs no later batch will bring again."""
        return 0 if self.last is None else int((self.pairs.later <= self.last[0]).sum())


@dataclass(frozen=True)
class FindDuplicates:
    """Searches a gallery with each of its own faces.

    When a face has been the probe, its pairs with every face before it are known, and stay so: the
    work can go on from there at any later time. Both faces of a pair look for each other, so that
    an index that misses one of the two loses nothing.

    Attributes:
        dimension: of the model pack's embeddings.
        batch: probes between two heads at which the work can be taken up again.
        part: probes of one computation; a batch is several, which run at once.
        first_k: candidates that a probe is given before it is known to need more.
    """

    catch_up: CatchUp
    cpu: Cpu
    faces: EnrolledFaces
    calibration: Calibration
    dimension: int
    batch: int = 512
    part: int = 64
    first_k: int = 16

    async def __call__(
        self, tenant: TenantId, gallery_id: GalleryId, least: Score, *, since: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """The pairs of `least` or more whose later face was added after head `since`.

        Goes to the head that the gallery has at the start; a gallery that loads is waited for.

        Raises:
            NotFoundError: the tenant has no such gallery.
            ConflictError: the gallery is of another model pack, or becomes so meanwhile.
            UnavailableError: try again, from the last batch's head.
        """
        first = (await self._current(tenant, gallery_id)).gallery
        while since < first.head:
            batch = await self._next(tenant, first, least, since)
            yield batch
            since = batch.head

    async def _next(self, tenant: TenantId, first: Gallery, least: Score, since: int) -> Batch:
        for _ in range(TRIES):
            current = await self._current(tenant, first.gallery_id)
            known = (current.gallery.gallery_no, current.gallery.model_pack_no)
            if known != (first.gallery_no, first.model_pack_no):
                raise ConflictError(f"gallery {first.gallery_id} was made anew meanwhile")
            # The index has reached a head that no probe was added after.
            probes = await self.faces.after(tenant, first, since, self.dimension, self.batch)
            try:
                pairs, unseen = await self._search(current, probes, least)
            except SnapshotError:
                # Said by the index, which is of no more use; the next one is loaded anew.
                continue
            # A face that does not find itself was purged a moment ago; or the index lacks it, and
            # who knows which others.
            if not await self.faces.named(tenant, first, unseen):
                last = (FaceNo(probes.face_nos[-1].item()), probes.last) if probes.last else None
                return Batch(probes.head, len(probes.face_nos), last, pairs)
            self.catch_up.forget(current, "it lacks a face that Postgres has")
        raise IndexLoadingError(
            f"the index of gallery {first.gallery_id} is damaged or lacks enrolled faces"
        )

    async def _current(self, tenant: TenantId, gallery_id: GalleryId) -> Current:
        while True:
            try:
                return await self.catch_up(tenant, gallery_id)
            except IndexLoadingError as error:
                await asyncio.sleep(error.retry_after_s)

    async def _search(
        self, current: Current, probes: Enrolled, least: Score
    ) -> tuple[Pairs, set[FaceNo]]:
        assert (np.diff(probes.face_nos) > 0).all(), "faces are numbered as they are enrolled"
        about = self.calibration.cosine(least) - MARGIN
        works = [
            partial(
                search_pairs,
                current.index,
                probes.face_nos[start : start + self.part],
                probes.embeddings[start : start + self.part],
                about,
                self.first_k,
            )
            for start in range(0, len(probes.face_nos), self.part)
        ]
        found = await asyncio.gather(*(self.cpu.run_upkeep(work) for work in works))
        pairs = _joined([pairs for pairs, _ in found]).once()
        scores = (self.calibration.score(Cosine(each)) for each in pairs.cosines.tolist())
        kept = np.fromiter((score >= least for score in scores), dtype=bool, count=len(pairs))
        unseen = {FaceNo(face_no) for _, missing in found for face_no in missing.tolist()}
        return Pairs(pairs.earlier[kept], pairs.later[kept], pairs.cosines[kept]), unseen


def search_pairs(
    index: GalleryIndex,
    face_nos: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    least: float,
    k: int,
) -> tuple[Pairs, NDArray[np.int64]]:
    """Find, for each of a gallery's own faces, every other face that is alike enough.

    A probe whose last candidate still reaches `least` is searched with again for more of them,
    until it does not or there are no others.

    Args:
        face_nos: (Q,) of the probes.
        embeddings: (Q, D), row for row.
        least: cosine from which on a pair counts.
        k: candidates asked for at first.

    Returns:
        pairs: in no order; twice, where both faces are probes.
        unseen: probes that the index did not rank at all.
    """
    found: list[Pairs] = []
    unseen: list[NDArray[np.int64]] = []
    waiting = np.arange(len(face_nos))
    for _ in range(ROUNDS):
        again: list[NDArray[np.int64]] = []
        step = max(1, CELLS // k)
        for start in range(0, len(waiting), step):
            rows = waiting[start : start + step]
            cosines, candidates = index.search(embeddings[rows], k)
            more = _has_more(cosines, candidates, len(index), least)
            again.append(rows[more])
            probe_nos = face_nos[rows][:, np.newaxis]
            unseen.append(face_nos[rows][~more & ~(candidates == probe_nos).any(axis=1)])
            others = (candidates >= 0) & (candidates != probe_nos) & (cosines >= least)
            which, where = np.nonzero(others & ~more[:, np.newaxis])
            one, other = probe_nos[which, 0], candidates[which, where]
            found.append(
                Pairs(np.minimum(one, other), np.maximum(one, other), cosines[which, where])
            )
        waiting = np.concatenate(again)
        if not len(waiting):
            break
        k = min(WIDER * k, len(index) + 1)
    assert not len(waiting), "an index gives as many faces as it is asked for"
    return _joined(found), np.concatenate(unseen)


def _has_more(
    cosines: NDArray[np.float32], face_nos: NDArray[np.int64], size: int, least: float
) -> NDArray[np.bool_]:
    """(Q,) whether a row's last candidate reaches `least` though it is not the gallery's last."""
    ranked = (face_nos >= 0).sum(axis=1)
    lasts = cosines[np.arange(len(cosines)), np.maximum(ranked, 1) - 1]
    return np.asarray((lasts >= least) & (ranked < size))


def _joined(parts: list[Pairs]) -> Pairs:
    empty = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    parts = [empty, *parts]
    return Pairs(
        np.concatenate([part.earlier for part in parts]),
        np.concatenate([part.later for part in parts]),
        np.concatenate([part.cosines for part in parts]),
    )
