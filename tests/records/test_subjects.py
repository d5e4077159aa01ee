"""Everything of one person is found, exported and purged, and nothing of anybody else."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import numpy as np
import pytest
from uuid_utils.compat import uuid7

from oneton.domain.audit import Action
from oneton.domain.errors import NotFoundError, StoreDownError
from oneton.domain.lists import EntryType, ListId, ListType, NewEntry, NewList, UserDetails
from oneton.domain.merchants import NewUser
from oneton.domain.model import FaceId, FaceNote, TenantId
from oneton.domain.requests import NewPicture, NewRequest, RequestId, RequestState
from oneton.domain.subjects import Roots, Subject, Thing, ThingKind
from oneton.images.files import FileStore
from oneton.records.audit import Audit
from oneton.records.database import Database
from oneton.records.face_expiries import FaceExpiries
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.idempotency import Answer, Idempotency
from oneton.records.lists import Lists
from oneton.records.merchants import MerchantUsers
from oneton.records.reindexing import Reindexing
from oneton.records.requests import Pictures
from oneton.records.subjects import Subjects
from oneton.records.vendor_users import VendorUsers
from oneton.verbs.erase import Erase
from oneton.verbs.export_subject import ExportSubject
from oneton.verbs.find_subject import FindSubject
from oneton.verbs.forget_merchant_user import ForgetMerchantUser
from oneton.verbs.forget_request import ForgetRequest
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.purge import Purge
from oneton.verbs.purge_subject import PurgeSubject
from oneton.verbs.saved_requests import SavedRequests
from tests.records.conftest import House, unit_rows

pytestmark = pytest.mark.anyio

ADA, BOB = "ada-1", "bob-1"
JPEG = b"\xff\xd8\xff picture of "
OWNER = uuid4()


class Desk(msgspec.Struct, frozen=True):
    """One tenant's records, and what answers data subjects."""

    house: House
    database: Database
    store: FileStore
    rng: np.random.Generator
    find: FindSubject
    purge: PurgeSubject
    export: ExportSubject
    saved: SavedRequests
    answers: Idempotency

    @property
    def tenant(self) -> TenantId:
        return self.house.tenant.tenant_id

    async def enroll(self, name: str | None, request_id: UUID | None = None) -> FaceId:
        face_id, gallery = FaceId(UUID(str(uuid7()))), self.house.gallery
        note = FaceNote(external_id=name, request_id=request_id)
        key = f"{self.tenant}/{gallery.gallery_id}/{face_id}"
        await self.store.put(key, JPEG + str(name).encode(), "image/jpeg")
        async with self.house.faces.locked(self.tenant, gallery) as locked:
            await locked.add(
                face_id,
                unit_rows(self.rng, 1)[0],
                content_type="image/jpeg",
                idempotency_key=None,
                note=note,
            )
        return face_id

    async def save(self, name: str | None, face_id: FaceId | None = None) -> RequestId:
        new = NewRequest(
            request_id=RequestId(uuid7()),
            dialect="didit",
            kind="face_match",
            state=RequestState.APPROVED,
            external_id=name,
            face_id=face_id,
            result=msgspec.Raw(b'{"candidates": ["somebody else"]}'),
        )
        picture = NewPicture("user_image", JPEG + str(name).encode(), "image/jpeg")
        await self.saved.save(self.tenant, new, [picture])
        return new.request_id

    async def list_face(self, face_id: FaceId, request_id: UUID | None) -> None:
        new = NewList(ListId(uuid4()), str(uuid4()), ListType.BLOCKLIST, EntryType.FACE)
        lists = Lists(self.database)
        await lists.create(self.tenant, new)
        entry = NewEntry(value=str(face_id), added_by="ann", request_id=request_id, face_id=face_id)
        await lists.add(self.tenant, new.list_id, entry)

    async def everything_of(self, name: str) -> tuple[FaceId, RequestId]:
        """A call with its face, a copy of it on a list, and users of two dialects."""
        face_id = await self.enroll(name)
        request_id = await self.save(name, face_id)
        await self.list_face(await self.enroll(None, request_id), request_id)
        await VendorUsers(self.database).create(self.tenant, name, UserDetails())
        await MerchantUsers(self.database).add(
            self.tenant, uuid4().hex[:24], NewUser(name=name, external_id=name)
        )
        return face_id, request_id

    async def of(self, *external_ids: str, faces: Sequence[FaceId] = ()) -> Subject:
        roots = Roots(tuple((each, None) for each in faces), external_ids)
        return await self.find(self.tenant, roots)

    async def keys(self) -> set[str]:
        return {each.key async for each in self.store.list()}


