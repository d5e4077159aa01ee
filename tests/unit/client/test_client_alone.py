"""The client library by itself: what it imports, its retries, what it refuses to begin with."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from oneton.client import (
    ApiError,
    AsyncClient,
    Client,
    ConnectionFailedError,
    OnetonClientError,
    Retries,
    UnexpectedReplyError,
)
from oneton.client.credentials import Secret, make_credentials
from oneton.client.errors import BY_CODE, BY_STATUS, error_of
from oneton.client.flows import Reply, Send, Wait
from oneton.client.retries import read_retry_after
from oneton.client.session import Call, Session
from oneton.edge.native.problems import CODES, ERRORS

SERVER = ("litestar", "faiss", "onnxruntime", "numpy", "asyncpg", "insightface", "structlog")


def test_the_client_imports_nothing_of_the_server() -> None:
    code = (
        "import sys, oneton.client; "
        "print(*[m for m in sys.modules if m.startswith('oneton.') or m in sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *SERVER], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "oneton.client" in loaded
    assert [each for each in loaded if not each.startswith("oneton.client")] == []


def test_both_clients_have_the_same_calls_with_help() -> None:
    both = [{n for n in dir(kind) if not n.startswith("_")} for kind in (Client, AsyncClient)]
    assert both[0] - {"close"} == both[1] - {"aclose"}
    for name in both[0] - {"close"}:
        assert getattr(Client, name).__doc__, name


OPERATIONS = {
    "nativeCreateGallery": "create_gallery",
    "nativeListGalleries": "galleries",
    "nativeShowGallery": "gallery",
    "nativeChangeGallery": "change_gallery",
    "nativeDeleteGallery": "delete_gallery",
    "nativeEnroll": "enroll",
    "nativeListFaces": "faces",
    "nativeShowFace": "face",
    "nativeChangeFace": "change_face",
    "nativeLinkImage": "image_link",
    "nativeEraseImage": "erase",
    "nativePurgeFace": "purge",
    "nativeIdentify": "identify",
    "nativeVerify": "verify",
    "nativeListRequests": "requests",
    "nativeShowRequest": "request",
    "nativeReviewRequest": "review",
    "nativeListJobs": "jobs",
    "nativeShowJob": "job",
    "nativeListAudit": "audit",
    "listReindexRuns": "reindex_runs",
    "showReindexRun": "reindex_run",
    "nativeShowUsage": "usage",
}


def test_every_call_of_the_native_api_is_a_method() -> None:
    document = json.loads((Path(__file__).parents[2] / "e2e" / "openapi.json").read_text())
    documented = {
        operation["operationId"]
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if path.startswith("/v1/")
    }
    assert documented - OPERATIONS.keys() == set()
    assert [name for name in OPERATIONS.values() if not hasattr(Client, name)] == []


def test_every_error_of_the_native_api_has_a_class() -> None:
    answered = {*ERRORS.values(), *CODES.items()}
    for status, code in answered:
        error = error_of(status, {}, b'{"code":"%s"}' % code.encode(), None)
        assert error.code == code
        if status not in {405, 500}:
            assert type(error) is not ApiError, (status, code)
    probes = {code for status, code in answered if status in {413, 415, 422}}
    assert probes - {"refused_address"} <= BY_CODE.keys()
    assert {status for status, _ in answered} - {405, 415, 500} <= BY_STATUS.keys()


@pytest.mark.parametrize(
    ("tried", "status", "asked_s", "least_s", "most_s"),
    [
        (1, 503, None, 0.0, 0.5),
        (3, 503, None, 0.0, 2.0),
        (9, 503, None, 0.0, 4.0),
        (1, 429, 3.0, 3.0, 3.5),
        (1, 429, 4.1, None, None),
        (10, 503, None, None, None),
        (1, 500, None, None, None),
        (1, 404, 1.0, None, None),
    ],
)
def test_a_wait_grows_is_drawn_and_is_bounded(
    tried: int, status: int, asked_s: float | None, least_s: float | None, most_s: float | None
) -> None:
    error = ApiError(status=status, retry_after_s=asked_s)
    waits = [
        Retries(10, 0.5, 4.0, draw=draw).wait_s(tried, error) for draw in (lambda: 0.0, lambda: 1.0)
    ]
    assert waits == [least_s, most_s]


def test_a_lost_connection_is_tried_again_and_a_strange_answer_is_not() -> None:
    retries = Retries()
    assert retries.wait_s(1, ConnectionFailedError("gone")) is not None
    assert retries.wait_s(1, UnexpectedReplyError("a page")) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sun, 22 Nov 2026 00:01:30 GMT", 90.0),
        ("Sat, 21 Nov 2026 00:00:00 GMT", 0.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("\u0663", None),
    ],
)
def test_a_retry_after_is_read(text: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert read_retry_after({"retry-after": text}, now) == seconds


@pytest.mark.parametrize(
    "url", ["", "faces.example.com", "ftp://x", "http://", "http://u:p@x", "http://x/?a=1"]
)
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        Client(url, key="k")


@pytest.mark.parametrize(
    "given",
    [
        (None, None, None),
        ("k", "id", "secret"),
        (None, "id", None),
        (None, None, "secret"),
        ("", None, None),
        ("two words", None, None),
    ],
)
def test_credentials_are_one_of_both_kinds(given: tuple[str | None, ...]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        make_credentials(*given)


def test_a_secret_is_neither_shown_nor_pickled() -> None:
    secret = Secret("the key", " top-secret\n")
    assert secret.reveal() == "top-secret"
    assert "top-secret" not in f"{secret} {secret!r}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


def test_a_token_is_used_until_shortly_before_its_end() -> None:
    now_s = [1000.0]
    credentials = make_credentials(None, "id", "secret")
    session = Session("http://x/base/", credentials, Retries(), clock=lambda: now_s[0])

    def paths() -> list[str]:
        """What is sent for one call."""
        flow, sent, step = session.do(Call("GET", "/v1/x")), list[str](), None
        try:
            step = next(flow)
            while True:
                assert isinstance(step, Send)
                sent.append(step.url)
                step = flow.send(Reply(200, {}, b'{"access_token":"t","expires_in":1800}'))
        except StopIteration:
            return sent

    token, call = "http://x/base/api/oauth/token", "http://x/base/v1/x"
    assert paths() == [token, call]
    now_s[0] += 1769
    assert paths() == [call]
    now_s[0] += 2
    assert paths() == [token, call]


def test_an_answer_of_another_form_is_said_without_its_content() -> None:
    session = Session("http://x", make_credentials("k", None, None), Retries())
    flow = session.ask(Call("GET", "/v1/x"), int)
    step = next(flow)
    assert isinstance(step, Send) and "Bearer" not in repr(step)
    with pytest.raises(OnetonClientError) as failed:
        flow.send(Reply(200, {}, b'"a private word"'))
    assert "private" not in str(failed.value)


def test_a_wait_is_a_step() -> None:
    session = Session("http://x", make_credentials("k", None, None), Retries(first_wait_s=0.0))
    flow = session.do(Call("GET", "/v1/x"))
    first = next(flow)
    assert flow.send(Reply(503, {"retry-after": "2"}, b"")) == Wait(2.0)
    assert flow.send(None) == first
