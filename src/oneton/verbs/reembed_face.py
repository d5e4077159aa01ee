"""Re-embed a face: a record whose template is lost or damaged gets new ones of its image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import msgspec

from oneton.biometrics.analyse import Analyser
from oneton.domain.errors import NoFaceError, ProbeError
from oneton.domain.model import Embedding, FaceId, Gallery, SecondPack, TenantId
from oneton.images import ImageStore
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.verbs.cpu import Cpu
from oneton.verbs.load_model import LoadModel


@dataclass(frozen=True)
class ReembedFace:
    """The row is removed and added again under the same id, so that every index hears of it."""

    galleries: Galleries
    faces: Faces
    images: ImageStore
    load_model: LoadModel
    cpu: Cpu

    async def __call__(self, tenant: TenantId, face_id: FaceId) -> str:
        """Why it cannot be done; empty when it is.

        Raises:
            NotFoundError: the record or its image is gone.
            ProbeError: the image yields no face.
            ConflictError: this machine lacks the model pack.
        """
        face = await self.faces.find(tenant, face_id)
        if not face.has_image:
            return "its image was erased"
        gallery = await self.galleries.read(tenant, face.gallery_id)
        data, _ = await self.images.get(face.image_key)
        embeddings = await self._embed(gallery, data)
        async with self.faces.locked(tenant, gallery) as locked:
            if locked.gallery.pack_nos != gallery.pack_nos:
                return "its gallery changed its model packs meanwhile; run it again"
            if locked.gallery.second is SecondPack.FILLED and any(
                each is None for each in embeddings.values()
            ):
                return "its gallery is changing its model pack"
            row = await locked.connection.fetchrow(
                """select face_no, idempotency_key from face
                   where face_id = $1 and image_erased_at is null for update""",
                face_id,
            )
            if row is None or row["face_no"] != face.face_no:
                return "it changed meanwhile; run it again"
            await locked.purge(face_id)
            locked.gallery = msgspec.structs.replace(locked.gallery, head=locked.gallery.head + 1)
            await locked.add(
                face_id,
                embeddings,
                content_type=face.content_type,
                idempotency_key=row["idempotency_key"],
                note=face.note,
            )
            await locked.connection.execute(
                "update face set created_at = $2 where face_id = $1", face_id, face.created_at
            )
        return ""

    async def _embed(self, gallery: Gallery, data: bytes) -> dict[int, Embedding | None]:
        found: dict[int, Embedding | None] = {}
        for pack_no in gallery.pack_nos:
            model = await self.load_model(pack_no)
            work = partial(_embedding, model.analyse.analyser, data)
            try:
                found[pack_no] = await self.cpu.run_upkeep(work)
            except ProbeError:
                if pack_no == gallery.model_pack_no:
                    raise
                found[pack_no] = None
        return found


def _embedding(analyser: Analyser, data: bytes) -> Embedding:
    try:
        return analyser.analyse(data).embedding
    except NoFaceError:
        # It may have been enrolled lying on its side.
        return analyser.analyse(data, rotate=True).embedding
