"""Kill -9 at random moments of seal, merge, snapshot and replay."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from _fill import fill

from oneton.domain.model import DEFAULT_GALLERY, Gallery
from oneton.index.files import WRITING
from oneton.index.manifest import files_of, read_manifest
from oneton.records.database import Database
from oneton.records.galleries import Galleries
from oneton.records.model_packs import ModelPacks
from oneton.records.tenants import Tenants
from tests.fixtures.postgres import Dsns
from tests.records.killed_child import PACK, Ledger, Life, Said, face_id, template

KILLS = int(os.environ.get("ONETON_TEST_KILLS", "5"))
FACES = 1000
NUMBERS = 1_000_000
LATEST_S = 6.0
MOMENTS = {"opening": 0.3, "seal": 0.1, "merge": 0.1, "snapshot": 0.03, "checked": 1.5}
"""In turn, a kill comes within so many seconds after this began, for the third time at most."""
MOST_FILES = 150

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(60 + 15 * KILLS)]


class Killed(msgspec.Struct):
    """One gallery through the lives of the processes that hold it.

    Attributes:
        ledger: what was acknowledged; a change that was under way at a kill is in neither part.
        kills: by what was under way.
        began: how many lives began with a snapshot, or without.
        taken: head of the newest snapshot that is known to be whole.
    """

    dsn: str
    gallery: Gallery
    folder: Path
    random: Random
    ledger: Ledger
    kills: Counter[str]
    began: Counter[str]
    lives: int = 0
    taken: int = 0

    async def live(self, *, changing: bool = True) -> None:
        """Start a process, let it check its index, kill it, and note what it acknowledged."""
        self.lives += 1
        ledger = self.folder / "ledger.json"
        ledger.write_bytes(msgspec.json.encode(self.ledger))
        life = Life(
            dsn=self.dsn,
            folder=str(self.folder / "snapshots"),
            gallery=self.gallery,
            ledger=str(ledger),
            first=self.lives * NUMBERS,
            faces=FACES,
            changing=changing,
            seal_faces=self.random.choice([64, 128, 256]),
            fanout=self.random.choice([2, 3, 4]),
            snapshot_changes=self.random.choice([20, 100, 500]),
        )
        said = await self._run(life)
        for each in said:
            assert each.wrong == []
            self._note(each)
        if changing:
            self.kills[under_way(said)] += 1

    async def _run(self, life: Life) -> list[Said]:
        """All that a process said until it was killed."""
        with (self.folder / "stderr.log").open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.records.killed_child"),
                msgspec.json.encode(life).decode(),
                stdout=PIPE,
                stderr=stderr,
                limit=1 << 20,
            )
        moment, within_s = list(MOMENTS.items())[self.lives % len(MOMENTS)]
        passed = self.random.randrange(3) if moment in ("seal", "merge", "snapshot") else 0
        loop = asyncio.get_running_loop()
        said: list[Said] = []
        assert process.stdout is not None
        async for line in process.stdout:
            said.append(msgspec.json.decode(line, type=Said))
            begun = said[-1].work if said[-1].what == "begun" else said[-1].what
            if life.changing and begun == moment:
                passed -= 1
                if passed < 0:
                    loop.call_later(self.random.uniform(0, within_s), kill, process)
            if life.changing and begun == "checked":
                loop.call_later(LATEST_S, kill, process)
        status = await process.wait()
        assert status == (-signal.SIGKILL if life.changing else 0), self.errors()[-4000:]
        return said

    def _note(self, said: Said) -> None:
        if said.what == "checked":
            self.began["a snapshot" if said.head else "nothing"] += 1
            assert said.head >= self.taken, "it begins with the newest snapshot"
        elif said.what == "added":
            self.ledger.present[said.number] = said.head
        elif said.what == "remove":
            del self.ledger.present[said.number]
        elif said.what == "removed":
            self.ledger.gone[said.number] = said.head
        elif said.what == "taken":
            self.taken = said.head

    def files(self) -> set[Path]:
        """What is in the gallery's folder of snapshots."""
        return {path for path in self.folder.glob("snapshots/*/*/**/*") if path.is_file()}

    def errors(self) -> str:
        """What the processes logged."""
        return (self.folder / "stderr.log").read_text()


def kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def under_way(said: list[Said]) -> str:
    """What the process was doing when it was killed."""
    if not any(each.what == "checked" for each in said):
        return "opening"
    open_work = Counter[str]()
    for each in said:
        open_work[each.work] += {"begun": 1, "done": -1}.get(each.what, 0)
    return "+".join(sorted(+open_work)) or "changes only"


@pytest.fixture
async def killed(dsns: Dsns, database: Database, tmp_path: Path) -> Killed:
    pack_no = await ModelPacks(database).number(PACK)
    tenant = await Tenants(database).create("killed", DEFAULT_GALLERY, pack_no)
    gallery = await Galleries(database).read(tenant.tenant_id, DEFAULT_GALLERY)
    numbers = range(1, FACES + 1)
    rows = np.stack([template(number) for number in numbers])
    await fill(dsns.owner, [gallery], rows, ids=[face_id(number) for number in numbers])
    ledger = Ledger(present={number: number for number in numbers}, gone={})
    seed = int(os.environ.get("ONETON_TEST_SEED", "1"))
    return Killed(dsns.app, gallery, tmp_path, Random(seed), ledger, Counter(), Counter())


async def test_no_change_is_lost_or_undone_by_kill_9_at_any_moment(killed: Killed) -> None:
    most, most_unfinished = 0, 0
    for _ in range(KILLS):
        await killed.live()
        files = killed.files()
        most = max(most, len(files))
        most_unfinished = max(most_unfinished, sum(path.suffix == WRITING for path in files))
    await killed.live(changing=False)
    print(
        f"\n{KILLS} kills, during {dict(killed.kills.most_common())}; lives began with"
        f" {dict(killed.began)}; {len(killed.ledger.present):,} faces present,"
        f" {len(killed.ledger.gone):,} removed; at most {most} files, {most_unfinished} unfinished"
    )
    assert most <= MOST_FILES
    assert most_unfinished <= 10
    assert "set aside" not in killed.errors()
    kept: set[Path] = set()
    for manifest in killed.folder.glob("snapshots/*/*/*.json"):
        kept |= {manifest, *(manifest.parent / each for each in files_of(read_manifest(manifest)))}
    assert killed.files() == kept
