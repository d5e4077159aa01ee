"""What the client library does when answers are lost, late or refused for now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic

import pytest

from oneton.client import (
    Client,
    ConnectionFailedError,
    NotFoundError,
    RateLimitedError,
    Retries,
    UnavailableError,
    UnexpectedReplyError,
)
from tests.fixtures.callers import MakeCaller
from tests.fixtures.proxies import DROP, LOSE, Proxy, Refuse, run_proxy
from tests.fixtures.servers import Server

pytestmark = pytest.mark.model


@pytest.fixture
def proxy(shared_server: Server) -> Iterator[Proxy]:
    with run_proxy(shared_server.url) as made:
        yield made


@pytest.fixture
def caller(make_caller: MakeCaller, proxy: Proxy) -> Client:
    return make_caller(url=proxy.url)


def test_an_enrolment_whose_answer_is_lost_adds_one_face(
    caller: Client, proxy: Proxy, people: dict[str, bytes]
) -> None:
    proxy.plan(LOSE, LOSE, DROP)
    done = caller.enroll(people["ada"], metadata={"n": 1})
    assert done.added
    assert len(proxy.seen) == 4
    assert len({each.headers["idempotency-key"] for each in proxy.seen}) == 1
    assert len({each.body for each in proxy.seen}) == 1
    assert [each.face_id for each in caller.faces()] == [done.face_id]
    again = caller.enroll(people["ada"])
    assert again.face_id != done.face_id


def test_a_key_of_ones_own_carries_an_enrolment_out_once(
    caller: Client, people: dict[str, bytes]
) -> None:
    first, second = (caller.enroll(people["ada"], idempotency_key="row 7") for _ in range(2))
    assert first == second
    assert caller.gallery().faces == 1


def test_a_removal_whose_answer_is_lost_is_no_error(
    caller: Client, proxy: Proxy, people: dict[str, bytes]
) -> None:
    face_id = caller.enroll(people["ada"]).face_id
    proxy.plan(LOSE)
    caller.purge(face_id)
    assert [each.method for each in proxy.seen] == ["DELETE", "DELETE"]
    proxy.plan(DROP)
    caller.create_gallery("old")
    proxy.plan(LOSE)
    job = caller.delete_gallery("old")
    assert caller.wait_for_job(job, timeout_s=20).subject == "old"


def test_what_never_was_is_not_found_after_a_server_that_was_not_reached(
    caller: Client, proxy: Proxy
) -> None:
    proxy.plan(Refuse(429))
    with pytest.raises(NotFoundError):
        caller.purge("019a0000-0000-7000-8000-000000000000")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_refusal_for_now_is_tried_again(caller: Client, proxy: Proxy, status: int) -> None:
    proxy.plan(Refuse(status), Refuse(status))
    assert caller.gallery().faces == 0
    assert len(proxy.seen) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 500, 302])
def test_other_refusals_are_not(caller: Client, proxy: Proxy, status: int) -> None:
    proxy.plan(Refuse(status, {"retry-after": "0"}))
    with pytest.raises(UnexpectedReplyError if status == 302 else Exception, match=str(status)):
        caller.gallery()
    assert len(proxy.seen) == 1


def test_a_server_is_asked_again_when_it_said(caller: Client, proxy: Proxy) -> None:
    in_seconds = Refuse(503, {"retry-after": "1"})
    at_a_date = Refuse(429, {"retry-after": format_datetime(datetime.now(UTC), usegmt=True)})
    proxy.plan(at_a_date, in_seconds)
    began_s = monotonic()
    caller.gallery()
    assert 1.0 <= monotonic() - began_s < 5.0
    assert len(proxy.seen) == 3


def test_a_server_that_wants_a_long_wait_is_not_waited_for(caller: Client, proxy: Proxy) -> None:
    proxy.plan(Refuse(429, {"retry-after": "3600"}))
    with pytest.raises(RateLimitedError) as refused:
        caller.gallery()
    assert refused.value.retry_after_s == 3600
    until = datetime.now(UTC) + timedelta(hours=2)
    proxy.plan(Refuse(503, {"retry-after": format_datetime(until, usegmt=True)}))
    with pytest.raises(UnavailableError) as down:
        caller.gallery()
    assert down.value.retry_after_s == pytest.approx(7200, abs=60)
    assert len(proxy.seen) == 1


def test_tries_are_bounded(make_caller: MakeCaller, proxy: Proxy) -> None:
    caller = make_caller(url=proxy.url, retries=Retries(tries=3, first_wait_s=0.01))
    proxy.plan(*[DROP] * 9)
    with pytest.raises(ConnectionFailedError, match="GET http://127"):
        caller.gallery()
    assert len(proxy.seen) == 3


def test_a_server_that_is_not_there_is_said(make_caller: MakeCaller) -> None:
    caller = make_caller(url="http://127.0.0.1:1")
    with pytest.raises(ConnectionFailedError, match="ConnectError"):
        caller.gallery()


def test_a_server_that_is_not_ready_is_an_answer(caller: Client, proxy: Proxy) -> None:
    proxy.plan(Refuse(503))
    with pytest.raises(UnexpectedReplyError):
        caller.health()
    assert len(proxy.seen) == 1
    assert caller.health().ready
