"""Export subject: what is kept of one person, as a zip for machines and for people."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from mimetypes import guess_extension
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread
import msgspec

from oneton.domain.audit import Act, Action
from oneton.domain.errors import NotFoundError, SettingError
from oneton.domain.model import TenantId
from oneton.domain.subjects import HeldImage, Subject, Thing
from oneton.images import ImageStore
from oneton.records.audit import Audit

LEFT_OUT = (
    "Not in here: templates, which are numbers derived from the images, and what saved calls "
    "answered, for that may show other persons. Keys of the audit trail are those of the "
    "organisation's systems."
)


class Exported(msgspec.Struct, frozen=True):
    """What a file has.

    Attributes:
        missing: images whose object is not in the store.
    """

    things: int
    images: int
    missing: tuple[str, ...]


class _Shown(msgspec.Struct, frozen=True):
    """A thing as the file has it; images are paths in the zip."""

    kind: str
    id: str
    found_by: str
    facts: msgspec.Raw
    images: tuple[str, ...]


@dataclass(frozen=True)
class ExportSubject:
    """Of other persons nothing is in the file."""

    images: ImageStore
    audit: Audit

    async def __call__(self, tenant: TenantId, subject: Subject, output: Path) -> Exported:
        """Write the file, readable by its owner only; it is whole or not there.

        Raises:
            SettingError: the file cannot be written.
            StoreDownError: try again.
        """
        beside = output.with_name(f".{output.name}.{os.getpid()}.part")
        try:
            with (
                _private(beside) as file,
                zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped,
            ):
                shown, missing = await self._images(zipped, subject)
                events = [msgspec.structs.replace(each, tenant_id=None) for each in subject.events]
                document = {
                    "made_at": datetime.now(UTC),
                    "left_out": LEFT_OUT,
                    "things": shown,
                    "audit": events,
                }
                raw = msgspec.json.format(msgspec.json.encode(document), indent=2)
                zipped.writestr("subject.json", raw)
                zipped.writestr("index.html", _page(shown, subject))
            os.replace(beside, output)
        except OSError as error:
            raise SettingError(f"{output}: {error.strerror}") from error
        finally:
            beside.unlink(missing_ok=True)
        count = sum(len(each.images) for each in shown)
        details = {"things": len(shown), "images": count}
        await self.audit.note_act(
            tenant, Act(Action.EXPORT_SUBJECT, subject.face_ids, details=details)
        )
        return Exported(len(shown), count, tuple(missing))

    async def _images(
        self, zipped: zipfile.ZipFile, subject: Subject
    ) -> tuple[list[_Shown], list[str]]:
        shown, missing = [], []
        for thing in subject.things:
            names = []
            for number, image in enumerate(thing.images, start=1):
                name = _image_name(thing, image, number)
                try:
                    data, _ = await self.images.get(image.key)
                except NotFoundError:
                    missing.append(image.key)
                    continue
                await anyio.to_thread.run_sync(zipped.writestr, name, data)
                names.append(name)
            shown.append(
                _Shown(thing.kind, thing.thing_id, thing.found_by, thing.facts, tuple(names))
            )
        return shown, missing


def _image_name(thing: Thing, image: HeldImage, number: int) -> str:
    kind = thing.kind.replace(" ", "_")
    extension = guess_extension(image.content_type) or ""
    return f"images/{kind}_{thing.thing_id}_{number}_{_plain(image.name)}{extension}"


def _plain(name: str) -> str:
    return "".join(each if each.isalnum() or each in "-_" else "_" for each in name)


def _private(path: Path) -> BinaryIO:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(handle, "wb")


def _page(shown: list[_Shown], subject: Subject) -> str:
    """Plain HTML without scripts or anything from elsewhere."""
    parts = [_HEAD, f"<p>{escape(LEFT_OUT)}</p>"]
    for each in shown:
        facts = msgspec.json.decode(each.facts)
        parts.append(f"<h2>{escape(each.kind.capitalize())}</h2><table>")
        rows = {"id": each.id, "found by": each.found_by, **facts}
        parts += [_row(name.replace("_", " "), value) for name, value in rows.items()]
        parts.append("</table>")
        parts += [f'<img src="{escape(name)}" alt="{escape(name)}">' for name in each.images]
    parts.append("<h2>What was done with the face records</h2><table>")
    for event in subject.events:
        said = f"{event.action}, by {event.actor}"
        parts.append(_row(f"{event.at:%Y-%m-%d %H:%M:%S} UTC", said))
    parts.append("</table></body></html>")
    return "\n".join(parts)


def _row(name: str, value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    shown = "" if value is None else text
    return f"<tr><th>{escape(name)}</th><td>{escape(shown)}</td></tr>"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What is kept of you</title>
<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
th{text-align:left;vertical-align:top;padding-right:1rem;font-weight:600;white-space:nowrap}
td{word-break:break-word}img{max-width:16rem;margin:.5rem .5rem .5rem 0}</style></head><body>
<h1>What is kept of you</h1>"""
