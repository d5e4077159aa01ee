"""Seal anew: everything of a tenant with the key in force, while it is in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

import anyio.to_thread
import structlog

from oneton.domain.errors import OnetonError, SealBrokenError, SnapshotError
from oneton.domain.model import TenantId
from oneton.domain.sealing import Ring
from oneton.images.encrypted import EncryptedStore
from oneton.records.encryption import Encryption, Run, StoredTemplate
from oneton.records.locks import Locks
from oneton.records.templates import open_templates, seal_template
from oneton.records.tenant_keys import TenantKeys

log = structlog.get_logger()

WINDOW = 10_000
"""Templates looked at in one statement."""
PAGE = 256
AT_ONCE = 8
"""Objects that are sealed side by side."""
SETTLE_S = 10.0
"""Replicas hear of a new key within seconds; a put that is slower than that looks for itself."""
WAIT_S = 5.0
"""While another process is at it, or a part does not answer."""

Steps = AsyncGenerator[None, None]


@dataclass(frozen=True)
class SealAnew:
    """One process at a time; after a crash another goes on where it was.

    Templates come first, then objects and copies of snapshots. At the end templates are looked at
    until nothing is left, each time after everybody has ended who was writing some; only then are
    older keys destroyed.

    Args:
        scratch: a folder for files in plain, of which copies are made.
        settle_s: age of a run from which objects are listed: what another replica sealed with the
            key before is stored by then.
    """

    encryption: Encryption
    keys: TenantKeys
    store: EncryptedStore
    locks: Locks
    scratch: Path
    settle_s: float = SETTLE_S

    async def has_work(self) -> bool:
        """Whether a run is under way."""
        return bool(await self.encryption.open_runs())

    async def run(self) -> None:
        """Until none is; another process may be at it."""
        while await self.has_work():
            async with self.locks.held("encryption") as mine:
                if mine and await self.drain():
                    return
            await asyncio.sleep(WAIT_S)

    async def drain(self) -> bool:
        """Do a page of every run in turn, so that no tenant waits for another's millions.

        Returns:
            whether all ended; False when what is left has to wait.
        """
        at_work: dict[UUID, Steps] = {}
        try:
            while runs := await self.encryption.open_runs():
                for tenant, run_id in runs:
                    if not await self._step(tenant, run_id, at_work):
                        return False
        finally:
            for steps in at_work.values():
                await steps.aclose()
        return True

    async def _step(self, tenant: TenantId, run_id: UUID, at_work: dict[UUID, Steps]) -> bool:
        run = await self.encryption.newest_run(tenant)
        if run is None or run.run_id != run_id or run.ended_at is not None:
            return True
        steps = at_work.setdefault(run_id, self._steps(run))
        try:
            await anext(steps)
        except StopAsyncIteration:
            at_work.pop(run_id)
        except OnetonError as error:
            at_work.pop(run_id)
            log.warning("encryption waits", tenant=str(tenant), error=str(error))
            await self.encryption.note_why(run, str(error))
            return False
        return True

    async def _steps(self, run: Run) -> Steps:
        """All that is left of a run, a page at a time."""
        phases = {"templates": self._templates, "objects": self._objects, "copies": self._copies}
        names = list(phases)
        reached = run.reached
        for name in names[names.index(run.phase) if run.phase in phases else len(names) :]:
            async for _ in phases[name](run, reached):
                yield
            reached = ""
            following = {"templates": "objects", "objects": "copies", "copies": "check"}[name]
            await self.encryption.note_progress(run, phase=following, reached="")
        changed = 1
        while changed:
            await self.encryption.wait_for_writers(run.tenant_id)
            changed = 0
            async for count in self._pass(run, ""):
                changed += count
                yield
        destroyed = await self.encryption.end(run)
        log.info("everything is encrypted", tenant=str(run.tenant_id), former_keys=destroyed)

    async def _templates(self, run: Run, reached: str) -> Steps:
        async for _ in self._pass(run, reached):
            yield

    async def _pass(self, run: Run, reached: str) -> AsyncGenerator[int, None]:
        """All templates once; yields how many of a window were sealed anew."""
        ring = await self.keys.ring(run.tenant_id, fresh=True)
        first_gallery, _, first_head = reached.partition(":")
        for gallery_no, head in await self.encryption.galleries(run.tenant_id):
            if reached and gallery_no < int(first_gallery):
                continue
            since = int(first_head) if reached and gallery_no == int(first_gallery) else 0
            while since < head:
                until = min(head, since + WINDOW)
                found = await self.encryption.to_seal(
                    run.tenant_id, gallery_no, since, until, run.key_no
                )
                work = partial(_seal_templates, ring, found)
                sealed, broken = await anyio.to_thread.run_sync(work)
                count = 0
                if sealed:
                    count = await self.encryption.replace(run, sealed, f"{gallery_no}:{until}")
                await self._say_broken(run, broken)
                since = until
                yield count

    async def _objects(self, run: Run, reached: str) -> Steps:
        while (left_s := self.settle_s - await self.encryption.age_s(run)) > 0:
            await asyncio.sleep(min(1.0, left_s))
            yield
        prefix = f"{run.tenant_id}/"
        # An order of keys that holds for every store there is not, so one that is gone since means
        # to begin again.
        keys = {each.key async for each in self.store.list(prefix)} if reached else set()
        skipping = reached in keys
        page: list[str] = []
        async for stored in self.store.list(prefix):
            if skipping:
                skipping = stored.key != reached
                continue
            page.append(stored.key)
            if len(page) >= PAGE:
                await self._seal_objects(run, page)
                page = []
                yield
        if page:
            await self._seal_objects(run, page)
            yield

    async def _seal_objects(self, run: Run, keys: Sequence[str]) -> None:
        """Seal a page; one that was erased meanwhile is deleted again."""
        before = await self._named(run.tenant_id, keys)
        changed = []
        for first in range(0, len(keys), AT_ONCE):
            some = keys[first : first + AT_ONCE]
            done = await asyncio.gather(
                *(self.store.seal_anew(key) for key in some), return_exceptions=True
            )
            for key, outcome in zip(some, done, strict=True):
                if isinstance(outcome, SealBrokenError):
                    await self._say_broken(run, [str(outcome)])
                elif isinstance(outcome, BaseException):
                    raise outcome
                elif outcome:
                    changed.append(key)
        # What no row named before is of an enrolment under way, or left to the sweep.
        gone = before - await self._named(run.tenant_id, changed)
        for key in changed:
            if key in gone:
                await self.store.delete(key)
        await self.encryption.note_progress(
            run, phase="objects", reached=keys[-1], objects=len(changed)
        )

    async def _named(self, tenant: TenantId, keys: Sequence[str]) -> set[str]:
        """Those of some keys that a row names."""
        ids = {key: found for key in keys if (found := _id_of(key)) is not None}
        named = await self.encryption.named(tenant, list(ids.values()))
        return {key for key, found in ids.items() if found in named}

    async def _copies(self, run: Run, _: str) -> Steps:
        await anyio.to_thread.run_sync(
            partial(self.scratch.mkdir, mode=0o700, parents=True, exist_ok=True)
        )
        for name in await self.store.files_to_seal(run.tenant_id):
            try:
                done = await self.store.seal_file_anew(name, self.scratch)
            except SnapshotError as error:
                # Postgres has what it held.
                await self._say_broken(run, [str(error)])
                continue
            await self.encryption.note_progress(run, phase="copies", reached=name, copies=int(done))
            yield

    async def _say_broken(self, run: Run, broken: Sequence[str]) -> None:
        for why in broken:
            log.error("left as it is", tenant=str(run.tenant_id), why=why)
        if broken:
            await self.encryption.note_why(run, broken[-1], unreadable=len(broken))


def _seal_templates(
    ring: Ring, found: Sequence[StoredTemplate]
) -> tuple[list[tuple[StoredTemplate, bytes]], list[str]]:
    """Each with its new form, and what is wrong with those that do not open."""
    sealed, broken = [], []
    for each in found:
        try:
            plain = open_templates(ring, each.stored, None, [each.face_no])
        except SealBrokenError as error:
            broken.append(str(error))
        except KeyError:
            broken.append(str(SealBrokenError(f"the template of face {each.face_no}")))
        else:
            sealed.append((each, seal_template(ring, plain)))
    return sealed, broken


def _id_of(key: str) -> UUID | None:
    try:
        return UUID(key.rpartition("/")[2])
    except ValueError:
        return None
