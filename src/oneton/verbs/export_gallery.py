"""Export a gallery: its images and what goes with them, as it was at one head."""

from __future__ import annotations

import asyncio
import csv
import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO
from uuid import UUID

import anyio.to_thread
import msgspec
import numpy as np

from oneton.domain.acting import actor
from oneton.domain.errors import NotFoundError, SettingError
from oneton.domain.model import FaceId, Gallery, GalleryId, ModelPack, TenantId, image_key
from oneton.images import ImageStore
from oneton.records.audit import Audit
from oneton.records.duplicates import EnrolledFaces
from oneton.records.exports import Exports, Listed
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.model_packs import ModelPacks
from oneton.verbs.export_files import Sink, open_sink

AT_ONCE = 8
"""Images that are in memory."""
TEMPLATES = 2000
_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/tiff": ".tif"}


class Row(msgspec.Struct, frozen=True):
    """A face of an export, as its tables have it.

    Attributes:
        file: None where the image was erased, or is gone.
        sha256: of the file, in hexadecimal.
    """

    file: str | None
    external_id: str | None
    metadata: msgspec.Raw | None
    face_id: FaceId = msgspec.field(name="oneToNVerificationId")
    created_at: datetime
    source: str | None
    has_image: bool
    content_type: str
    sha256: str | None


class Exported(msgspec.Struct, frozen=True):
    """What an export holds; `export.json` of it.

    Attributes:
        head: of the gallery: every face is listed that was there at it, and none that came after.
        missing: images that the object store does not have, as of faces purged since.
        templates: how many, under `model_pack`; None where none were asked for.
    """

    gallery: GalleryId
    head: int
    faces: int
    images: int
    erased: int
    missing: int
    exported_at: datetime
    model_pack: ModelPack
    templates: int | None = None
    format: int = 1


@dataclass(frozen=True)
class ExportGallery:
    """Memory does not grow with the gallery; nothing has the export's name until it is whole."""

    exports: Exports
    galleries: Galleries
    faces: Faces
    enrolled: EnrolledFaces
    model_packs: ModelPacks
    images: ImageStore
    audit: Audit

    async def __call__(
        self,
        tenant: TenantId,
        gallery_id: GalleryId,
        out: Path,
        *,
        templates: bool = False,
        begun: Callable[[int], None] = lambda _: None,
        done: Callable[[int], None] = lambda _: None,
    ) -> Exported:
        """Write a folder, or a zip by its name.

        Args:
            begun: told how many faces there are.
            done: told of so many more that are written.

        Raises:
            NotFoundError: the tenant has no such gallery.
            SettingError: `out` is there already, or cannot be written.
            UnavailableError: a part does not answer; nothing is left.
        """
        gallery = await self.galleries.read(tenant, gallery_id)
        pack = await self.model_packs.named(gallery.model_pack_no)
        sink = await anyio.to_thread.run_sync(open_sink, out)
        try:
            work = _Work(self, tenant, gallery, sink, sink.work, begun, done)
            exported = await work.write(pack, templates=templates)
            details = {"gallery": gallery_id, "head": exported.head, "faces": exported.faces}
            details["templates"] = exported.templates or 0
            # First, so that there is no export that nothing was noted of.
            await self.audit.note(tenant, actor().name, "export gallery", details)
            await anyio.to_thread.run_sync(sink.finish)
        except OSError as error:
            raise SettingError(f"--out {out}: {error.strerror or error}") from error
        finally:
            await anyio.to_thread.run_sync(sink.abandon)
        return exported


