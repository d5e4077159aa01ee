"""The deep examination finds every fault that is put in, and no other; it repairs what it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import cast
from uuid import uuid4

import asyncpg
import msgspec
import numpy as np
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.errors import StoreDownError
from oneton.domain.examining import Examined, Finding, Kind
from oneton.domain.model import DEFAULT_GALLERY, Changes, FaceId, TenantId, image_key
from oneton.domain.requests import PICTURES, PictureId, StoredPicture
from oneton.images.files import FileStore
from oneton.index.inspection import find_snapshots
from oneton.records.audit import Audit
from oneton.records.database import Database
from oneton.records.examining import Examining
from oneton.records.idempotency import Idempotency
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.reindexing import Reindexing
from oneton.records.requests import Pictures
from oneton.records.tenants import Tenants
from oneton.verbs import examine_deep
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.erase import Erase
from oneton.verbs.examine_deep import ExamineDeep, Examiner
from oneton.verbs.examine_heads import ExamineHeads
from oneton.verbs.examine_indexes import ExamineIndexes
from oneton.verbs.examine_objects import ExamineObjects
from oneton.verbs.examine_queues import ExamineQueues
from oneton.verbs.examine_snapshots import ExamineSnapshots
from oneton.verbs.examine_templates import ExamineTemplates
from oneton.verbs.purge import Purge
from oneton.verbs.reembed_face import ReembedFace
from oneton.verbs.repair_findings import RepairFindings
from oneton.verbs.sweep import Sweep
from tests.fixtures.damage import flip
from tests.fixtures.postgres import Dsns
from tests.records.conftest import House, make_catch_up, open_hands, unit_rows
from tests.records.processes import process

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff picture"


class Ward(msgspec.Struct, frozen=True):
    """A system that is examined."""

    house: House
    dsns: Dsns
    database: Database
    store: FileStore
    folder: Path

    @property
    def tenant(self) -> TenantId:
        return self.house.tenant.tenant_id

    async def enroll(self, rng: np.random.Generator) -> FaceId:
        face_id = FaceId(uuid7())
        await self.store.put(self.key(face_id), JPEG, "image/jpeg")
        async with self.house.faces.locked(self.tenant, self.house.gallery) as locked:
            await locked.add(
                face_id, unit_rows(rng, 1)[0], content_type="image/jpeg", idempotency_key=None
            )
        return face_id

    def key(self, name: object) -> str:
        return image_key(self.tenant, DEFAULT_GALLERY, str(name))

    async def sql(self, sql: str, *arguments: object) -> None:
        """Change rows as nobody may, past keys and policies."""
        connection = await asyncpg.connect(self.dsns.owner, server_settings={"role": "none"})
        try:
            async with connection.transaction():
                await connection.execute("set local session_replication_role = replica")
                await connection.execute(sql, *arguments)
        finally:
            await connection.close()

    def sweep(self) -> Sweep:
        house = self.house
        return Sweep(
            Tenants(self.database),
            house.galleries,
            house.faces,
            Pictures(self.database),
            JobsOfTenants(self.database),
            self.store,
        )

    def examiners(
        self, *, grace: timedelta = timedelta(0), decode: bool = False
    ) -> tuple[Examiner, ...]:
        house, tenants = self.house, Tenants(self.database)
        examining = Examining(self.database)
        return (
            ExamineObjects(self.sweep(), tenants, self.store, grace, decode, 1 << 20, 1 << 20),
            ExamineHeads(tenants, house.galleries, examining),
            ExamineTemplates(tenants, house.galleries, house.faces, house.packs, examining),
            ExamineSnapshots(tenants, self.folder / "snapshots", self.store),
            ExamineIndexes(
                tenants, house.galleries, house.faces, examining, partial(open_indexes, self)
            ),
            ExamineQueues(tenants, examining),
        )

    async def examine(self, **options: object) -> dict[str, Examined]:
        examiners = self.examiners(**options)  # type: ignore[arg-type]  # its own options
        return {each.subject: each for each in await ExamineDeep(examiners, lambda _: None)()}

    async def findings(self, **options: object) -> list[Finding]:
        every = await self.examine(**options)
        return [each for subject in every.values() for each in subject.findings]

    def repair(self, *, accept_lost: bool = False, lost_at_most: int = 0) -> RepairFindings:
        return RepairFindings(
            faces=self.house.faces,
            pictures=Pictures(self.database),
            examining=Examining(self.database),
            images=self.store,
            sweep=self.sweep(),
            audit=Audit(self.database),
            grace=timedelta(0),
            folder=self.folder / "snapshots",
            # The real one is judged over the command, with a real model.
            reembed=cast("ReembedFace", None),
            accept_lost=accept_lost,
            lost_at_most=lost_at_most,
        )


@asynccontextmanager
async def open_indexes(ward: Ward) -> AsyncIterator[CatchUp]:
    with open_hands(ward.folder / f"own-{uuid4().hex[:6]}") as hands:
        made = make_catch_up(ward.house, hands)
        yield made
        await made.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine_deep, "SETTLE_S", 0.05)


@pytest.fixture
async def ward(
    house: House, dsns: Dsns, database: Database, tmp_path: Path, rng: np.random.Generator
) -> Ward:
    """Two tenants; one with eight faces, of which one was erased and one purged, and a picture."""
    store = FileStore(tmp_path / "images")
    for face in await house.faces.page(house.other.tenant_id, house.other_gallery, None, 10):
        await store.put(face.image_key, JPEG, "image/jpeg")
    made = Ward(house, dsns, database, store, tmp_path)
    faces = [await made.enroll(rng) for _ in range(8)]
    await Erase(house.faces, store)(made.tenant, faces[3])
    purge = Purge(house.galleries, house.faces, store, Reindexing(database), Idempotency(database))
    await purge(made.tenant, faces[5])
    picture = StoredPicture(PictureId(uuid4()), made.tenant, "image/jpeg", "")
    await store.put(f"{made.tenant}/{PICTURES}/{picture.picture_id}", JPEG, "image/jpeg")
    await Pictures(database).add(picture, None)
    return made


async def test_a_system_that_is_well_is_found_so_and_counted(ward: Ward) -> None:
    every = await ward.examine()
    assert [each for subject in every.values() for each in subject.findings] == []
    assert every["objects"].looked_at == {"objects": 10, "rows": 10}
    assert every["heads"].looked_at == {"galleries": 2, "stamps": 12}
    assert every["templates"].looked_at == {"templates": 10}
    assert every["indexes"].looked_at == {"galleries": 2, "faces": 10, "searches": 10}


async def delete_image(ward: Ward, face: FaceId) -> None:
    await ward.store.delete(ward.key(face))


async def empty_image(ward: Ward, face: FaceId) -> None:
    await ward.store.put(ward.key(face), b"", "image/jpeg")


async def leave_an_object(ward: Ward, _: FaceId) -> None:
    await ward.store.put(ward.key(uuid7()), JPEG, "image/jpeg")


async def leave_a_strangers_object(ward: Ward, _: FaceId) -> None:
    await ward.store.put(f"{uuid4()}/default/{uuid7()}", JPEG, "image/jpeg")


async def skip_a_head(ward: Ward, _: FaceId) -> None:
    await ward.sql("update gallery set head = head + 1 where tenant_id = $1", ward.tenant)


async def use_a_head_twice(ward: Ward, face: FaceId) -> None:
    await ward.sql(
        """update face set added_at_head = (select removed_at_head from face
             where removed_at_head is not null) where face_id = $1""",
        face,
    )


async def lose_a_template(ward: Ward, face: FaceId) -> None:
    await ward.sql(
        "delete from template where face_no = (select face_no from face where face_id = $1)", face
    )


async def cut_a_template(ward: Ward, face: FaceId) -> None:
    await _write_template(ward, face, b"\x00\x3c" * 3)


async def stretch_a_template(ward: Ward, face: FaceId) -> None:
    await _write_template(ward, face, b"\x00\x3c" * 16)


async def _write_template(ward: Ward, face: FaceId, data: bytes) -> None:
    await ward.sql(
        """update template set embedding = $2
           where face_no = (select face_no from face where face_id = $1)""",
        face,
        data,
    )


async def leave_a_template(ward: Ward, _: FaceId) -> None:
    await ward.sql(
        """insert into template (model_pack_no, face_no, tenant_id, embedding)
           select model_pack_no, 999, tenant_id, embedding from template
           where tenant_id = $1 limit 1""",
        ward.tenant,
    )


async def leave_a_template_of_a_removed_face(ward: Ward, _: FaceId) -> None:
    await ward.sql(
        """insert into template (model_pack_no, face_no, tenant_id, embedding)
           select model_pack_no, (select face_no from face where removed_at_head is not null),
             tenant_id, embedding from template where tenant_id = $1 limit 1""",
        ward.tenant,
    )


async def leave_a_claim(ward: Ward, _: FaceId) -> None:
    await ward.sql(
        """insert into idempotency (tenant_id, key, fingerprint, claimed_at)
           values ($1, 'k', '', now() - interval '25 hours')""",
        ward.tenant,
    )


async def leave_a_job(ward: Ward, _: FaceId) -> None:
    await ward.sql(
        """insert into job (job_id, tenant_id, kind, subject, updated_at)
           values (gen_random_uuid(), $1, 'delete_gallery', 'x', now() - interval '2 hours')""",
        ward.tenant,
    )


async def leave_a_delivery(ward: Ward, _: FaceId) -> None:
    endpoint = uuid4()
    await ward.sql(
        """insert into webhook_endpoint (endpoint_id, tenant_id, dialect, url, secret)
           values ($2, $1, 'native', 'https://example.com', 's')""",
        ward.tenant,
        endpoint,
    )
    await ward.sql(
        """insert into outbox (delivery_id, tenant_id, endpoint_id, event_id, event_type, body,
             next_at)
           values (gen_random_uuid(), $1, $2, gen_random_uuid(), 'x', '{}',
             now() - interval '1 hour')""",
        ward.tenant,
        endpoint,
    )


async def leave_an_entry(ward: Ward, _: FaceId) -> None:
    await ward.sql(
        """insert into oneton_pgqueuer (priority, status, entrypoint, execute_after)
           values (0, 'queued', 'reembed', now() - interval '2 hours')"""
    )


async def half_a_reindex(ward: Ward, _: FaceId) -> None:
    await ward.sql(
        "insert into model_pack (name, sha256, dimension) values ('second', repeat('1', 64), 16)"
    )
    await ward.sql(
        """update gallery set second = 'filling', second_pack_no = (
             select model_pack_no from model_pack where name = 'second') where tenant_id = $1""",
        ward.tenant,
    )


FAULTS: dict[Kind, list[Callable[[Ward, FaceId], Awaitable[None]]]] = {
    Kind.IMAGE_MISSING: [delete_image],
    Kind.IMAGE_EMPTY: [empty_image],
    Kind.LEFTOVER_OBJECT: [leave_an_object],
    Kind.UNKNOWN_OBJECTS: [leave_a_strangers_object],
    Kind.HEADS: [skip_a_head],
    Kind.TEMPLATE_MISSING: [lose_a_template],
    Kind.TEMPLATE_DAMAGED: [stretch_a_template],
    Kind.TEMPLATE_LEFTOVER: [leave_a_template, leave_a_template_of_a_removed_face],
    Kind.CLAIMS_LEFT: [leave_a_claim],
    Kind.JOB_STUCK: [leave_a_job],
    Kind.DELIVERIES_STUCK: [leave_a_delivery],
    Kind.QUEUE_STUCK: [leave_an_entry],
    Kind.REINDEX_STUCK: [half_a_reindex],
}
CLEARED = {Kind.LEFTOVER_OBJECT, Kind.TEMPLATE_LEFTOVER, Kind.CLAIMS_LEFT}
LOST = {Kind.IMAGE_MISSING, Kind.IMAGE_EMPTY}
CASES = [(kind, inject) for kind, faults in FAULTS.items() for inject in faults]


@pytest.mark.parametrize(("kind", "inject"), CASES, ids=[fault.__name__ for _, fault in CASES])
async def test_a_fault_is_found_alone_and_repaired_where_it_is_safe(
    ward: Ward,
    rng: np.random.Generator,
    kind: Kind,
    inject: Callable[[Ward, FaceId], Awaitable[None]],
) -> None:
    face = await ward.enroll(rng)
    await inject(ward, face)
    found = await ward.findings()
    assert {each.kind for each in found} - {Kind.SEARCH} == {kind}, found
    if kind in (Kind.TEMPLATE_MISSING, Kind.TEMPLATE_DAMAGED):
        assert [each.subject for each in found if each.kind is kind] == [str(face)]
        return
    repairs = await ward.repair()(found)
    assert {each.done for each in repairs} == {kind in CLEARED}
    if kind in LOST:
        repairs = await ward.repair(accept_lost=True)(found)
        assert [each.said for each in repairs] == ["marked as erased"]
        face_record = await ward.house.faces.find(ward.tenant, face)
        assert not face_record.has_image
    left = await ward.findings()
    assert (left == []) == (kind in CLEARED | LOST)
    noted = await Audit(ward.database).page(ward.tenant, limit=10)
    assert ("repaired" in {str(each.action) for each in noted}) == (kind in CLEARED | LOST)


async def test_an_empty_store_is_not_believed_unless_that_is_said(
    ward: Ward, rng: np.random.Generator
) -> None:
    faces = [await ward.enroll(rng) for _ in range(8)]
    for stored in [each.key async for each in ward.store.list()]:
        await ward.store.delete(stored)
    await leave_an_object(ward, faces[0])
    examined = await ward.examine()
    found, rows = examined["objects"].findings, examined["objects"].looked_at["rows"]
    lost = [each for each in found if each.kind is Kind.IMAGE_MISSING]
    assert len(lost) > 10
    assert len(found) == len(lost) + 1
    repairs = await ward.repair(accept_lost=True)(found, rows)
    assert not any(each.done for each in repairs)
    assert all("is it the right object store?" in each.said for each in repairs)
    assert (await ward.house.faces.find(ward.tenant, faces[0])).has_image
    sure = ward.repair(accept_lost=True, lost_at_most=len(lost))
    assert all(each.done for each in await sure(found, rows))
    # A tenth of many rows is not as suspicious.
    assert ward.repair()._doubt(lost, 10 * len(lost)) == ""


async def test_a_template_that_is_cut_short_is_named(ward: Ward, rng: np.random.Generator) -> None:
    face = await ward.enroll(rng)
    await cut_a_template(ward, face)
    examiner = ward.examiners()[2]
    (found,) = (await examiner()).findings
    assert (found.kind, found.subject) == (Kind.TEMPLATE_DAMAGED, str(face))
    assert found.said == "6 bytes, not 32"


async def test_a_head_that_is_used_twice_is_found(ward: Ward, rng: np.random.Generator) -> None:
    face = await ward.enroll(rng)
    await use_a_head_twice(ward, face)
    (found,) = (await ward.examiners()[1]()).findings
    assert found.said == "head 10, 10 stamps, 9 different, from 1 to 9"


async def test_an_image_that_cannot_be_decoded_is_found_when_asked_for(ward: Ward) -> None:
    found = await ward.findings(decode=True)
    assert len(found) == 9
    assert {each.kind for each in found} == {Kind.IMAGE_UNREADABLE}, "they are no pictures"


async def test_an_index_that_lost_a_face_and_one_that_has_too_many_are_found(
    ward: Ward, rng: np.random.Generator
) -> None:
    class Spoiled(CatchUp):
        """Changes what it brought in."""

        spoil: Callable[[Changes], Changes]

        async def __call__(self, *args: object, **options: object) -> object:  # type: ignore[override]
            current = await super().__call__(*args, **options)  # type: ignore[arg-type]
            index = current.index
            index.catch_up(self.spoil(_none(index.head)))
            return current

    def _none(head: int) -> Changes:
        empty = np.empty(0, np.int64)
        return Changes(head, head, empty, np.empty((0, 16), np.float32), empty)

    async def look(spoil: Callable[[Changes], Changes]) -> list[str]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[CatchUp]:
            async with open_indexes(ward) as made:
                made.__class__ = Spoiled
                made.spoil = spoil  # type: ignore[attr-defined]
                yield made

        house = ward.house
        examine = ExamineIndexes(
            Tenants(ward.database),
            house.galleries,
            house.faces,
            Examining(ward.database),
            opened,
        )
        return [each.said for each in (await examine()).findings]

    removed = np.arange(1, 5, dtype=np.int64)
    said = await look(lambda each: msgspec.structs.replace(each, removed_face_nos=removed))
    assert any("it lacks" in each for each in said)
    extra = {"added_face_nos": np.array([900]), "added_embeddings": unit_rows(rng, 1)}
    said = await look(lambda each: msgspec.structs.replace(each, **extra))
    assert said == [
        "at head 9 it has 8 faces, the table 7",
        "at head 3 it has 4 faces, the table 3",
    ]


async def test_a_damaged_snapshot_and_a_copy_that_lacks_files_are_found_and_put_away(
    ward: Ward, rng: np.random.Generator
) -> None:
    for _ in range(70):
        await ward.enroll(rng)
    async with process(ward.house, ward.folder / "snapshots") as here:
        assert await here.take()
    assert await ward.findings() == []
    (snapshot,) = find_snapshots(ward.folder / "snapshots")
    key = f"{ward.tenant}/default/1-test-000000000000-0/{snapshot.path.name}"
    await ward.store.put_file(key, snapshot.path)
    flip(0.5)(snapshot.path.with_suffix(".state"))
    found = await ward.findings()
    assert {each.kind for each in found} == {Kind.SNAPSHOT_DAMAGED, Kind.COPY_INCOMPLETE}
    assert {each.done for each in await ward.repair()(found)} == {True}
    assert await ward.findings() == []
    assert [each.set_aside for each in find_snapshots(ward.folder / "snapshots")] == [True]


async def test_nothing_is_found_while_faces_come_and_go(
    ward: Ward, rng: np.random.Generator
) -> None:
    going, faces = True, [await ward.enroll(rng) for _ in range(40)]
    purge = Purge(
        ward.house.galleries,
        ward.house.faces,
        ward.store,
        Reindexing(ward.database),
        Idempotency(ward.database),
    )
    erase, done = Erase(ward.house.faces, ward.store), 0

    async def change() -> None:
        nonlocal done
        while going:
            faces.append(await ward.enroll(rng))
            await (erase if done % 2 else purge)(ward.tenant, faces.pop(0))
            done += 1

    changing = [asyncio.create_task(change()) for _ in range(2)]
    try:
        for _ in range(3):
            # The grace is that of a live system, longer than an enrolment takes.
            assert await ward.findings(grace=timedelta(minutes=5)) == []
    finally:
        going = False
        await asyncio.gather(*changing)
    assert done > 10


async def test_a_part_that_is_away_for_a_moment_does_not_end_the_examination(ward: Ward) -> None:
    class Away:
        """Fails once."""

        calls = 0

        async def __call__(self) -> Examined:
            self.calls += 1
            if self.calls == 1:
                raise StoreDownError("away")
            return Examined("away")

    (examined,) = await ExamineDeep([Away()], lambda _: None)()
    assert examined.subject == "away"
