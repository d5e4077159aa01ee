"""Repair findings: what is safe to do, each step of it noted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from oneton.domain.acting import actor
from oneton.domain.errors import NotFoundError, OnetonError, UnavailableError
from oneton.domain.examining import REPAIRS, Finding, Kind, Repair
from oneton.domain.model import FaceId, TenantId
from oneton.domain.requests import PICTURES, PictureId
from oneton.images import ObjectStore
from oneton.index.inspection import find_snapshots
from oneton.index.snapshot import SET_ASIDE
from oneton.records.audit import Audit
from oneton.records.examining import Examining
from oneton.records.faces import Faces
from oneton.records.requests import Pictures
from oneton.verbs.examine_snapshots import set_aside
from oneton.verbs.reembed_face import ReembedFace
from oneton.verbs.sweep import Sweep

SWEEP_AT_MOST = 1000
"""Leftovers; of more than these and a tenth of all objects, rather the rows are lost."""
LOST_AT_MOST = 10
"""Images; of more than these and a tenth of all rows, rather the store is the wrong one."""


@dataclass(frozen=True)
class RepairFindings:
    """Never changes what an answer rests on, except by embedding an image again.

    Args:
        folder: of this machine's snapshots.
        accept_lost: rows whose image is lost are marked as erased.
        lost_at_most: so many are believed in any case.
    """

    faces: Faces
    pictures: Pictures
    examining: Examining
    images: ObjectStore
    sweep: Sweep
    audit: Audit
    grace: timedelta
    folder: Path
    reembed: ReembedFace
    accept_lost: bool
    lost_at_most: int = LOST_AT_MOST

    async def __call__(self, findings: Sequence[Finding], rows: int = 0) -> list[Repair]:
        """Do what can be done; a finding that nothing is done about says why.

        Args:
            rows: that name an image, of which some are lost.
        """
        doubt = self._doubt(findings, rows)
        swept = doubt or await self._sweep(findings)
        repairs = []
        done: set[tuple[object, ...]] = set()
        for each in findings:
            # One image makes the templates of all packs.
            once = (each.tenant, each.subject)
            if each.kind in _BY_IMAGE and once in done:
                repairs.append(Repair(each, True, "embedded again"))
                continue
            repair = await self._repair(each, swept, doubt)
            if repair.done:
                await self._note(repair)
                if each.kind in _BY_IMAGE:
                    done.add(once)
            repairs.append(repair)
        return repairs

    def _doubt(self, findings: Sequence[Finding], rows: int) -> str:
        """Why nothing is believed that the object store says; empty when it is."""
        lost = sum(each.kind in _LOST for each in findings)
        if lost <= max(LOST_AT_MOST, rows // 10, self.lost_at_most):
            return ""
        return (
            f"{lost} of {rows} images are missing: is it the right object store? "
            f"with --accept-lost-images, --lost-at-most {lost} believes it"
        )

    async def _repair(self, finding: Finding, swept: str, doubt: str) -> Repair:
        try:
            if finding.kind is Kind.LEFTOVER_OBJECT:
                return Repair(finding, not swept, swept or "deleted")
            if finding.kind in _BY_IMAGE:
                why = await self.reembed(_tenant(finding), FaceId(UUID(finding.subject)))
                return Repair(finding, not why, why or "embedded again")
            if finding.kind in _LOST and self.accept_lost:
                return Repair(finding, False, doubt) if doubt else await self._mark_lost(finding)
            done = await self._clear(finding)
        except UnavailableError:
            raise
        except OnetonError as error:
            return Repair(finding, False, str(error))
        return Repair(finding, done is not None, done or REPAIRS[finding.kind])

    async def _clear(self, finding: Finding) -> str | None:
        """Do away with what is of no use; None when it is not that."""
        match finding.kind:
            case Kind.TEMPLATE_LEFTOVER:
                count = await self.examining.delete_leftover_template(
                    _tenant(finding), int(finding.subject)
                )
                return f"deleted {count}"
            case Kind.SNAPSHOT_DAMAGED | Kind.INDEX | Kind.SEARCH:
                count = await asyncio.to_thread(self._set_aside, finding)
                return f"set {count} snapshots aside" if count else None
            case Kind.COPY_INCOMPLETE:
                await self.images.delete_file(finding.subject)
                return "deleted"
            case Kind.CLAIMS_LEFT:
                count = await self.examining.clear_dead_claims(_tenant(finding))
                return f"cleared {count}"
        return None

    async def _sweep(self, findings: Sequence[Finding]) -> str:
        """Delete leftovers, all at once; why not, or nothing."""
        if not any(each.kind is Kind.LEFTOVER_OBJECT for each in findings):
            return ""
        report = await self.sweep(self.grace, at_most=SWEEP_AT_MOST)
        if report.deleted < len(report.leftovers):
            return "too many to delete unasked; oneton sweep does"
        return ""

    async def _mark_lost(self, finding: Finding) -> Repair:
        try:
            data, _ = await self.images.get(finding.subject)
        except NotFoundError:
            data = b""
        if data:
            return Repair(finding, False, "it is there again")
        tenant, (_, gallery, name) = _tenant(finding), finding.subject.split("/")
        if gallery == PICTURES:
            await self.pictures.remove(tenant, [PictureId(UUID(name))])
        else:
            await self.faces.erase_image(tenant, FaceId(UUID(name)))
        await self.images.delete(finding.subject)
        return Repair(finding, True, "marked as erased")

    def _set_aside(self, finding: Finding) -> int:
        if finding.kind is Kind.SNAPSHOT_DAMAGED:
            return set_aside([Path(finding.subject)], SET_ASIDE)
        paths = [
            each.path
            for each in find_snapshots(self.folder)
            if not each.set_aside
            and (each.tenant_id, each.gallery_id) == (str(finding.tenant), finding.gallery)
        ]
        return set_aside(paths, SET_ASIDE)

    async def _note(self, repair: Repair) -> None:
        finding = repair.finding
        details = {
            "finding": str(finding.kind),
            "subject": finding.subject,
            "gallery": finding.gallery,
            "done": repair.said,
        }
        tenant = None if finding.tenant is None else TenantId(finding.tenant)
        await self.audit.note(tenant, actor().name, "repaired", details)


_BY_IMAGE = (Kind.TEMPLATE_MISSING, Kind.TEMPLATE_DAMAGED)
_LOST = (Kind.IMAGE_MISSING, Kind.IMAGE_EMPTY)


def _tenant(finding: Finding) -> TenantId:
    assert finding.tenant is not None
    return TenantId(finding.tenant)
