"""What `/metrics` shows of Postgres and of the indexes."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from oneton.domain.errors import StoreDownError
from oneton.domain.model import DEFAULT_GALLERY, GalleryId
from oneton.records import figures
from oneton.records.database import Database
from oneton.records.figures import GalleryHead, ReadFigures
from oneton.telemetry import state
from oneton.telemetry.measures import Measures
from oneton.telemetry.state import State
from oneton.verbs.catch_up import CatchUp
from tests.fixtures.postgres import Dsns
from tests.records.conftest import PACK, Hands, House, add, unit_rows

pytestmark = pytest.mark.anyio


class Shown:
    """A State and what it shows."""

    def __init__(self, database: Database, catch_up: CatchUp, folder: Path, hands: Hands) -> None:
        folders = {"index": folder, "data": folder / "not there"}
        self.state = State(database, catch_up, [hands.cpu], folders, PACK, "1.2.3")
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self.state)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"oneton_{name}", labels)


@pytest.fixture
def shown(database: Database, catch_up: CatchUp, hands: Hands, tmp_path: Path) -> Shown:
    return Shown(database, catch_up, tmp_path, hands)


async def test_figures_count_over_all_tenants(house: House, database: Database) -> None:
    found = {(each.what, each.kind, each.state): each.value for each in await _figures(database)}
    assert found["tenants", "", ""] == 2
    assert found["galleries", "enrollment", ""] == 2
    assert found["outbox", "", "due"] == 0


async def _figures(database: Database) -> list[figures.Figure]:
    return await ReadFigures(database).figures()


async def test_heads_past_the_most_are_told_together(
    house: House, database: Database, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in unit_rows(rng, 2):
        await add(house.faces, house.gallery, row)
    largest = GalleryHead(house.other_gallery.gallery_no, 3)
    second = GalleryHead(house.gallery.gallery_no, 2)
    assert await ReadFigures(database).heads() == [largest, second]
    monkeypatch.setattr(figures, "MOST_GALLERIES", 1)
    assert await ReadFigures(database).heads() == [largest, GalleryHead(None, 2)]
    monkeypatch.setattr(figures, "MOST_GALLERIES", 0)
    assert await ReadFigures(database).heads() == [GalleryHead(None, 5)]


async def test_only_the_app_may_ask_for_figures(dsns: Dsns) -> None:
    owner = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        open_to_all = await owner.fetch(
            """select proname from pg_proc where proname in ('oneton_figures', 'oneton_heads')
               and has_function_privilege('public', oid, 'execute')"""
        )
    finally:
        await owner.close()
    assert open_to_all == []


async def test_an_index_that_did_not_hear_of_changes_lags(
    house: House, catch_up: CatchUp, shown: Shown, rng: np.random.Generator
) -> None:
    await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    current = await catch_up(house.tenant.tenant_id, DEFAULT_GALLERY)
    for row in unit_rows(rng, 2):
        await add(house.faces, house.gallery, row)
    await shown.state.refresh()
    labels = {"gallery": str(house.gallery.gallery_no), "pack": str(current.pack_no)}
    assert shown("galleries_loaded") == 1
    assert shown("index_faces", **labels) == shown("index_tail_faces", **labels) == 1
    assert (shown("index_head", **labels), shown("index_lag", **labels)) == (1, 2)
    assert shown("gallery_head", gallery=labels["gallery"]) == 3
    assert shown("snapshot_age_seconds", **labels) is None
    await catch_up(house.tenant.tenant_id, DEFAULT_GALLERY)
    assert shown("index_lag", **labels) == 0
    assert shown("disk_free_bytes", folder="data") is None


async def test_indexes_past_the_most_count_together(
    house: House, catch_up: CatchUp, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "MOST_INDEXES", 0)
    await catch_up(house.other.tenant_id, DEFAULT_GALLERY)
    await catch_up(house.tenant.tenant_id, DEFAULT_GALLERY)
    await shown.state.refresh()
    assert shown("index_faces", gallery="rest", pack="rest") == 3
    assert shown("index_head", gallery="rest", pack="rest") is None


async def test_postgres_is_asked_once_however_often_somebody_looks(
    house: House, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shown.state.refresh()
    await house.galleries.create(
        house.tenant.tenant_id, GalleryId("more"), model_pack_no=house.gallery.model_pack_no
    )
    await shown.state.refresh()
    assert shown("galleries", kind="enrollment") == 2
    monkeypatch.setattr(state, "READ_EVERY_S", 0)
    await shown.state.refresh()
    assert shown("galleries", kind="enrollment") == 3


async def test_nothing_stale_is_shown_while_postgres_is_away(
    house: House, dsns: Dsns, catch_up: CatchUp, hands: Hands, tmp_path: Path
) -> None:
    measures = Measures()
    database = await Database.connect(dsns.app, size=2, watch=measures)
    shown = Shown(database, catch_up, tmp_path, hands)
    await shown.state.refresh()
    assert (shown("postgres_up"), shown("tenants")) == (1, 2)
    await database.close()
    with pytest.raises(StoreDownError):
        await database.fetch("select 1")
    assert measures.registry.get_sample_value("oneton_postgres_errors_total") == 1
    shown = Shown(database, catch_up, tmp_path, hands)
    await shown.state.refresh()
    assert (shown("postgres_up"), shown("tenants")) == (0, None)
    assert shown("build_info", version="1.2.3", model_pack="test", model_sha256="0" * 12) == 1
