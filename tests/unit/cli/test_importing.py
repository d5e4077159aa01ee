"""An import whose parts fail."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from oneton.cli.importing import Import, Item
from oneton.domain.errors import StoreDownError
from oneton.domain.model import DEFAULT_GALLERY, TenantId

pytestmark = pytest.mark.anyio


class FakeEnroll:
    """An enrolment whose Postgres is away."""

    async def enrolled_before(self, *_arguments: object) -> None:
        raise StoreDownError("Postgres is away")


async def test_a_part_that_is_away_ends_an_import_with_its_own_error(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"photo")
    bulk = Import(
        FakeEnroll(),  # type: ignore[arg-type]
        TenantId(uuid4()),
        DEFAULT_GALLERY,
        if_missing=False,
        rotate=False,
    )
    with pytest.raises(StoreDownError, match="away"):
        await bulk.run([Item(photo, f"{number}") for number in range(5)], callers=3)
