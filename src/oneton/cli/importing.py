"""The work of `oneton import`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import anyio.to_thread
import msgspec

from oneton.cli.common import chosen_tenant
from oneton.cli.import_journal import Counts, ImportReport, Journal, Refused, Task
from oneton.cli.progress import progress_bar
from oneton.domain.errors import ConflictError
from oneton.domain.model import GalleryId, TenantId
from oneton.indexing import Indexes, make_enroll_batch, open_indexes
from oneton.parts import Parts, open_parts
from oneton.settings import Settings
from oneton.sources import Access, Item, Source
from oneton.sources.opening import open_source
from oneton.verbs.cpu import Cpu
from oneton.verbs.import_faces import ImportFaces, Wanted
from oneton.verbs.import_lines import IMPORTED, SAME_PERSON, Came, Line
from oneton.verbs.import_trial import TryBatch

GIVE_WAY = 10
"""As nice as the threads of a worker: a server on this machine answers first."""
WAITING = 10_000
TRIAL = ".trial"


class Asked(msgspec.Struct, frozen=True):
    """What the command was asked for."""

    source: str
    gallery: str
    tenant_name: str | None
    report: Path
    if_missing: bool = True
    rotate: bool = False
    first_of_folder: bool = False
    dry_run: bool = False
    fail_on_duplicate: bool = False
    limit: int | None = None
    rate: float | None = None
    restart: bool = False
    s3_endpoint: str | None = None
    s3_region: str | None = None
    s3_credentials: Path | None = None


class Outcome(msgspec.Struct, frozen=True):
    """Counts for people, and the whole for machines."""

    counts: Counts
    report: ImportReport


async def import_faces(settings: Settings, asked: Asked) -> Outcome:
    """Import what was not done yet, then write the report.

    Raises:
        SettingError: the source, or an option, is not what it should be.
        NotFoundError: no such tenant or gallery.
        ConflictError: a duplicate, where one is to end the import.
        OnetonError: what was done is kept, and the same command goes on from there.
    """
    access = _access(settings, asked)
    opening = open_source(asked.source, first_of_folder=asked.first_of_folder, access=access)
    with closing(opening) as source:
        total = await anyio.to_thread.run_sync(source.count)
        if asked.limit is not None:
            total = asked.limit if total is None else min(total, asked.limit)
        async with open_parts(settings) as parts, open_indexes(settings, parts) as indexes:
            owner = (await chosen_tenant(parts.tenants, asked.tenant_name)).tenant_id
            gallery = await parts.galleries.read(owner, GalleryId(asked.gallery))
            task = Task(
                _whole(asked.source), owner, gallery.gallery_no, asked.if_missing, asked.dry_run
            )
            report = asked.report
            if asked.dry_run:
                # A trial of this import does not end it, and cannot be taken up again.
                report = report.with_name(report.name + TRIAL)
            restart = asked.restart or asked.dry_run
            with closing(Journal(report, task, restart=restart)) as journal:
                work = _Work(settings, parts, indexes, asked, journal)
                await work.run(owner, source, total)
                journal.finish()
                return Outcome(journal.counts(), _report(journal))


def _whole(source: str) -> str:
    """The same from wherever the command is given."""
    whole = source if "://" in source else os.path.abspath(source)
    return os.fsencode(whole).decode(errors="backslashreplace")


def _access(settings: Settings, asked: Asked) -> Access | None:
    """The store that options name, or that of the settings."""
    if asked.s3_endpoint is not None:
        from oneton.sources.bucket import read_credentials

        user, secret = read_credentials(asked.s3_credentials, os.environ) or (None, None)
        return Access(asked.s3_endpoint, user, secret, asked.s3_region)
    if settings.s3_endpoint is None:
        return None
    return Access(
        settings.s3_endpoint, settings.s3_access_key, settings.s3_secret_key, settings.s3_region
    )


class _Work:
    def __init__(
        self, settings: Settings, parts: Parts, indexes: Indexes, asked: Asked, journal: Journal
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._indexes = indexes
        self._asked = asked
        self._journal = journal

    async def run(self, tenant: TenantId, source: Source, total: int | None) -> None:
        """Import every item that the journal does not have."""
        asked, threads = self._asked, self._settings.cpu_threads
        cpu = Cpu(threads, WAITING, name="import", nice=GIVE_WAY)
        enroll = make_enroll_batch(self._settings, self._parts, self._indexes, cpu)
        wanted = Wanted(
            max_bytes=self._settings.max_image_bytes,
            at_once=threads + 1,
            if_missing=asked.if_missing,
            rotate=asked.rotate,
            rate=asked.rate,
        )
        trial = TryBatch(enroll, if_missing=asked.if_missing) if asked.dry_run else None
        try:
            with progress_bar() as progress:
                bar = progress.add_task("importing", total=total, said="")
                refused = skipped = 0

                def new_items() -> Iterator[Item]:
                    nonlocal skipped
                    for item in islice(source.items(), asked.limit):
                        if not self._journal.has(item):
                            yield item
                            continue
                        skipped += 1

                async def done(lines: list[Line]) -> None:
                    nonlocal refused, skipped
                    await anyio.to_thread.run_sync(self._journal.append, lines)
                    refused += sum(line.outcome is Came.REFUSED for line in lines)
                    progress.update(bar, advance=len(lines) + skipped, said=f"{refused} refused")
                    skipped = 0
                    if asked.fail_on_duplicate:
                        _fail_on_duplicate(lines)

                await ImportFaces(enroll)(
                    tenant, GalleryId(asked.gallery), new_items(), wanted, done, enter=trial
                )
        finally:
            cpu.close()


def _fail_on_duplicate(lines: list[Line]) -> None:
    for line in lines:
        if line.outcome is Came.EXISTS and line.reason == SAME_PERSON:
            raise ConflictError(f"{line.file} is {line.face_id or line.message}: {line.score:.1f}")


def _report(journal: Journal) -> ImportReport:
    counts = journal.counts()
    refused, enrolled_as = [], {}
    for line in journal.lines():
        if line.outcome is Came.REFUSED:
            refused.append(Refused(line.file, line.reason, line.message))
        elif line.face_id is not None:
            enrolled_as[line.file] = line.face_id
    return ImportReport(
        enrolled=counts.of(Came.ADDED),
        already=counts.of(Came.EXISTS, IMPORTED),
        matched=counts.of(Came.EXISTS, SAME_PERSON),
        refused=sorted(refused, key=lambda each: each.file),
        enrolled_as=enrolled_as,
    )
