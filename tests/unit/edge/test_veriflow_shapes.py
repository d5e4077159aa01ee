"""The small parts of VeriFlow's answers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest

from oneton.domain.model import Tenant, TenantId
from oneton.edge.risks import RISKS
from oneton.edge.veriflow.calls import prefix_of, read_picture
from oneton.edge.veriflow.refusals import CODES, ERRORS, InvalidError, plainly
from oneton.edge.veriflow.shapes import (
    is_request_id,
    moment,
    new_request_id,
    organization_id,
)
from oneton.verbs.judge_screening import Risk


def tenant(public_id: str) -> Tenant:
    return Tenant(TenantId(uuid4()), "name", datetime.now(UTC), public_id)


@pytest.mark.parametrize(
    ("public_id", "expected"),
    [
        ("0" * 24, "org_" + "0" * 20),
        ("0" * 22 + "24", "org_" + "0" * 18 + "10"),
        ("f" * 24, "org_0"),
    ],
)
def test_an_organization_is_its_tenants_public_id_in_base_36(public_id: str, expected: str) -> None:
    named = organization_id(tenant(public_id))
    assert named.startswith(expected)
    assert re.fullmatch(r"org_[0-9a-z]{20}", named)
    assert int(named.removeprefix("org_"), 36) == int(public_id, 16)


def test_request_ids_have_their_form_and_are_never_the_same() -> None:
    made = {new_request_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(is_request_id(each) for each in made)
    assert all(re.fullmatch(r"req_[0-9a-z]{20}", each) for each in made)


@pytest.mark.parametrize(
    "text", ["", "req_", "req", "req_" + "A" * 20, "req_" + "a" * 21, "org_" + "a" * 20]
)
def test_another_text_is_no_request_id(text: str) -> None:
    assert not is_request_id(text)


def test_a_moment_is_in_utc_with_milliseconds() -> None:
    at = datetime(2026, 1, 1, 2, 3, 4, 567_999, timezone(timedelta(hours=2)))
    assert moment(at) == "2026-01-01T00:03:04.567Z"
    assert moment(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("data:image/jpeg;base64,/9j/", "data:image/jpeg;base64,"),
        ("/9j/", ""),
        ("data:\x00,/9j/", ""),
        ("data:" + "x" * 200 + ",/9j/", ""),
    ],
)
def test_only_a_harmless_prefix_is_kept(text: str, prefix: str) -> None:
    assert prefix_of(text) == prefix


@pytest.mark.parametrize("text", ["http://a/b", " HTTPS://a", "ftp://a", "file:///a", "gopher://a"])
def test_an_address_is_refused_as_one(text: str) -> None:
    with pytest.raises(InvalidError, match="addresses are not fetched"):
        read_picture("userImage", text, rotate=False)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Object missing required field `userImage`", "userImage is required"),
        ("Expected `str`, got `int` - at `$.refImage`", "refImage: Expected `str`, got `int`"),
        ("Expected `str` - at `$.contactDetails.email`", "contactDetails.email: Expected `str`"),
        ("Input data was truncated", "Input data was truncated"),
    ],
)
def test_a_wrong_field_is_named_first(said: str, expected: str) -> None:
    assert plainly(said) == expected


def test_every_status_has_a_code() -> None:
    assert set(ERRORS.values()) <= set(CODES)


def test_every_risk_of_a_screening_has_its_texts() -> None:
    assert set(Risk) <= set(RISKS)
    for text in RISKS.values():
        assert text.log_type in ("information", "warning", "error")
        assert text.short
        assert text.long
