"""The client library against a real server, at once and awaited."""

from __future__ import annotations

import asyncio
import io
import logging
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, assert_type
from uuid import UUID, uuid4

import pytest
from _photos import variations

from oneton.client import (
    AsyncClient,
    Client,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NoFaceError,
    NotFoundError,
    UnauthenticatedError,
)
from oneton.client.answers import Enrolled, Identified, QualityFloor
from tests.fixtures.callers import MakeCaller
from tests.fixtures.pictures import landscape
from tests.fixtures.proxies import Refuse, run_proxy
from tests.fixtures.servers import Place, Server, new_tenant

pytestmark = pytest.mark.model


def test_a_search_finds_who_was_enrolled(caller: Client, people: dict[str, bytes]) -> None:
    ada = caller.enroll(people["ada"], external_id="a-1", metadata={"desk": [1, None]})
    assert (ada.added, ada.score, ada.gallery) == (True, None, "default")
    probe = variations(people["ada"], 1, seed=1)[0]
    found = caller.identify(probe, galleries="default", explain=True)
    best = found.candidates[0]
    assert found.match
    assert (best.face_id, best.external_id, best.rank) == (ada.face_id, "a-1", 1)
    assert best.metadata == {"desk": [1, None]}
    assert best.cosine is not None and best.fmr is not None and best.fmr < 1e-5
    assert found.explanation is not None
    assert [each.faces for each in found.explanation.galleries] == [1]
    assert best.image_url is not None
    assert caller.image_at(best.image_url).data == people["ada"]
    assert not caller.identify(people["gus"], matches_only=True).candidates


def test_a_search_asks_several_galleries(caller: Client, people: dict[str, bytes]) -> None:
    caller.create_gallery("watch", kind="blocklist", threshold=45)
    caller.enroll(people["gus"], "watch")
    caller.enroll(people["ada"])
    found = caller.identify(people["gus"], galleries=["default", "watch"], limit=2)
    assert [each.gallery for each in found.candidates] == ["watch", "default"]
    assert [each.match for each in found.candidates] == [True, False]


def test_an_enrolment_of_who_is_there_returns_the_record(
    caller: Client, people: dict[str, bytes]
) -> None:
    first = caller.enroll_if_missing(people["ada"])
    again = caller.enroll_if_missing(variations(people["ada"], 1, seed=2)[0])
    assert (first.added, again.added) == (True, False)
    assert again.face_id == first.face_id
    assert again.score is not None and again.score > 60


def test_tasks_share_a_client_and_one_of_them_adds(
    shared_place: Place, shared_server: Server, people: dict[str, bytes]
) -> None:
    async def work() -> list[Enrolled]:
        async with AsyncClient(shared_server.url, client_id=name, client_secret=secret) as client:
            photos = variations(people["ada"], 8, seed=4)
            return await asyncio.gather(*(client.enroll_if_missing(each) for each in photos))

    name, secret = new_tenant(shared_place).values()
    done = asyncio.run(work())
    assert [each.added for each in done].count(True) == 1
    assert len({each.face_id for each in done}) == 1


def test_a_comparison_gives_one_score(caller: Client, people: dict[str, bytes]) -> None:
    same = caller.verify(people["ada"], variations(people["ada"], 1, seed=3)[0])
    other = caller.verify(people["ada"], people["gus"], threshold=30)
    assert (same.match, same.threshold, other.match, other.threshold) == (True, 40, False, 30)
    assert len(same.detected.source) == 1


