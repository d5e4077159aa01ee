"""The shelf: copies of snapshots in the object store.

Below `<tenant>/<gallery>/<pack>/` lie the files that a snapshot's folder has, under the same names.
A manifest goes last, so what has none is no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from oneton.domain.model import StoredObject
from oneton.images import SnapshotCopies
from oneton.index import copies
from oneton.index.manifest import Identity, KeptGallery, Manifest
from oneton.index.store import IndexStore, relative_folder
from oneton.verbs.cpu import Cpu

T = TypeVar("T")


class Found(msgspec.Struct, frozen=True):
    """What the shelf has of a gallery under one model pack.

    Attributes:
        files: by name within the gallery's folder.
        manifests: names, the one that came last first. Not by head, for heads go back when Postgres
            is restored from a backup.
    """

    files: dict[str, StoredObject]
    manifests: list[str]

    def lacking(self, sizes: dict[str, int]) -> dict[str, int]:
        """Those of these files, in bytes by name, that are not there or not whole."""
        return {
            name: size
            for name, size in sizes.items()
            if name not in self.files or self.files[name].size_bytes != size
        }


@dataclass(frozen=True)
class Shelf:
    """Copies there and snapshots here, file by file.

    Every method that asks the object store raises StoreDownError when that does not answer.

    Args:
        threads: for work on files.
    """

    images: SnapshotCopies
    store: IndexStore
    threads: Cpu

    def folder(self, identity: Identity) -> Path | None:
        """Where this process has the gallery's snapshots; None when it keeps none."""
        root = self.store.folder
        return None if root is None else root / relative_folder(identity)

    async def off(self, work: Callable[[], T]) -> T:
        """Work on files in a thread."""
        return await self.threads.run_upkeep(work)

    async def look(self, identity: Identity) -> Found:
        """List what there is."""
        folder = copies.copy_folder(identity) + "/"
        listed = await self.images.list_files(folder.rstrip("/"))
        files = {each.key.removeprefix(folder): each for each in listed}
        manifests = [name for name in files if copies.head_of(name) >= 0]
        manifests.sort(key=lambda name: (files[name].modified_at, name), reverse=True)
        return Found(files, manifests)

    async def put(self, identity: Identity, folder: Path, name: str) -> None:
        """Send a file of `folder`."""
        await self.images.put_file(f"{copies.copy_folder(identity)}/{name}", folder / name)

    async def get(self, identity: Identity, folder: Path, name: str) -> None:
        """Fetch a file into `folder`.

        Raises:
            NotFoundError: there is none.
        """
        await self.images.get_file(f"{copies.copy_folder(identity)}/{name}", folder / name)

    async def read(self, identity: Identity, folder: Path, name: str) -> Manifest:
        """Fetch a manifest into `folder`, and read it.

        Raises:
            NotFoundError: there is none.
            SnapshotError: it cannot be used.
        """
        await self.get(identity, folder, name)
        return await self.off(partial(copies.read_copied, folder / name, identity))

    async def delete(self, identity: Identity, names: Iterable[str]) -> None:
        """Remove files, whether they are there or not."""
        for name in names:
            await self.images.delete_file(f"{copies.copy_folder(identity)}/{name}")


async def delete_copies(images: SnapshotCopies, gallery: KeptGallery) -> None:
    """Remove all copies of a gallery that is no more.

    Raises:
        StoreDownError: the object store does not answer.
    """
    of_name = f"{gallery.tenant_id}/{gallery.gallery_id}"
    keys = [each.key for each in await images.list_files(of_name)]
    ours = [key for key in keys if key.startswith(f"{of_name}/{gallery.gallery_no}-")]
    # The manifests first: what has none is no copy.
    for key in sorted(ours, key=lambda key: copies.head_of(key.rpartition("/")[2]) < 0):
        await images.delete_file(key)
