"""Reindex: plan, start, pause, resume, cancel, roll back and follow runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from oneton.domain.errors import ConflictError, OnetonError
from oneton.domain.model import FaceId, Gallery, GalleryId, ModelPack, Tenant
from oneton.domain.reindexing import GalleryState, NewRun, OnFailure, Plan, RunState, Work
from oneton.records.galleries import Galleries
from oneton.records.model_packs import ModelPacks
from oneton.records.reindexing import Reindexing
from oneton.records.tenants import Tenants
from oneton.verbs.load_model import FindPack

LISTED = 10_000
_ROW_BYTES = 60
"""Of a template in Postgres beside the template itself."""
_CODE_BYTES = 16
"""Of a face in an index beside its codes."""


class GalleryPlan(msgspec.Struct, frozen=True):
    """What a run would do to one gallery.

    Attributes:
        refused: why it cannot be in the run; empty when it can.
        disk_bytes: of the new templates, in Postgres and in a snapshot.
        memory_bytes: of the new index beside the old one.
    """

    tenant: str
    gallery: GalleryId
    from_pack: str
    plan: Plan
    refused: str
    disk_bytes: int
    memory_bytes: int


class RunPlan(msgspec.Struct, frozen=True):
    """What a run would do.

    Attributes:
        images_per_s: measured here, on all threads.
        took_s: for all images at that rate.
    """

    to_pack: str
    galleries: tuple[GalleryPlan, ...]
    images_per_s: float
    took_s: float

    @property
    def to_embed(self) -> int:
        """Images of galleries that can be in the run."""
        return sum(each.plan.to_embed for each in self.galleries if not each.refused)


class GalleryReport(msgspec.Struct, frozen=True):
    """One gallery of a run, with what an operator has to look at.

    Attributes:
        failures: records whose image yielded no face, and why.
        drops: records that the cut-over removed; known until the old pack is let go.
    """

    work: Work
    failures: tuple[tuple[FaceId, str], ...]
    drops: tuple[FaceId, ...]


Chosen = tuple[Tenant, Gallery]


@dataclass(frozen=True)
class Reindex:
    """What operators do with runs."""

    tenants: Tenants
    galleries: Galleries
    packs: ModelPacks
    reindexing: Reindexing
    find_pack: FindPack

    async def choose(self, tenant: str | None, gallery: str | None) -> list[Chosen]:
        """The galleries of all tenants, of one, or the one of a name."""
        found: list[Chosen] = []
        for each in await self.tenants.list():
            if tenant in (None, each.name):
                found += [
                    (each, one)
                    for one in await self.galleries.list(each.tenant_id)
                    if gallery in (None, one.gallery_id)
                ]
        return found

    async def plan(self, to_pack_no: int, chosen: Sequence[Chosen], images_per_s: float) -> RunPlan:
        """Count what there is to do; nothing changes."""
        files, _ = await self.find_pack(to_pack_no)
        plans = [await self._plan_one(files.pack, to_pack_no, each) for each in chosen]
        made = RunPlan(files.pack.name, tuple(plans), images_per_s, 0.0)
        return msgspec.structs.replace(made, took_s=made.to_embed / images_per_s)

    async def _plan_one(self, pack: ModelPack, to_pack_no: int, chosen: Chosen) -> GalleryPlan:
        tenant, gallery = chosen
        plan = await self.reindexing.plan(gallery, to_pack_no)
        refused = ""
        if gallery.model_pack_no == to_pack_no:
            refused = "has this pack already"
        elif gallery.second_pack_no is not None:
            refused = "is in a run already"
        codes = pack.dimension // 4 + _CODE_BYTES
        staying = plan.to_embed + plan.done
        return GalleryPlan(
            tenant=tenant.name,
            gallery=gallery.gallery_id,
            from_pack=(await self.packs.named(gallery.model_pack_no)).name,
            plan=plan,
            refused=refused,
            disk_bytes=plan.to_embed * (4 * pack.dimension + _ROW_BYTES + codes),
            memory_bytes=staying * codes,
        )

    async def start(
        self,
        to_pack_no: int,
        chosen: Sequence[Chosen],
        *,
        rate: int,
        on_failure: OnFailure,
        keep_old: timedelta,
        actor: str,
    ) -> UUID:
        """Begin a run with every gallery that can be in it.

        Raises:
            ConflictError: no gallery can.
        """
        files, _ = await self.find_pack(to_pack_no)
        possible = [
            each
            for each in chosen
            if each[1].model_pack_no != to_pack_no and each[1].second_pack_no is None
        ]
        if not possible:
            raise ConflictError(
                f"there is nothing to re-embed under {files.pack.name}: see reindex plan"
            )
        run = NewRun(UUID(str(uuid7())), to_pack_no, rate, on_failure, keep_old, actor)
        await self.reindexing.insert_run(run)
        counts: dict[str, Plan] = {}
        for tenant, gallery in possible:
            try:
                plan = await self.reindexing.steps.begin(gallery, run)
            except OnetonError as error:
                if not counts and len(possible) == 1:
                    await self.reindexing.set_run(run.run_id, RunState.CANCELLED)
                    raise
                await self._note(actor, "refused", run.run_id, {gallery.gallery_id: str(error)})
            else:
                counts[f"{tenant.name}/{gallery.gallery_id}"] = plan
        await self._note(
            actor,
            "start",
            run.run_id,
            {"to": files.pack.name, "rate": rate, "galleries": msgspec.to_builtins(counts)},
        )
        return run.run_id

    async def status(self, run_id: UUID | None) -> list[Work]:
        """The galleries of a run; of the newest when none is named.

        Raises:
            NotFoundError: there is no such run.
        """
        return await self.reindexing.works(await self.reindexing.run_of(run_id))

    async def report(self, work: Work) -> GalleryReport:
        """A gallery of a run with its failures and removed records, the first ten thousand."""
        return GalleryReport(
            work,
            tuple(await self.reindexing.failures(work, LISTED)),
            tuple(await self.reindexing.drops(work, LISTED)),
        )

    async def pause(self, run_id: UUID | None, actor: str) -> UUID:
        """Let no more be done; what is at work is finished."""
        return await self._set(run_id, RunState.RUNNING, RunState.PAUSED, actor)

    async def resume(
        self, run_id: UUID | None, actor: str, on_failure: OnFailure | None = None
    ) -> UUID:
        """Go on with a run that was paused, and with galleries that were stopped.

        Args:
            on_failure: from now on; None leaves it.
        """
        found = await self.reindexing.run_of(run_id)
        works = await self.reindexing.works(found)
        stopped = [each for each in works if each.state is GalleryState.STOPPED]
        if works and works[0].run_state is RunState.PAUSED:
            await self.reindexing.set_run(found, RunState.RUNNING)
        elif not stopped:
            raise ConflictError(f"run {found} is neither paused nor stopped")
        for work in stopped:
            await self.reindexing.steps.go_on(work, on_failure)
        await self._note(actor, "resume", found, {})
        return found

    async def cancel(self, run_id: UUID | None, actor: str) -> UUID:
        """End a run; galleries that are cut over already stay so, and can be rolled back."""
        found = await self.reindexing.run_of(run_id)
        works = await self.reindexing.works(found)
        open_states = (GalleryState.FILLING, GalleryState.STOPPED, GalleryState.FILLED)
        wanted = [each for each in works if each.state in open_states]
        if not wanted:
            raise ConflictError(f"run {found} has no gallery that could be cancelled")
        for work in wanted:
            gallery = await self.galleries.read(work.tenant_id, work.gallery_id)
            await self.reindexing.steps.end(gallery, work, GalleryState.CANCELLED)
        if len(wanted) == len(works):
            await self.reindexing.set_run(found, RunState.CANCELLED)
        await self._note(actor, "cancel", found, {"galleries": len(wanted)})
        return found

    async def roll_back(
        self, run_id: UUID | None, actor: str, gallery_id: str | None = None
    ) -> dict[str, int]:
        """Let the old pack answer again; how many removed records came back, by gallery.

        Raises:
            ConflictError: no gallery of the run is cut over, or its old templates are gone.
        """
        found = await self.reindexing.run_of(run_id)
        back: dict[str, int] = {}
        for work in await self.reindexing.works(found):
            if work.state is GalleryState.KEPT and gallery_id in (None, work.gallery_id):
                gallery = await self.galleries.read(work.tenant_id, work.gallery_id)
                back[work.gallery_id] = await self.reindexing.steps.roll_back(gallery, work)
        if not back:
            raise ConflictError(f"run {found} has no gallery that could be rolled back")
        await self._note(actor, "rollback", found, {"galleries": back})
        return back

    async def _set(
        self, run_id: UUID | None, before: RunState, after: RunState, actor: str
    ) -> UUID:
        found = await self.reindexing.run_of(run_id)
        works = await self.reindexing.works(found)
        if not works or works[0].run_state is not before:
            raise ConflictError(f"run {found} is not {before}")
        await self.reindexing.set_run(found, after)
        await self._note(actor, after, found, {})
        return found

    async def _note(self, actor: str, what: str, run_id: UUID, details: dict[str, object]) -> None:
        await self.packs.note(actor, f"reindex {what}", {"run": str(run_id), **details})