@pytest.fixture
def desk(house: House, database: Database, tmp_path: Path, rng: np.random.Generator) -> Desk:
    store, audit = FileStore(tmp_path / "images"), Audit(database)
    faces, expiries = Faces(database), FaceExpiries(database)
    answers = Idempotency(database)
    purge = Purge(Galleries(database), faces, store, Reindexing(database), answers)
    saved = SavedRequests(database, store)
    forget = ForgetRequest(saved, faces, Erase(faces, store), purge, expiries, audit)
    forget_user = ForgetMerchantUser(
        MerchantUsers(database), KeepPicture(Pictures(database), store)
    )
    lists, users = Lists(database), VendorUsers(database)
    return Desk(
        house,
        database,
        store,
        rng,
        FindSubject(Subjects(database), audit, answers),
        PurgeSubject(purge, forget, forget_user, lists, users, expiries, audit, answers),
        ExportSubject(store, audit),
        saved,
        answers,
    )


def kinds(subject: Subject) -> dict[ThingKind, int]:
    return {
        kind: count
        for kind in ThingKind
        if (count := sum(each.kind is kind for each in subject.things))
    }


EVERYTHING = {
    ThingKind.FACE: 2,
    ThingKind.REQUEST: 1,
    ThingKind.LIST_ENTRY: 1,
    ThingKind.VENDOR_USER: 1,
    ThingKind.MERCHANT_USER: 1,
}


async def test_everything_of_a_person_is_found_from_anywhere(desk: Desk) -> None:
    face_id, _ = await desk.everything_of(ADA)
    await desk.everything_of(BOB)
    by_name = await desk.of(ADA)
    assert kinds(by_name) == EVERYTHING
    assert kinds(await desk.of(faces=[face_id])) == EVERYTHING
    (copy,) = set(by_name.face_ids) - {face_id}
    assert kinds(await desk.of(faces=[copy])) == EVERYTHING
    assert b"bob" not in msgspec.json.encode(by_name)
    actions = {each.action for each in by_name.events}
    assert actions == {Action.ENROLL, Action.ADD_ENTRY}


async def test_another_tenants_person_of_the_same_name_is_not_found(desk: Desk) -> None:
    face_id, _ = await desk.everything_of(ADA)
    other = desk.house.other.tenant_id
    roots = Roots(((face_id, None),), (ADA,))
    assert await desk.find(other, roots) == Subject((), ())


async def test_who_is_left_out_is_not_followed(desk: Desk) -> None:
    ada, _ = await desk.everything_of(ADA)
    bob, _ = await desk.everything_of(BOB)
    roots = Roots(((ada, None), (bob, None)), (), frozenset({bob}))
    found = await desk.find(desk.tenant, roots)
    assert kinds(found) == EVERYTHING
    assert b"bob" not in msgspec.json.encode(found)


async def test_a_purge_leaves_nothing_of_one_person_and_all_of_another(desk: Desk) -> None:
    ada, request_id = await desk.everything_of(ADA)
    await desk.everything_of(BOB)
    bobs = await desk.keys()
    found = await desk.of(ADA)
    bobs -= {image.key for each in found.things for image in each.images}
    await desk.purge(desk.tenant, found)
    again = await desk.of(ADA, faces=list(found.face_ids))
    assert again.things == ()
    assert again.events == ()
    assert await desk.keys() == bobs
    assert kinds(await desk.of(BOB)) == EVERYTHING
    with pytest.raises(NotFoundError):
        await desk.saved.read(desk.tenant, request_id)
    newest = (await Audit(desk.database).page(desk.tenant, limit=1))[0]
    assert newest.action == Action.PURGE_SUBJECT
    assert set(newest.face_ids) == set(found.face_ids) >= {ada}


async def test_answers_kept_for_repeats_that_name_a_person_go_with_them(desk: Desk) -> None:
    face_id, request_id = await desk.everything_of('ada "one"')
    bob, _ = await desk.everything_of(BOB)
    names = msgspec.json.encode({"external_id": 'ada "one"'})
    texts = {
        "face": f'{{"face_id":"{face_id}"}}'.encode(),
        "name": names,
        "call": f'{{"request_id":"{request_id}"}}'.encode(),
        "bob": f'{{"face_id":"{bob}","external_id":"ada"}}'.encode(),
    }
    for tenant in (desk.tenant, desk.house.other.tenant_id):
        for key, body in texts.items():
            await desk.answers.claim(tenant, key, b"", OWNER)
            await desk.answers.keep(tenant, key, OWNER, Answer(201, {}, body))
    found = await desk.of('ada "one"')
    assert found.answers == 3
    await desk.purge(desk.tenant, found)
    async with desk.database.transaction(desk.tenant) as connection:
        assert await connection.fetchval("select array_agg(key) from idempotency") == ["bob"]
    assert await desk.answers.count(desk.house.other.tenant_id, [names.decode()]) == 1
    newest = (await Audit(desk.database).page(desk.tenant, limit=1))[0]
    assert msgspec.json.decode(newest.details)["kept answer"] == 3


