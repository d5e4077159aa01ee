"""Catch up: this process's index of a gallery, at the head that Postgres has now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

import msgspec
import structlog

from oneton.domain.errors import ConflictError, OnetonError
from oneton.domain.model import Gallery, GalleryId, ModelPack, TenantId
from oneton.domain.stages import stage
from oneton.index import GalleryIndex
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.verbs.cpu import Cpu

log = structlog.get_logger()


class Current(msgspec.Struct, frozen=True):
    """A gallery and an index of it that has reached the gallery's head, or passed it."""

    gallery: Gallery
    index: GalleryIndex


class _Loaded:
    def __init__(self, index: GalleryIndex) -> None:
        self.index = index
        self.lock = asyncio.Lock()


class CatchUp:
    """Holds the indexes that this process was asked about.

    Args:
        make_index: makes an empty index of a dimension.
        pack: the model pack this process embeds with, and its number in Postgres.
    """

    def __init__(
        self,
        galleries: Galleries,
        faces: Faces,
        cpu: Cpu,
        make_index: Callable[[int], GalleryIndex],
        pack: tuple[int, ModelPack],
    ) -> None:
        self._galleries = galleries
        self._faces = faces
        self._cpu = cpu
        self._make_index = make_index
        self._pack_no, self._pack = pack
        self._loaded: dict[tuple[int, int], _Loaded] = {}
        self._following: dict[tuple[TenantId, GalleryId], asyncio.Task[None]] = {}

    async def __call__(self, tenant: TenantId, gallery_id: GalleryId) -> Current:
        """Read the head, and bring the index there.

        Raises:
            NotFoundError: the tenant has no such gallery.
            ConflictError: the gallery was made by another model pack.
        """
        with stage("head"):
            gallery = await self._galleries.read(tenant, gallery_id)
        if gallery.model_pack_no != self._pack_no:
            raise ConflictError(
                f"gallery {gallery_id} was made by another model pack than {self._pack.name}"
            )
        key = (gallery.gallery_no, gallery.model_pack_no)
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._loaded[key] = _Loaded(self._make_index(self._pack.dimension))
        if loaded.index.head < gallery.head:
            with stage("catch_up"):
                await self._bring(loaded, gallery)
        return Current(gallery, loaded.index)

    async def _bring(self, loaded: _Loaded, gallery: Gallery) -> None:
        index = loaded.index
        async with loaded.lock:
            if index.head >= gallery.head:
                return
            found = self._faces.changes(
                gallery.tenant_id, gallery, index.head, self._pack.dimension
            )
            async with aclosing(found) as chunks:
                async for changes in chunks:
                    await self._cpu.run_upkeep(partial(index.catch_up, changes))

    def forget(self, gallery: Gallery) -> None:
        """Drop the index of a gallery; the next question loads it from Postgres."""
        self._loaded.pop((gallery.gallery_no, gallery.model_pack_no), None)

    def hear(self, tenant: TenantId, gallery_id: GalleryId) -> None:
        """Catch up ahead of the next question, when this gallery is held at all."""
        key = (tenant, gallery_id)
        if key in self._following or not self._loaded:
            return
        task = asyncio.create_task(self._follow(tenant, gallery_id))
        self._following[key] = task
        task.add_done_callback(lambda _task: self._following.pop(key, None))

    async def close(self) -> None:
        """End what `hear` began; nothing may be heard any more."""
        following = list(self._following.values())
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)

    async def _follow(self, tenant: TenantId, gallery_id: GalleryId) -> None:
        try:
            gallery = await self._galleries.read(tenant, gallery_id)
            loaded = self._loaded.get((gallery.gallery_no, gallery.model_pack_no))
            if loaded is not None and loaded.index.head < gallery.head:
                await self._bring(loaded, gallery)
        except OnetonError as error:
            log.warning("following a gallery failed", error=str(error))
