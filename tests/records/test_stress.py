"""Searches while one client enrolls and another removes, with seals, merges and snapshots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from _bench_stress import run_stress
from _bench_stress_clients import A_FEW
from _bench_stress_oracle import Kind

from oneton.records.database import Database
from tests.fixtures.postgres import Dsns

SECONDS = float(os.environ.get("ONETON_TEST_STRESS_S", "5"))
FULL = SECONDS >= 60
FACES = 20_000 if FULL else 3000

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(120 + 3 * SECONDS)]


async def test_no_answer_is_wrong_while_a_gallery_changes_all_the_time(
    database: Database, dsns: Dsns, tmp_path: Path
) -> None:
    report = await run_stress(
        database, dsns.owner, tmp_path, faces=FACES, idle_s=SECONDS / 10, busy_s=SECONDS
    )
    print("", *report.lines(), sep="\n")
    assert report.verdict.wrong == []
    assert report.unlike == 0
    assert report.reopened == len(report.truth.face_nos) - report.removed
    assert report.done >= A_FEW
    assert report.removed > 50
    assert report.verdict.judged[Kind.REMOVED] > 50
    assert report.verdict.mates > 100
