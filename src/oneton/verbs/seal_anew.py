"""Seal anew: everything of a tenant with the key in force, while it is in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from uuid import UUID

import anyio.to_thread
import structlog

from oneton.domain.errors import OnetonError, SealBrokenError, SnapshotError
from oneton.domain.model import TenantId
from oneton.domain.sealing import Ring
from oneton.images.encrypted import EncryptedStore
from oneton.images.scratch import delete_scratch, has_scratch
from oneton.records.encryption import Encryption, Run, StoredTemplate
from oneton.records.locks import Locks
from oneton.records.templates import open_templates, seal_template
from oneton.records.tenant_keys import TenantKeys
from oneton.verbs.sweep import made_at
from oneton.verbs.watch_clock import WatchClock

log = structlog.get_logger()

WINDOW = 10_000
"""Templates looked at in one statement."""
PAGE = 256
UUID_WITH_TIME = 7
AT_ONCE = 8
"""Objects that are sealed side by side."""
SETTLE_S = 10.0
"""Replicas hear of a new key within seconds; a put that is slower than that looks for itself."""
WAIT_S = 5.0
"""While another process is at it, or a part does not answer."""
GRACE_S = 900.0
LEFTOVERS_A_PAGE = 25
"""More are not what was erased meanwhile, but rather rows that are lost: the sweep counts all."""

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
        grace_s: age from which an object without a row is a leftover, as the sweep has it.
    """

    encryption: Encryption
    keys: TenantKeys
    store: EncryptedStore
    locks: Locks
    scratch: Path
    settle_s: float = SETTLE_S
    grace_s: float = GRACE_S
    clock: WatchClock = field(default_factory=WatchClock)

    async def has_work(self) -> bool:
        """Whether a run is under way, or one left files in plain on this machine."""
        return bool(await self.encryption.open_runs()) or has_scratch(self.scratch)

    async def run(self) -> None:
        """Until none is; another process may be at it."""
        while await self.has_work():
            async with self.locks.held("encryption") as mine:
                if mine:
                    await self._empty_scratch()
                    if await self.drain():
                        return
            await asyncio.sleep(WAIT_S)

    async def drain(self) -> bool:
        """Do a page of every run in turn, so that no tenant waits for another's millions.

        One that fails is tried again after a while, and the others go on.

        Returns:
            whether all ended; False when what is left has to wait.
        """
        at_work: dict[UUID, Steps] = {}
        waits_until_s: dict[UUID, float] = {}
        try:
            while runs := await self.encryption.open_runs():
                now_s = monotonic()
                ready = [each for each in runs if waits_until_s.get(each[1], 0.0) <= now_s]
                if not ready:
                    return False
                for tenant, run_id in ready:
                    if not await self._step(tenant, run_id, at_work):
                        waits_until_s[run_id] = monotonic() + WAIT_S
        finally:
            for steps in at_work.values():
                await steps.aclose()
        return True

    async def _empty_scratch(self) -> None:
        """Delete what a process left that ended half-way; who has the lock is the only one."""
        try:
            await anyio.to_thread.run_sync(delete_scratch, self.scratch)
        except OSError as error:
            log.warning("files in plain are left", folder=str(self.scratch), error=str(error))

    async def _step(self, tenant: TenantId, run_id: UUID, at_work: dict[UUID, Steps]) -> bool:
        run = await self.encryption.newest_run(tenant)
        if run is None or run.run_id != run_id or run.ended_at is not None:
            return True
        steps = at_work.setdefault(run_id, self._steps(run))
        try:
            await anext(steps)
        except StopAsyncIteration:
            at_work.pop(run_id)
        except (OnetonError, OSError) as error:
            # A disk that is full, too, keeps nobody but this run waiting.
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
        """Seal a page; one that was erased meanwhile is deleted again.

        Of a page that was cut off, or of one that was erased just before, nobody knows which they
        are: there everything goes that has no row and is too old to get one.
        """
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
        unnamed = set(keys) - await self._named(run.tenant_id, keys)
        gone = before & unnamed & set(changed)
        for key in sorted(gone | await self._leftovers(unnamed - gone)):
            await self.store.delete(key)
        await self.encryption.note_progress(
            run, phase="objects", reached=keys[-1], objects=len(changed)
        )

    async def _leftovers(self, unnamed: set[str]) -> set[str]:
        """Of objects without a row, those that no enrolment under way has stored."""
        oldest = datetime.now(UTC).timestamp() - self.grace_s
        found = {
            key
            for key in unnamed
            if (made := _id_of(key)) is not None
            and made.version == UUID_WITH_TIME
            and made_at(made).timestamp() < oldest
        }
        if not found or await self.clock.doubt(self.grace_s) is not None:
            return set()
        if len(found) > LEFTOVERS_A_PAGE:
            log.warning("too many leftovers to delete: the sweep judges them", objects=len(found))
            return set()
        return found

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
    """None when oneton made no such key."""
    try:
        _, _, name = key.split("/")
        return UUID(name)
    except ValueError:
        return None
