"""The native API answers as its OpenAPI document says, whatever it is asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fixtures.native import Native
from tests.fixtures.servers import as_base64

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 20
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
Operation = APIOperation[Any, Any, Any, Any]
LEAST_CALLS = 20
"""The document has no fewer, or it is not what is tested here."""


class Known(msgspec.Struct, frozen=True):
    """What is there to be asked for."""

    photo: bytes
    face_id: str
    request_id: str
    job_id: str

    def put_in(self, case: Case[Any]) -> None:
        """Let a generated call ask for something that is there, with a real picture."""
        ids = {"gallery": "default", **{name: getattr(self, name) for name in _IDS}}
        for name in case.path_parameters or {}:
            case.path_parameters[name] = ids.get(name, case.path_parameters[name])
        if isinstance(case.body, dict):
            body: dict[str, Any] = case.body
            is_json = case.media_type == "application/json"
            for name in ("image", "source", "target"):
                if name in body:
                    body[name] = as_base64(self.photo) if is_json else self.photo
            if "galleries" in body:
                body["galleries"] = ["default"]


_IDS = ("face_id", "request_id", "job_id")


@pytest.fixture
def known(native: Native, people: dict[str, bytes]) -> Known:
    face_id = native.enroll(people["ada"], external_id="a", metadata={"a": 1})
    request_id = native.identify(people["ada"], save=True, explain=True)["request_id"]
    native.create("old")
    job = native.http.delete("/v1/galleries/old", params={"confirm": "old"}).json()
    return Known(people["ada"], face_id, request_id, job["job_id"])


def operations(document: dict[str, Any]) -> list[Operation]:
    """The native API's; what deletes comes last."""
    paths = {path: each for path, each in document["paths"].items() if path.startswith("/v1/")}
    schema = schemathesis.openapi.from_dict({**document, "paths": paths})
    found = []
    for each in schema.get_all_operations():
        assert isinstance(each, Ok), each
        found.append(each.ok())
    return sorted(found, key=lambda each: each.method == "delete")


@pytest.mark.conforms("native", "every call", "answers as the OpenAPI document says", "exact")
@pytest.mark.parametrize("mode", MODES, ids=["valid", "invalid"])
def test_answers_are_as_documented(native: Native, known: Known, mode: GenerationMode) -> None:
    session = requests.Session()
    session.headers["Authorization"] = native.http.headers["Authorization"]
    tried = 0
    with session:
        for operation in operations(native.json("/schema/openapi.json")):
            tried += 1
            _try(operation, mode, session, str(native.http.base_url), known)
    assert tried >= LEAST_CALLS


def _try(
    operation: Operation,
    mode: GenerationMode,
    session: requests.Session,
    url: str,
    known: Known,
) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode), is_known=st.booleans())
    def ask(case: Case[Any], is_known: bool) -> None:
        if is_known:
            known.put_in(case)
        response = case.call(base_url=url, session=session)
        case.validate_response(response, checks=CHECKS)

    ask()
