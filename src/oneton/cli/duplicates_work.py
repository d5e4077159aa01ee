"""The work of `oneton duplicates`."""

from __future__ import annotations

from contextlib import aclosing, closing
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread
import msgspec

from oneton.biometrics.calibration import Calibration
from oneton.biometrics.packs import PackFiles
from oneton.cli import duplicates_journal as journals
from oneton.cli.common import chosen_tenant, stderr
from oneton.cli.duplicates_journal import PAGE, TABLE, Journal, State
from oneton.cli.duplicates_page import Summary, make_cards
from oneton.cli.duplicates_report import Photos, write_page, write_table
from oneton.cli.progress import progress_bar
from oneton.domain.errors import SettingError
from oneton.domain.model import FaceNo, Gallery, GalleryId, Score, Tenant
from oneton.indexing import Indexes, make_find_duplicates, open_indexes
from oneton.parts import Parts, open_parts
from oneton.records.duplicates import EnrolledFaces
from oneton.settings import Settings
from oneton.verbs.group_duplicates import Group, expected_false_pairs, group_duplicates
from oneton.verbs.judge import threshold_of

WORTH_SAYING = 100.0
"""Pairs of different people, expected, from which on the command says so at once."""


class Wanted(msgspec.Struct, frozen=True):
    """What the command was asked for."""

    gallery: str
    tenant_name: str | None
    score: float | None
    folder: Path
    groups_shown: int
    restart: bool


class DuplicatesReport(msgspec.Struct, frozen=True):
    """What a report came to.

    Attributes:
        faces: compared, each with every other, in this run and those before.
        searched: in this run.
        expected_false_pairs: of different people among so many faces, by the score's meaning.
    """

    tenant: str
    gallery: str
    model_pack: str
    score: Score
    faces: int
    searched: int
    pairs: int
    groups: int
    expected_false_pairs: float
    table: Path
    page: Path


async def report_duplicates(settings: Settings, wanted: Wanted) -> DuplicatesReport:
    """Find what is not known yet, then write the report.

    Raises:
        SettingError: the folder is not this report's, or cannot be written.
        NotFoundError: no such tenant or gallery.
        ConflictError: the gallery is of another model pack.
        UnavailableError: try again; what was found is kept.
    """
    async with open_parts(settings) as parts, open_indexes(settings, parts) as indexes:
        owner = await chosen_tenant(parts.tenants, wanted.tenant_name)
        gallery = await parts.galleries.read(owner.tenant_id, GalleryId(wanted.gallery))
        files, calibration = await indexes.packs(gallery.model_pack_no)
        counts = await parts.galleries.count(owner.tenant_id, gallery)
        usual = threshold_of(gallery, counts.faces, calibration)
        score = Score(round(usual if wanted.score is None else wanted.score, 4))
        cosine = calibration.cosine(score)
        task = journals.Task(
            owner.tenant_id,
            gallery.gallery_id,
            gallery.gallery_no,
            gallery.model_pack_no,
            score,
            cosine,
        )
        with closing(Journal(wanted.folder, task, restart=wanted.restart)) as journal:
            work = _Work(settings, parts, indexes, (files, calibration), owner, gallery, journal)
            searched = await work.search()
            return await work.write(searched, wanted.groups_shown)


class _Work:
    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        indexes: Indexes,
        model: tuple[PackFiles, Calibration],
        owner: Tenant,
        gallery: Gallery,
        journal: Journal,
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._indexes = indexes
        self._files, self._calibration = model
        self._owner = owner
        self._gallery = gallery
        self._journal = journal
        self._faces = EnrolledFaces(parts.database)

    async def search(self) -> int:
        """Find the pairs that the journal lacks; returns how many faces were searched with."""
        tenant, gallery, journal = self._owner.tenant_id, self._gallery, self._journal
        await self._check_past(journal.state)
        score, since = journal.state.task.score, journal.state.head
        self._warn(await self._faces.count(tenant, gallery, 0, gallery.head), score)
        total = await self._faces.count(tenant, gallery, since, gallery.head)
        find = await make_find_duplicates(self._parts, self._indexes, gallery)
        searched, pairs = 0, journal.settled()
        with progress_bar() as progress:
            task = progress.add_task("comparing", total=total, said=f"{pairs} pairs")
            batches = find(tenant, gallery.gallery_id, score, since=since)
            async with aclosing(batches) as found:
                async for batch in found:
                    await anyio.to_thread.run_sync(journal.append, batch)
                    searched += batch.probes
                    pairs += batch.settled
                    progress.update(task, advance=batch.probes, said=f"{pairs} pairs")
        return searched

    async def write(self, searched: int, groups_shown: int) -> DuplicatesReport:
        """Write the table, the photos and the page of everything that the journal has."""
        groups = await self._groups()
        state, folder = self._journal.state, self._journal.folder
        await anyio.to_thread.run_sync(write_table, folder, groups)
        every = await anyio.to_thread.run_sync(make_cards, groups)
        cards = every[:groups_shown]
        faces = {face.face_id: face for card in cards for face in card.shown.faces}
        photos = Photos(folder, self._parts.images, self._indexes.cpu, self._settings)
        with progress_bar() as progress:
            task = progress.add_task("photos", total=len(faces), said="")
            made = await photos.write(faces.values(), lambda: progress.advance(task))
        summary = Summary(
            tenant=self._owner.name,
            gallery=self._gallery.gallery_id,
            model_pack=self._files.pack.name,
            score=state.task.score,
            faces=await self._faces.count(self._owner.tenant_id, self._gallery, 0, state.head),
            pairs=sum(len(group.pairs) for group in groups),
            groups=len(groups),
            made_at=datetime.now(UTC),
        )
        left = len(every) - len(cards)
        await anyio.to_thread.run_sync(write_page, folder, summary, cards, left, made)
        return DuplicatesReport(
            tenant=summary.tenant,
            gallery=summary.gallery,
            model_pack=summary.model_pack,
            score=summary.score,
            faces=summary.faces,
            searched=searched,
            pairs=summary.pairs,
            groups=summary.groups,
            expected_false_pairs=expected_false_pairs(summary.faces, summary.score),
            table=folder / TABLE,
            page=folder / PAGE,
        )

    async def _groups(self) -> list[Group]:
        pairs = self._journal.pairs()
        face_nos = {FaceNo(each) for each in (*pairs.earlier.tolist(), *pairs.later.tolist())}
        faces = await self._faces.named(self._owner.tenant_id, self._gallery, face_nos)
        return await anyio.to_thread.run_sync(group_duplicates, pairs, faces, self._calibration)

    async def _check_past(self, state: State) -> None:
        """Raise SettingError where the gallery does not go on from what the journal saw."""
        another = state.head > self._gallery.head
        if state.last is not None:
            face_no, face_id = state.last
            names = await self._parts.faces.ids(self._owner.tenant_id, [face_no])
            another |= names.get(face_no, face_id) != face_id
        if another:
            raise SettingError(
                f"{self._journal.folder} knows faces that the gallery does not, as after a backup "
                "was restored: begin anew with --restart"
            )

    def _warn(self, faces: int, score: Score) -> None:
        expected = expected_false_pairs(faces, score)
        if expected >= WORTH_SAYING:
            stderr.print(
                f"{faces:,} faces: about {expected:,.0f} pairs of different people are expected to "
                f"reach score {score:g}; a higher --score finds fewer",
                soft_wrap=True,
            )
