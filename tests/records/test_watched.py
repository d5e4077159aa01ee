"""What is counted of webhooks, jobs, snapshots and the object store."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from oneton.domain.errors import NotFoundError, StoreDownError
from oneton.domain.model import GalleryId, TenantId
from oneton.domain.reindexing import GalleryState, OnFailure, RunState, Work
from oneton.domain.stages import stage
from oneton.domain.watching import watched_job
from oneton.images.files import FileStore
from oneton.images.watched import WatchedStore
from oneton.index.merging import Policy
from oneton.index.scan import ScanThreads
from oneton.index.store import IndexStore
from oneton.telemetry.measures import Measures
from oneton.telemetry.state import reindexing
from oneton.verbs.keep_up import KeepUp
from tests.fixtures.desks import Desk
from tests.fixtures.receivers import Receiver
from tests.records.conftest import Hands, House, add, make_catch_up, unit_rows

pytestmark = pytest.mark.anyio

Counted = Callable[..., float | None]


@pytest.fixture
def measures() -> Measures:
    return Measures()


@pytest.fixture
def counted(measures: Measures) -> Counted:
    def read(name: str, **labels: str) -> float | None:
        return measures.registry.get_sample_value(f"oneton_{name}", labels)

    return read


async def test_attempts_are_counted_by_what_became_of_them(
    desk: Desk, receiver: Receiver, measures: Measures, counted: Counted
) -> None:
    deliver = dataclasses.replace(desk.deliver, watch=measures)
    desk = msgspec.structs.replace(desk, deliver=deliver)
    await desk.add(receiver.url)
    receiver.statuses = [500]
    await desk.tell()
    await desk.deliver_all()
    assert counted("webhook_attempts_total", dialect="didit", outcome="retried") == 1
    assert counted("webhook_attempts_total", dialect="didit", outcome="delivered") == 1
    assert counted("webhook_attempts_total", dialect="didit", outcome="dropped") == 0


async def test_a_job_is_counted_with_its_stages_however_it_ends(
    measures: Measures, counted: Counted
) -> None:
    with watched_job(measures, "reembed"), stage("embed"):
        pass
    with pytest.raises(ZeroDivisionError), watched_job(measures, "reembed"):
        raise ZeroDivisionError
    with pytest.raises(asyncio.CancelledError), watched_job(measures, "reembed"):
        raise asyncio.CancelledError
    for outcome in ("done", "failed", "cancelled"):
        assert counted("jobs_total", kind="reembed", outcome=outcome) == 1
    assert counted("job_seconds_count", kind="reembed") == 3
    assert counted("stage_seconds_count", work="job", stage="embed") == 1


async def test_a_store_that_does_not_answer_is_counted_and_a_missing_object_is_not(
    tmp_path: Path, measures: Measures, counted: Counted
) -> None:
    store = WatchedStore(FileStore(tmp_path / "images"), measures)
    await store.put("a/b/c", b"data", "image/jpeg")
    assert (await store.get("a/b/c"))[0] == b"data"
    with pytest.raises(NotFoundError):
        await store.get("a/b/d")
    assert counted("store_seconds_count", operation="get") == 2
    assert counted("store_errors_total", operation="get") == 0
    (tmp_path / "file").write_text("in the way")
    broken = WatchedStore(FileStore(tmp_path / "file"), measures)
    with pytest.raises(StoreDownError):
        await broken.put("a/b/c", b"data", "image/jpeg")
    assert counted("store_errors_total", operation="put") == 1


async def test_snapshots_are_counted_by_what_became_of_them(
    house: House,
    tmp_path: Path,
    hands: Hands,
    rng: np.random.Generator,
    measures: Measures,
    counted: Counted,
) -> None:
    threads = ScanThreads(1)
    store = IndexStore(tmp_path / "own", Policy(), threads, 1, watch=measures)
    catch_up = make_catch_up(house, Hands(hands.cpu, hands.upkeep, store))
    keep_up = KeepUp(
        catch_up,
        store,
        hands.upkeep,
        memory_bytes=1 << 30,
        snapshot_interval_s=300,
        snapshot_changes=1000,
        watch=measures,
    )
    await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    manifest = await keep_up.take_now(house.tenant.tenant_id, house.gallery.gallery_id)
    assert counted("snapshots_total", outcome="taken") == 1
    for path in (tmp_path / "own").rglob(manifest.state_file):
        path.write_bytes(b"damaged")
    (held,) = catch_up.held()
    catch_up.drop(held)
    await catch_up(house.tenant.tenant_id, house.gallery.gallery_id)
    assert counted("snapshots_total", outcome="set_aside") == 1
    await catch_up.close()
    store.close()
    threads.close()


def _work(state: GalleryState, run: RunState) -> Work:
    return Work(
        run_id=uuid4(),
        run_state=run,
        rate=100,
        on_failure=OnFailure.STOP,
        keep_old=timedelta(days=1),
        to_pack_no=2,
        tenant_id=TenantId(uuid4()),
        gallery_no=7,
        gallery_id=GalleryId("default"),
        from_pack_no=1,
        state=state,
        start_head=10,
        handed_head=5,
        to_embed=10,
        to_drop=0,
        embedded=4,
        dropped=None,
        failed=1,
        compared=None,
        agreed=None,
        cleaned=False,
        why="",
        started_by="test",
        started_at=datetime.now(UTC),
        filled_at=None,
        cut_over_at=None,
        ended_at=None,
    )


def test_a_gallery_that_is_reindexed_is_shown_until_that_is_over() -> None:
    def shown(state: GalleryState, run: RunState = RunState.RUNNING) -> dict[str, float]:
        return {
            "-".join(sample.labels[each] for each in ("gallery", key)): sample.value
            for family, key in zip(reindexing([_work(state, run)]), ("of", "state"), strict=True)
            for sample in family.samples
        }

    assert shown(GalleryState.FILLING) == {
        "7-to_embed": 10,
        "7-embedded": 4,
        "7-failed": 1,
        "7-filling": 1,
    }
    assert "7-paused" in shown(GalleryState.FILLING, RunState.PAUSED)
    assert "7-stopped" in shown(GalleryState.STOPPED)
    assert shown(GalleryState.FINISHED, RunState.FINISHED) == {}


def test_a_server_without_traces_loads_nothing_of_opentelemetry() -> None:
    code = (
        "import sys, oneton.cli.serving, oneton.working\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=25, check=True
    )
    assert ran.stdout.strip() == "[]"
