"""The audit trail: nobody changes it, nobody else reads it, and no change goes without it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec
import numpy as np
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.acting import Actor, acting_as
from oneton.domain.audit import Act, Action, AuditEvent, AuditFilter
from oneton.domain.errors import SettingError
from oneton.domain.model import DEFAULT_GALLERY, FaceId, FaceNote, GalleryId, TenantId
from oneton.records.audit import Audit
from oneton.records.audit_expiry import expire_audit
from oneton.records.database import Database
from tests.fixtures.postgres import Dsns
from tests.records.conftest import House, add, unit_rows

pytestmark = pytest.mark.anyio

CALLER = Actor("key 1", "192.0.2.7", "call-1")


@pytest.fixture
def audit(database: Database) -> Audit:
    return Audit(database)


async def actions(audit: Audit, tenant: TenantId | None) -> list[str]:
    return [each.action for each in await audit.page(tenant, limit=100)]


@pytest.mark.parametrize(
    "statement",
    [
        "update audit_event set actor = 'nobody'",
        "delete from audit_event",
        "truncate audit_event",
        "alter table audit_event disable row level security",
        "drop table audit_event",
        "drop policy own on audit_event",
    ],
)
async def test_an_event_cannot_be_changed_by_the_apps_role(
    house: House, database: Database, audit: Audit, statement: str
) -> None:
    tenant = house.tenant.tenant_id
    before = await audit.page(tenant, limit=10)
    assert before
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction(tenant) as connection:
            await connection.execute(statement)
    assert await audit.page(tenant, limit=10) == before


async def test_no_function_of_the_apps_role_changes_an_event(
    database: Database, dsns: Dsns
) -> None:
    owner = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        rows = await owner.fetch(
            """select p.proname, pg_get_functiondef(p.oid) as text from pg_proc p
               join pg_namespace n on n.oid = p.pronamespace
               where n.nspname = 'public' and p.prosecdef and p.prokind = 'f'
                 and pg_get_functiondef(p.oid) ilike '%audit_event%'"""
        )
    finally:
        await owner.close()
    texts = {row["proname"]: " ".join(row["text"].lower().split()) for row in rows}
    assert {"oneton_events_of_face", "oneton_note_events"} <= set(texts)
    # The trail of a deleted tenant goes with it; that it was deleted is an operator's event.
    del texts["oneton_forget_tenants"]
    for name, text in texts.items():
        for verb in ("update audit_event", "delete from audit_event", "truncate"):
            assert verb not in text, name


async def test_what_forgets_deleted_tenants_keeps_the_events_of_others(
    house: House, database: Database, audit: Audit
) -> None:
    tenant = house.tenant.tenant_id
    before = await audit.page(tenant, limit=10)
    await database.fetch("select oneton_forget_tenants()")
    assert await audit.page(tenant, limit=10) == before != []


async def test_another_tenants_events_are_not_seen(
    house: House, audit: Audit, rng: np.random.Generator
) -> None:
    face_id = await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
    of_face = AuditFilter(face_id=face_id)
    (event,) = await audit.page(house.tenant.tenant_id, limit=10, which=of_face)
    assert (event.action, event.gallery_id) == (Action.ENROLL, DEFAULT_GALLERY)
    assert await audit.page(house.other.tenant_id, limit=10, which=of_face) == []
    assert await audit.page(None, limit=10, which=of_face) == []
    assert event not in await audit.page(house.other.tenant_id, limit=100)
    assert event not in await audit.page(None, limit=100)


async def test_an_operators_event_is_no_tenants(house: House, audit: Audit) -> None:
    await audit.note_act(None, Act("models add", details={"pack": "test"}))
    assert (await actions(audit, None))[0] == "models add"
    assert "models add" not in await actions(audit, house.tenant.tenant_id)


async def test_a_change_has_its_event_with_who_and_from_where(
    house: House, audit: Audit, rng: np.random.Generator
) -> None:
    tenant = house.tenant.tenant_id
    with acting_as(CALLER):
        face_id = await add(house.faces, house.gallery, unit_rows(rng, 1)[0])
        await house.faces.change_note(tenant, face_id, FaceNote(external_id="secret name"))
        await house.faces.erase_image(tenant, face_id)
        async with house.faces.locked(tenant, house.gallery) as locked:
            assert await locked.purge(face_id)
            assert not await locked.purge(face_id)
    events = await audit.page(tenant, limit=10, which=AuditFilter(face_id=face_id))
    expected = [Action.PURGE, Action.ERASE, Action.CHANGE_FACE, Action.ENROLL]
    assert [each.action for each in events] == expected
    for each in events:
        assert (each.actor, each.address, each.request_id) == ("key 1", "192.0.2.7", "call-1")
        assert each.face_ids == (face_id,)
        assert b"secret" not in msgspec.json.encode(each)


async def test_a_change_that_is_undone_has_no_event(
    house: House, audit: Audit, rng: np.random.Generator
) -> None:
    tenant, face_id = house.tenant.tenant_id, FaceId(UUID(str(uuid7())))
    with pytest.raises(RuntimeError):
        async with house.faces.locked(tenant, house.gallery) as locked:
            await locked.add(
                face_id, unit_rows(rng, 1)[0], content_type="image/jpeg", idempotency_key=None
            )
            raise RuntimeError
    assert await audit.page(tenant, limit=10, which=AuditFilter(face_id=face_id)) == []


async def test_a_gallery_is_made_changed_and_deleted_with_its_events(
    house: House, audit: Audit
) -> None:
    tenant = house.tenant.tenant_id
    made = await house.galleries.create(
        tenant, GalleryId("watch"), model_pack_no=house.gallery.model_pack_no
    )
    await house.galleries.judge_by(tenant, made, threshold=made.threshold, target_fpir=0.01)
    await house.galleries.delete(tenant, made)
    found = [
        each.action for each in await audit.page(tenant, limit=10) if each.gallery_id == "watch"
    ]
    assert found == [Action.DELETE_GALLERY, Action.CHANGE_GALLERY, Action.CREATE_GALLERY]


async def test_pages_and_the_whole_agree_and_meanwhile_nothing_shifts(
    house: House, audit: Audit
) -> None:
    tenant = house.tenant.tenant_id
    for number in range(7):
        await audit.note_act(tenant, Act("tried", details={"number": number}))
    whole = [each async for each in audit.every(tenant)]
    assert [each.event_no for each in whole] == sorted(each.event_no for each in whole)
    paged: list[AuditEvent] = []
    before = None
    while page := await audit.page(tenant, limit=3, before=before):
        paged += page
        before = page[-1].event_no
        await audit.note_act(tenant, Act("in between"))
    assert paged == whole[::-1]


async def test_an_export_of_many_chunks_ends_though_events_go_on(
    house: House, audit: Audit, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneton.records.audit.CHUNK", 2)
    tenant = house.tenant.tenant_id
    there = len(await audit.page(tenant, limit=100))
    for _ in range(5):
        await audit.note_act(tenant, Act("tried"))
    seen = 0
    async for _event in audit.every(tenant):
        seen += 1
        await audit.note_act(tenant, Act("in between"))
    assert seen == there + 5


async def test_events_are_chosen_by_who_what_and_when(house: House, audit: Audit) -> None:
    tenant, now = house.tenant.tenant_id, datetime.now(UTC)
    await audit.note(tenant, "ann", "one thing", {})
    await audit.note(tenant, "bob", "one thing", {})
    await audit.note(tenant, "ann", "another thing", {})
    minute = timedelta(minutes=1)

    async def count(**given: object) -> int:
        return len(await audit.page(tenant, limit=100, which=AuditFilter(**given)))  # type: ignore[arg-type]

    assert await count(actor="ann") == 2
    assert await count(actor="ann", action="one thing") == 1
    assert await count(actor="ann", since=now - minute, until=now + minute) == 2
    assert await count(actor="ann", since=now + minute) == 0
    assert await count(actor="ann", until=now - minute) == 0


async def test_a_listing_by_face_uses_its_index(
    house: House, database: Database, dsns: Dsns
) -> None:
    owner = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        await owner.execute("set enable_seqscan = off")
        rows = await owner.fetch(
            "explain select * from audit_event where face_ids @> array[$1::uuid]", UUID(int=0)
        )
        async with owner.transaction():
            await owner.execute("set local role oneton_app")
            await owner.execute(f"set local oneton.tenant = '{house.tenant.tenant_id}'")
            paged = await owner.fetch(
                "explain select * from audit_event where tenant_id = $1 order by event_no desc",
                house.tenant.tenant_id,
            )
    finally:
        await owner.close()
    assert "audit_event_by_face" in "\n".join(row[0] for row in rows)
    assert "audit_event_in_order" in "\n".join(row[0] for row in paged)


async def test_old_events_go_by_the_owner_only_and_leave_an_event(
    house: House, audit: Audit, dsns: Dsns
) -> None:
    tenant = house.tenant.tenant_id
    for _ in range(3):
        await audit.note_act(tenant, Act("old"))
    await audit.note_act(tenant, Act("young"))
    owner = await asyncpg.connect(dsns.owner, server_settings={"role": "none"})
    try:
        await owner.execute(
            "update audit_event set at = now() - interval '400 days' where action = 'old'"
        )
    finally:
        await owner.close()
    assert await expire_audit(dsns.owner, 365, keep=True) == 3
    before = await actions(audit, tenant)
    with pytest.raises(SettingError, match="ONETON_DATABASE_OWNER_URL"):
        await expire_audit(f"{dsns.owner}&options=-c%20role%3Doneton_app", 365)
    assert await actions(audit, tenant) == before
    with acting_as(Actor("operator ada")):
        assert await expire_audit(dsns.owner, 365) == 3
    left = await actions(audit, tenant)
    assert left == [Action.EXPIRE_AUDIT, *(each for each in before if each != "old")]
    for of in (tenant, None):
        newest = (await audit.page(of, limit=1))[0]
        assert (newest.actor, newest.action) == ("operator ada", Action.EXPIRE_AUDIT)
        assert msgspec.json.decode(newest.details) == {"older_than_days": 365, "events": 3}
    assert Action.EXPIRE_AUDIT not in await actions(audit, house.other.tenant_id)
