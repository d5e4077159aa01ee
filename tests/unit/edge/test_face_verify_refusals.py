"""An operator's switch turns Trustmatic's 500 into 200."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import Request
from litestar.testing import RequestFactory

from oneton.domain import errors
from oneton.edge.face_verify.refusals import make_reply


@pytest.fixture
def request_read() -> Request[Any, Any, Any]:
    """A request whose session id is known."""
    request: Request[Any, Any, Any] = RequestFactory().post("/api/v1/face/verify")
    request.state.session_id = "a"
    return request


@pytest.mark.parametrize(
    ("error", "plain", "switched"),
    [
        (RuntimeError("a crash"), 500, 200),
        (errors.ConflictError("another pack"), 500, 200),
        (errors.StoreDownError("Postgres"), 503, 503),
        (errors.UnauthenticatedError("wrong"), 401, 401),
    ],
)
def test_only_500_becomes_200(
    request_read: Request[Any, Any, Any], error: Exception, plain: int, switched: int
) -> None:
    for as_200, status in ((False, plain), (True, switched)):
        said = make_reply(as_200=as_200)(request_read, error)
        assert said.status_code == status
        assert (said.content.has_error, said.content.session_id) == (True, "a")
        assert "crash" not in said.content.error
