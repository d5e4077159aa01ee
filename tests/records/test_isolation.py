"""Row-level security: the database itself keeps tenants apart."""

from __future__ import annotations

import asyncpg
import numpy as np
import pytest

from oneton.domain.errors import NotFoundError
from oneton.domain.model import DEFAULT_GALLERY
from oneton.records.database import APP_ROLE, Database
from oneton.verbs.examine_database import ExamineDatabase
from tests.fixtures.postgres import Dsns
from tests.records.conftest import DIMENSION, House, add, unit_rows

pytestmark = pytest.mark.anyio

TENANT_TABLES = (
    "tenant",
    "api_key",
    "gallery",
    "face",
    "template",
    "reindex_gallery",
    "reindex_failure",
    "reindex_drop",
    "request",
    "request_review",
    "picture",
    "webhook_endpoint",
    "outbox",
    "job",
    "idempotency",
    "face_expiry",
    "face_session",
    "session_image",
    "list",
    "list_entry",
    "vendor_user",
    "merchant_user",
    "upload",
    "liveness_session",
    "audit_event",
    "face_quota",
    "usage_day",
    "tenant_key",
    "encryption_run",
)


async def test_tenant_tables_are_those_with_a_tenant(database: Database) -> None:
    rows = await database.fetch(
        """select table_name from information_schema.columns
           where column_name = 'tenant_id' and table_schema = 'public'"""
    )
    assert {row["table_name"] for row in rows} == set(TENANT_TABLES)


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_tenant_table_reads_empty_without_a_tenant(
    house: House, database: Database, dsns: Dsns, table: str
) -> None:
    owner = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        there = await owner.fetchval(f"select count(*) from {table}")
    finally:
        await owner.close()
    assert there > 0 or table in ("api_key", *TENANT_TABLES[5:])
    assert await database.fetch(f"select * from {table}") == []


async def test_app_role_bypasses_nothing_and_owns_nothing(database: Database) -> None:
    found = await ExamineDatabase(database)()
    assert (found.role, found.bypasses, found.open_tables) == (APP_ROLE, False, [])
    assert found.missing_migrations == []


async def test_another_tenants_face_is_not_found_by_id(
    house: House, rng: np.random.Generator
) -> None:
    face_id = await add(house.faces, house.other_gallery, unit_rows(rng, 1)[0])
    tenant = house.tenant.tenant_id
    with pytest.raises(NotFoundError):
        await house.faces.find(tenant, face_id)
    with pytest.raises(NotFoundError):
        await house.faces.erase_image(tenant, face_id)
    found = house.faces.changes(house.other.tenant_id, house.other_gallery, 0, DIMENSION)
    assert [each async for each in found] == []
    assert (await house.faces.find(house.other.tenant_id, face_id)).has_image


async def test_another_tenants_gallery_gives_no_changes(house: House) -> None:
    gallery = await house.galleries.read(house.other.tenant_id, DEFAULT_GALLERY)
    own = [each async for each in house.faces.changes(house.other.tenant_id, gallery, 0, DIMENSION)]
    stolen = [
        each async for each in house.faces.changes(house.tenant.tenant_id, gallery, 0, DIMENSION)
    ]
    assert sum(len(each.added_face_nos) for each in own) == 3
    assert sum(len(each.added_face_nos) for each in stolen) == 0
    numbers = own[0].added_face_nos
    assert len(await house.faces.ids(house.other.tenant_id, numbers)) == 3
    assert await house.faces.ids(house.tenant.tenant_id, numbers) == {}


async def test_another_tenants_gallery_cannot_be_locked(house: House) -> None:
    with pytest.raises(NotFoundError):
        async with house.faces.locked(house.tenant.tenant_id, house.other_gallery):
            pass


async def test_a_row_cannot_be_written_for_another_tenant(house: House, database: Database) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction(house.tenant.tenant_id) as connection:
            await connection.execute(
                "insert into tenant (tenant_id, name) values (gen_random_uuid(), 'stolen')"
            )


async def test_the_tenant_setting_ends_with_its_transaction(
    house: House, database: Database
) -> None:
    for _ in range(8):
        async with database.transaction(house.tenant.tenant_id) as connection:
            assert await connection.fetchval("select count(*) from gallery") == 1
        await database.fetch(
            "select * from oneton_gallery($1, $2)", house.tenant.tenant_id, DEFAULT_GALLERY
        )
        assert await database.fetch("select * from gallery") == []