@dataclass
class _Work:
    verb: ExportGallery
    tenant: TenantId
    gallery: Gallery
    sink: Sink
    folder: Path
    begun: Callable[[int], None]
    done: Callable[[int], None]
    images: int = 0
    erased: int = 0
    missing: int = 0

    async def write(self, pack: ModelPack, *, templates: bool) -> Exported:
        head, faces = await self._list()
        self.begun(faces)
        await self._write_images()
        count = await self._write_templates(pack, head) if templates else None
        exported = Exported(
            gallery=self.gallery.gallery_id,
            head=head,
            faces=faces,
            images=self.images,
            erased=self.erased,
            missing=self.missing,
            exported_at=datetime.now(UTC),
            model_pack=pack,
            templates=count,
        )
        about = msgspec.json.format(msgspec.json.encode(exported), indent=2) + b"\n"
        await anyio.to_thread.run_sync(self.sink.add, "export.json", about)
        return exported

    async def _list(self) -> tuple[int, int]:
        """Put the listing on the disk, fast; the head and the number of faces."""
        head = faces = 0
        lines: list[bytes] = []
        listing = self.verb.exports.listing(self.tenant, self.gallery.gallery_id)
        with self._path("listing").open("wb") as file:
            async with aclosing(listing) as rows:  # type: ignore[type-var]
                async for at_head, listed in rows:
                    head = at_head
                    if listed is not None:
                        faces += 1
                        lines.append(msgspec.json.encode(listed) + b"\n")
                    if len(lines) >= TEMPLATES:
                        await anyio.to_thread.run_sync(file.writelines, lines)
                        lines = []
            await anyio.to_thread.run_sync(file.writelines, lines)
        return head, faces

    async def _write_images(self) -> None:
        with (
            self._path("listing").open("rb") as listing,
            self._path("faces.jsonl").open("wb") as lines,
            self._path("manifest.csv").open("w", newline="", encoding="utf-8") as table,
        ):
            names = [each.encode_name for each in msgspec.structs.fields(Row)]
            writer = csv.writer(table)
            writer.writerow(names)
            while chunk := await anyio.to_thread.run_sync(_read, listing, AT_ONCE):
                found = await asyncio.gather(*(self._image(each) for each in chunk))
                rows = await anyio.to_thread.run_sync(self._add, chunk, found)
                for row in rows:
                    lines.write(msgspec.json.encode(row) + b"\n")
                    writer.writerow(_cells(row))
                self.done(len(rows))
        for name in ("manifest.csv", "faces.jsonl"):
            await anyio.to_thread.run_sync(self.sink.add_file, name, self._path(name))

    async def _image(self, listed: Listed) -> bytes | None:
        if not listed.has_image:
            return None
        key = image_key(self.tenant, self.gallery.gallery_id, listed.face_id)
        try:
            return (await self.verb.images.get(key))[0]
        except NotFoundError:
            return None

    def _add(self, chunk: Sequence[Listed], found: Sequence[bytes | None]) -> list[Row]:
        rows = []
        for listed, data in zip(chunk, found, strict=True):
            name = digest = None
            if data is not None:
                name = f"images/{listed.face_id}{_SUFFIXES.get(listed.content_type, '.img')}"
                digest = hashlib.sha256(data).hexdigest()
                self.sink.add(name, data)
                self.images += 1
            self.erased += not listed.has_image
            self.missing += listed.has_image and data is None
            text = listed.metadata
            rows.append(
                Row(
                    file=name,
                    external_id=listed.external_id,
                    metadata=None if text is None else msgspec.Raw(text.encode()),
                    face_id=listed.face_id,
                    created_at=listed.created_at,
                    source=listed.source,
                    has_image=data is not None,
                    content_type=listed.content_type,
                    sha256=digest,
                )
            )
        return rows

    async def _write_templates(self, pack: ModelPack, head: int) -> int:
        """`templates.npy`, (N, D) fp16, and the ids of its rows, without those purged since."""
        gallery = msgspec.structs.replace(self.gallery, head=head)
        count = since = 0
        with (
            self._path("rows").open("w+b") as rows,
            self._path("templates.txt").open("w", encoding="utf-8") as names,
        ):
            while since < head:
                found = await self.verb.enrolled.after(
                    self.tenant, gallery, since, pack.dimension, TEMPLATES
                )
                ids = await self.verb.faces.ids(self.tenant, found.face_nos)
                there = [no in ids for no in found.face_nos.tolist()]
                kept = found.embeddings[np.array(there, dtype=bool)].astype("<f2")
                await anyio.to_thread.run_sync(rows.write, kept.tobytes())
                names.writelines(f"{ids[no]}\n" for no in found.face_nos.tolist() if no in ids)
                count, since = count + len(kept), found.head
            shape = (count, pack.dimension)
            await anyio.to_thread.run_sync(partial(self._whole, rows, shape))
        for name in ("templates.npy", "templates.txt"):
            await anyio.to_thread.run_sync(self.sink.add_file, name, self._path(name))
        return count

    def _whole(self, rows: IO[bytes], shape: tuple[int, int]) -> None:
        """An array file has its shape first, which is known last."""
        rows.seek(0)
        with self._path("templates.npy").open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            while block := rows.read(1 << 20):
                file.write(block)

    def _path(self, name: str) -> Path:
        return self.folder / name


def _cells(row: Row) -> list[str]:
    """As the CSV has them: JSON where it is no text, and nothing for null."""
    cells = []
    for name in Row.__struct_fields__:
        value = getattr(row, name)
        text = bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
        plain = isinstance(value, str | UUID | datetime)
        cells.append(
            "" if value is None else str(msgspec.json.decode(text)) if plain else text.decode()
        )
    return cells


def _read(listing: IO[bytes], count: int) -> list[Listed]:
    return [msgspec.json.decode(line, type=Listed) for line in islice(listing, count)]