async def test_a_purged_faces_kept_answers_go_too(desk: Desk) -> None:
    ada, bob = await desk.enroll(ADA), await desk.enroll(BOB)
    for face_id in (ada, bob):
        await desk.answers.claim(desk.tenant, str(face_id), b"", OWNER)
        answer = Answer(201, {}, msgspec.json.encode({"face_id": face_id}))
        await desk.answers.keep(desk.tenant, str(face_id), OWNER, answer)
    await desk.purge.purge(desk.tenant, ada)
    assert await desk.answers.count(desk.tenant, [str(ada)]) == 0
    assert await desk.answers.count(desk.tenant, [str(bob)]) == 1


@pytest.mark.parametrize("by", ["name", "id"])
async def test_a_purge_that_crashes_after_each_step_is_ended_by_the_same_call(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    face_id, _ = await desk.everything_of(ADA)
    names, faces = ([ADA], []) if by == "name" else ([], [face_id])
    found = await desk.of(*names, faces=faces)
    remove = PurgeSubject._remove

    async def crash_after(self: PurgeSubject, tenant: TenantId, thing: Thing) -> None:
        await remove(self, tenant, thing)
        raise StoreDownError("crashed")

    monkeypatch.setattr(PurgeSubject, "_remove", crash_after)
    for gone in range(len(found.things)):
        left = await desk.of(*names, faces=faces)
        assert len(left.things) == len(found.things) - gone
        with pytest.raises(StoreDownError):
            await desk.purge(desk.tenant, left)
    assert (await desk.of(ADA, faces=list(found.face_ids))).things == ()
    assert await desk.keys() == set()


async def test_a_purge_twice_at_once_is_no_error(desk: Desk) -> None:
    await desk.everything_of(ADA)
    found = await desk.of(ADA)
    await desk.purge(desk.tenant, found)
    await desk.purge(desk.tenant, found)


async def test_a_face_that_was_to_go_later_goes_now(desk: Desk) -> None:
    face_id = await desk.enroll(ADA)
    expiries = FaceExpiries(desk.database)
    await expiries.set(desk.tenant, face_id, timedelta(0))
    await desk.purge(desk.tenant, await desk.of(ADA))
    assert await expiries.due(10) == []


async def test_an_export_holds_the_images_and_nothing_of_other_persons(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.everything_of(ADA)
    await desk.everything_of(BOB)
    found, output = await desk.of(ADA), tmp_path / "ada.zip"
    done = await desk.export(desk.tenant, found, output)
    assert (done.things, done.images, done.missing) == (6, 3, ())
    assert output.stat().st_mode & 0o777 == 0o600
    assert sorted(each for each in os.listdir(tmp_path) if each != "images") == ["ada.zip"]
    with zipfile.ZipFile(output) as zipped:
        names = zipped.namelist()
        texts = [zipped.read(each) for each in names]
        document = msgspec.json.decode(zipped.read("subject.json"))
        page = zipped.read("index.html").decode()
    pictures = [each for each in names if each.startswith("images/")]
    assert len(pictures) == 3
    assert sorted(each for one in document["things"] for each in one["images"]) == sorted(pictures)
    assert all(each in page for each in pictures)
    for each in texts:
        assert b"bob" not in each
        assert b"somebody else" not in each
    newest = (await Audit(desk.database).page(desk.tenant, limit=1))[0]
    assert newest.action == Action.EXPORT_SUBJECT


async def test_an_export_names_an_image_that_is_missing_and_escapes_what_it_shows(
    desk: Desk, tmp_path: Path
) -> None:
    face_id = await desk.enroll("<script>alert(1)</script>")
    found = await desk.of(faces=[face_id])
    (image,) = found.things[0].images
    await desk.store.delete(image.key)
    done = await desk.export(desk.tenant, found, tmp_path / "it.zip")
    assert done.missing == (image.key,)
    with zipfile.ZipFile(tmp_path / "it.zip") as zipped:
        assert b"<script" not in zipped.read("index.html")
