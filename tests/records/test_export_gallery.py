"""No export is there that the audit trail does not know of."""

from __future__ import annotations

from pathlib import Path

import pytest

from oneton.domain.errors import StoreDownError
from oneton.domain.model import DEFAULT_GALLERY
from oneton.images.files import FileStore
from oneton.records.audit import Audit
from oneton.records.database import Database
from oneton.records.duplicates import EnrolledFaces
from oneton.records.exports import Exports
from oneton.verbs.export_gallery import ExportGallery
from tests.records.conftest import House

pytestmark = pytest.mark.anyio


async def away(*_: object) -> None:
    raise StoreDownError("away")


@pytest.mark.parametrize("name", ["out", "out.zip"])
async def test_an_export_that_cannot_be_noted_is_not_there(
    house: House,
    database: Database,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    store = FileStore(tmp_path / "images")

    export = ExportGallery(
        Exports(database),
        house.galleries,
        house.faces,
        EnrolledFaces(database),
        house.packs,
        store,
        Audit(database),
    )
    tenant = house.other.tenant_id
    with monkeypatch.context() as patched, pytest.raises(StoreDownError):
        patched.setattr(Audit, "note", away)
        await export(tenant, DEFAULT_GALLERY, folder / name)
    assert not list(folder.iterdir())
    exported = await export(tenant, DEFAULT_GALLERY, folder / name)
    assert (exported.faces, exported.missing) == (3, 3)
    assert [each.name for each in folder.iterdir()] == [name]
    newest, *_ = await Audit(database).page(tenant, limit=1)
    assert newest.action == "export gallery"