def test_a_picture_may_be_bytes_a_path_or_a_file(
    caller: Client, people: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "ada.jpg"
    path.write_bytes(people["ada"])
    caller.enroll(path)
    for given in (bytearray(people["ada"]), str(path), io.BytesIO(people["ada"])):
        assert caller.identify(given).candidates[0].score > 99
    with pytest.raises(FileNotFoundError):
        caller.enroll(tmp_path / "none.jpg")
    with pytest.raises(TypeError, match="reading bytes"):
        caller.enroll(io.StringIO("text"))  # type: ignore[arg-type]


def test_a_face_is_shown_changed_erased_and_purged(
    caller: Client, people: dict[str, bytes]
) -> None:
    face_id = caller.enroll(people["ada"], external_id="old", metadata={"a": 1}).face_id
    assert caller.change_face(face_id, external_id="new").metadata == {"a": 1}
    assert caller.change_face(str(face_id), metadata=None).external_id == "new"
    shown = caller.face(face_id)
    assert (shown.external_id, shown.metadata, shown.has_image) == ("new", None, True)
    image = caller.image(face_id)
    assert (image.data, image.content_type) == (people["ada"], "image/jpeg")
    assert repr(image).startswith("Image(")
    assert len(repr(image)) < 60
    caller.erase(face_id)
    caller.erase(face_id)
    assert not caller.face(face_id).has_image
    with pytest.raises(NotFoundError):
        caller.image(face_id)
    assert caller.identify(people["ada"]).match
    caller.purge(face_id)
    for gone in (caller.face, caller.purge, caller.erase):
        with pytest.raises(NotFoundError, match=str(face_id)):
            gone(face_id)


def test_a_list_asks_for_its_pages_as_it_is_read(
    make_caller: MakeCaller, shared_server: Server, people: dict[str, bytes]
) -> None:
    with run_proxy(shared_server.url) as proxy:
        caller = make_caller(url=proxy.url)
        names = list(people)[:5]
        enrolled = [caller.enroll(people[name], external_id=name).face_id for name in names]
        proxy.plan()
        faces = caller.faces(page_size=2)
        assert proxy.seen == []
        assert [each.face_id for each in islice(faces, 2)] == enrolled[:2]
        assert len(proxy.seen) == 1
        assert [each.face_id for each in faces] == enrolled[2:]
        assert len(proxy.seen) == 3


def test_a_list_is_filtered(caller: Client, people: dict[str, bytes]) -> None:
    ada = caller.enroll(people["ada"], external_id="a").face_id
    gus = caller.enroll(people["gus"], external_id="g").face_id
    caller.erase(gus)
    assert [each.face_id for each in caller.faces(external_id="g")] == [gus]
    assert [each.face_id for each in caller.faces(has_image=True)] == [ada]
    assert [each.face_id for each in caller.faces(has_image=False)] == [gus]


def test_a_gallery_is_made_changed_and_deleted(caller: Client, people: dict[str, bytes]) -> None:
    floor = QualityFloor(size_px=20)
    made = caller.create_gallery("vip", kind="allowlist", target_fpir=0.01, quality_floor=floor)
    assert (made.kind, made.faces, made.threshold, made.quality_floor) == (
        "allowlist",
        0,
        None,
        floor,
    )
    with pytest.raises(ConflictError, match="vip"):
        caller.create_gallery("vip")
    changed = caller.change_gallery("vip", threshold=60, description="doors")
    assert (changed.threshold_now, changed.target_fpir) == (60, None)
    assert caller.gallery("vip").description == "doors"
    caller.enroll(people["ada"], "vip")
    assert [each.name for each in caller.galleries(page_size=1)] == ["default", "vip"]
    job = caller.wait_for_job(caller.delete_gallery("vip"), timeout_s=20)
    assert (job.kind, job.subject, job.state, job.done) == ("delete_gallery", "vip", "done", 1)
    assert caller.job(str(job.job_id)) == job
    assert [each.job_id for each in caller.jobs()] == [job.job_id]
    with pytest.raises(NotFoundError):
        caller.gallery("vip")
    with pytest.raises(ConflictError):
        caller.delete_gallery("default")


def test_a_saved_call_is_listed_shown_and_reviewed(
    caller: Client, people: dict[str, bytes]
) -> None:
    saved = caller.identify(people["ada"], save=True, external_id="call-1", metadata={"n": 1})
    caller.verify(people["ada"], people["gus"], save=True)
    assert saved.request_id is not None
    assert [each.kind for each in caller.requests()] == ["verify", "identify"]
    assert [each.request_id for each in caller.requests(state="approved")] == [saved.request_id]
    whole = caller.request(saved.request_id)
    assert (whole.external_id, whole.metadata, whole.asked["limit"]) == ("call-1", {"n": 1}, 10)
    assert whole.images[0].url is not None
    assert caller.image_at(whole.images[0].url).data == people["ada"]
    reviewed = caller.review(saved.request_id, "declined", comment="seen")
    assert [(each.state, each.comment) for each in reviewed.reviews] == [("declined", "seen")]


def test_runs_and_health_are_shown(caller: Client) -> None:
    assert caller.reindex_runs() == ()
    with pytest.raises(NotFoundError):
        caller.reindex_run(uuid4())
    assert caller.health().ready


def test_the_trail_and_usage_are_read(caller: Client, people: dict[str, bytes]) -> None:
    face_id = caller.enroll(people["ada"]).face_id
    caller.purge(face_id)
    done = [each.action for each in caller.audit(face_id=face_id, page_size=1)]
    assert done == ["purge", "enroll"]
    assert [*caller.audit(until=datetime(2020, 1, 1, tzinfo=UTC))] == []
    used = caller.usage()
    assert used.faces == 0
    assert (used.until - used.since).days == 29
    with pytest.raises(InvalidInputError, match="from"):
        caller.usage(since=date(2020, 1, 1), until=date(2022, 1, 1))


def test_refusals_are_errors_with_what_the_server_said(
    caller: Client, people: dict[str, bytes]
) -> None:
    with pytest.raises(NoFaceError) as no_face:
        caller.enroll(landscape())
    error = no_face.value
    assert (error.status, error.code, error.title) == (422, "no_face", "Unprocessable Entity")
    assert [each.field for each in error.faults] == ["image"]
    assert error.request_id and error.request_id in str(error)
    with pytest.raises(InvalidInputError, match="both"):
        caller.identify(people["ada"], threshold=1, target_fpir=0.1)
    with pytest.raises(NotFoundError, match="nowhere"):
        caller.identify(people["ada"], galleries=("nowhere",))
    with pytest.raises(ValueError, match="badly formed"):
        caller.face("../galleries")


def test_a_name_of_a_gallery_never_becomes_a_path(caller: Client) -> None:
    for name in ("../faces", "a/b", "a?confirm=b", "ä"):
        with pytest.raises(NotFoundError):
            caller.gallery(name)


def test_a_key_that_may_not_is_refused(
    make_caller: MakeCaller, shared_place: Place, people: dict[str, bytes]
) -> None:
    key = new_tenant(shared_place, permissions=["search"])["client_secret"]
    caller = make_caller(credentials={"key": key})
    assert not caller.identify(people["ada"]).match
    with pytest.raises(ForbiddenError):
        caller.enroll(people["ada"])
    stranger = make_caller(credentials={"key": "no-such-key"})
    with pytest.raises(UnauthenticatedError):
        stranger.gallery()


def test_an_id_and_secret_are_exchanged_for_tokens_as_they_end(
    make_caller: MakeCaller, shared_place: Place, shared_server: Server
) -> None:
    credentials = new_tenant(shared_place)
    with run_proxy(shared_server.url) as proxy:
        caller = make_caller(url=proxy.url, credentials=credentials)
        for _ in range(2):
            caller.gallery()
        paths = ["/api/oauth/token", "/v1/galleries/default", "/v1/galleries/default"]
        assert [each.path for each in proxy.seen] == paths
        # What a server says whose clock jumped, or which no longer knows the token.
        proxy.plan(Refuse(401))
        caller.gallery()
        assert [each.path for each in proxy.seen] == [paths[1], *paths[:2]]
        proxy.plan(Refuse(401), "pass", Refuse(401))
        with pytest.raises(UnauthenticatedError):
            caller.gallery()
        assert len(proxy.seen) == 3


def test_a_wrong_id_or_secret_is_said(make_caller: MakeCaller, shared_place: Place) -> None:
    credentials = {**new_tenant(shared_place), "client_secret": "wrong"}
    with pytest.raises(UnauthenticatedError) as refused:
        make_caller(credentials=credentials).gallery()
    assert refused.value.code == "invalid_client"


def test_no_secret_and_no_link_is_ever_shown(
    make_caller: MakeCaller,
    shared_place: Place,
    people: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    credentials = new_tenant(shared_place)
    secret = credentials["client_secret"]
    said = []
    with caplog.at_level(logging.DEBUG):
        for given in (credentials, {"key": secret}):
            caller = make_caller(credentials=given)
            caller.enroll(people["ada"])
            for wrong in ({}, {"url": "http://127.0.0.1:1"}):
                caller = make_caller(credentials=given, **wrong)
                with pytest.raises(Exception) as failed:  # noqa: PT011
                    caller.face(UUID(int=0))
                said += [repr(failed.value), repr(failed.value.__cause__), str(failed.value)]
    assert len(said) == 12
    assert secret not in caplog.text
    assert secret not in "".join(said)
    with pytest.raises(ValueError, match="the key") as refused:
        Client("http://127.0.0.1", key=f"{secret}\u20ac")
    assert secret not in str(refused.value)
    shown = Client("http://127.0.0.1:1", key=secret)
    assert repr(shown) == "Client('http://127.0.0.1:1')"
    assert secret not in repr(vars(shown)["_session"].__dict__)
    shown.close()


def test_the_calls_are_typed(shared_place: Place, shared_server: Server) -> None:
    key = new_tenant(shared_place)["client_secret"]
    with Client(shared_server.url, key=key) as client:
        if TYPE_CHECKING:
            assert_type(client.identify(b""), Identified)
            client.identify(b"", limit="1")  # type: ignore[arg-type]
        assert [each.name for each in client.galleries()] == ["default"]

    async def work() -> list[str]:
        async with AsyncClient(shared_server.url, key=key) as waited:
            if TYPE_CHECKING:
                assert_type(await waited.enroll(b""), Enrolled)
            return [each.name async for each in waited.galleries()]

    assert asyncio.run(work()) == ["default"]
