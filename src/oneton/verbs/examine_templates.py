"""Examine templates: those that galleries ask for, each of unit length, and no others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from oneton.domain.errors import KeyDestroyedError, OnetonError, UnavailableError
from oneton.domain.examining import Examined, Finding, Kind
from oneton.domain.model import FaceNo, Gallery, SecondPack, TenantId
from oneton.records.examining import Examining
from oneton.records.faces import Faces, Stamp
from oneton.records.galleries import Galleries
from oneton.records.model_packs import ModelPacks
from oneton.records.tenants import Tenants

TOLERANCE = 0.01
"""Rounding to fp16 moves a length by a thousandth at most."""


@dataclass(frozen=True)
class ExamineTemplates:
    """Every template of every gallery, under each of its packs."""

    tenants: Tenants
    galleries: Galleries
    faces: Faces
    packs: ModelPacks
    examining: Examining

    async def __call__(self) -> Examined:
        """Look once."""
        examined = Examined("templates")
        for tenant in await self.tenants.list():
            for face_no, pack_no in await self.examining.leftover_templates(tenant.tenant_id):
                said = f"of face {face_no}, which is not there"
                examined.findings.append(
                    Finding(
                        Kind.TEMPLATE_LEFTOVER, said, str(face_no), tenant.tenant_id, None, pack_no
                    )
                )
            for gallery in await self.galleries.list(tenant.tenant_id):
                try:
                    await self._examine(tenant.tenant_id, gallery, examined)
                except KeyDestroyedError:
                    examined.count("galleries without a key")
        return examined

    async def _examine(self, tenant: TenantId, gallery: Gallery, examined: Examined) -> None:
        for pack_no, with_image in _demanded(gallery):
            for each in await self.examining.lacking(
                tenant, gallery, pack_no, with_image=with_image
            ):
                said = f"of pack {pack_no}" + (
                    "" if each.has_image else ", and no image to make it"
                )
                examined.findings.append(
                    Finding(
                        Kind.TEMPLATE_MISSING,
                        said,
                        str(each.face_id),
                        tenant,
                        gallery.gallery_id,
                        pack_no,
                    )
                )
        for pack_no in gallery.pack_nos:
            dimension = (await self.packs.named(pack_no)).dimension
            async for face_nos in self.examining.face_nos(tenant, gallery, pack_no):
                damaged = await self._damaged(tenant, gallery, pack_no, dimension, face_nos)
                examined.count("templates", len(face_nos))
                names = await self.examining.face_ids(tenant, list(damaged))
                examined.findings += [
                    Finding(
                        Kind.TEMPLATE_DAMAGED,
                        why,
                        str(names[face_no]),
                        tenant,
                        gallery.gallery_id,
                        pack_no,
                    )
                    for face_no, why in damaged.items()
                    if face_no in names
                ]

    async def _damaged(
        self,
        tenant: TenantId,
        gallery: Gallery,
        pack_no: int,
        dimension: int,
        face_nos: list[int],
    ) -> dict[int, str]:
        """What is wrong, by face number."""
        try:
            stamps = await self.faces.stamps(tenant, gallery, pack_no, face_nos)
        except (UnavailableError, KeyDestroyedError):
            raise
        except OnetonError as error:
            if len(face_nos) == 1:
                return {face_nos[0]: str(error)}
            half = len(face_nos) // 2
            found = await self._damaged(tenant, gallery, pack_no, dimension, face_nos[:half])
            return found | await self._damaged(tenant, gallery, pack_no, dimension, face_nos[half:])
        return await asyncio.to_thread(_check, stamps, dimension)


def _demanded(gallery: Gallery) -> list[tuple[int, bool]]:
    """The packs of which faces have to have a template, and whether only those with an image."""
    demanded = [(gallery.model_pack_no, False)]
    if gallery.second_pack_no is not None and gallery.second is SecondPack.KEPT:
        demanded.append((gallery.second_pack_no, False))
    if gallery.second_pack_no is not None and gallery.second is SecondPack.FILLED:
        demanded.append((gallery.second_pack_no, True))
    return demanded


def _check(stamps: dict[FaceNo, Stamp], dimension: int) -> dict[int, str]:
    damaged: dict[int, str] = {}
    whole: list[tuple[FaceNo, bytes]] = []
    for face_no, stamp in stamps.items():
        if stamp.template is None:
            continue
        if len(stamp.template) != 2 * dimension:
            damaged[face_no] = f"{len(stamp.template)} bytes, not {2 * dimension}"
        else:
            whole.append((face_no, stamp.template))
    if whole:
        rows = np.frombuffer(b"".join(each for _, each in whole), dtype="<f2")
        lengths = np.linalg.norm(rows.reshape(-1, dimension).astype(np.float32), axis=1)
        bad = ~(np.abs(lengths - 1) <= TOLERANCE)
        for place in np.flatnonzero(bad):
            damaged[whole[place][0]] = f"its length is {lengths[place]:.3g}, not 1"
    return damaged
