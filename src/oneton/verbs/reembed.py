"""Re-embed: some stored images under another model pack, at a bounded share of the CPU."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from oneton.biometrics.analyse import Analyser
from oneton.domain.errors import NoFaceError, NotFoundError, ProbeError
from oneton.domain.model import Embedding, FaceNo, image_key
from oneton.domain.reindexing import RunState, ToEmbed, Work
from oneton.images import ImageStore
from oneton.records.reindexing import Reindexing
from oneton.verbs.cpu import Cpu
from oneton.verbs.load_model import LoadModel

log = structlog.get_logger()

KIND = "reembed"
MISSING = "its image is not in the store"


class Chunk(msgspec.Struct, frozen=True):
    """What a job is: faces of one gallery in one run."""

    run_id: str
    gallery_no: int
    face_nos: list[int]


@dataclass(frozen=True)
class Reembed:
    """One chunk after another; a chunk that is done twice changes nothing the second time.

    Args:
        cpu: threads that give way to whatever answers.
    """

    reindexing: Reindexing
    images: ImageStore
    load_model: LoadModel
    cpu: Cpu

    async def __call__(self, payload: bytes) -> None:
        """Embed the faces of a chunk that still need it, and keep what comes of it."""
        chunk = msgspec.json.decode(payload, type=Chunk)
        for work in await self.reindexing.works():
            if (str(work.run_id), work.gallery_no) == (chunk.run_id, chunk.gallery_no):
                if work.run_state is RunState.RUNNING:
                    await self._do(work, [FaceNo(each) for each in chunk.face_nos])
                return

    async def _do(self, work: Work, face_nos: list[FaceNo]) -> None:
        wanted = await self.reindexing.still_to_embed(work, face_nos)
        model = await self.load_model(work.to_pack_no)
        found = await asyncio.gather(
            *(self._embed(work, each, model.analyse.analyser) for each in wanted)
        )
        embeddings = {no: each for no, each in found if not isinstance(each, str)}
        failures = {no: each for no, each in found if isinstance(each, str)}
        await self.reindexing.store(work, embeddings, failures)
        for no, why in failures.items():
            log.warning("an image was not re-embedded", face_no=no, why=why)

    async def _embed(
        self, work: Work, each: ToEmbed, analyser: Analyser
    ) -> tuple[FaceNo, Embedding | str]:
        """The new embedding, or why there is none."""
        key = image_key(work.tenant_id, work.gallery_id, each.face_id)
        try:
            data, _ = await self.images.get(key)
        except NotFoundError:
            return each.face_no, MISSING
        try:
            return each.face_no, await self.cpu.run_upkeep(
                partial(_embed_slowly, analyser, data, work.rate)
            )
        except ProbeError as error:
            return each.face_no, str(error)


def _embed_found(analyser: Analyser, data: bytes) -> Embedding:
    try:
        return analyser.analyse(data).embedding
    except NoFaceError:
        # It may have been enrolled lying on its side.
        return analyser.analyse(data, rotate=True).embedding


def _embed_slowly(analyser: Analyser, data: bytes, rate: int) -> Embedding:
    """Embed, then rest for as long as the rate asks: by CPU time, not by waiting for a core."""
    started_s = time.thread_time()
    try:
        return _embed_found(analyser, data)
    finally:
        if rate < 100:
            time.sleep((time.thread_time() - started_s) * (100 - rate) / rate)
