"""`oneton tenant show`, `retention` and `credits`, beside a running server."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.fixtures.servers import Place, Server, new_tenant

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def tenant(shared_place: Place, shared_server: Server) -> str:
    name = f"options-{uuid4().hex[:8]}"
    new_tenant(shared_place, name)
    return name


def options(place: Place, tenant: str) -> dict[str, Any]:
    shown: dict[str, Any] = place.json("tenant", "show", tenant)["options"]
    return shown


def test_retention_is_set_shown_and_reset(shared_place: Place, tenant: str) -> None:
    place = shared_place
    before = options(place, tenant)
    assert (before["image_days"], before["result_days"]) == (None, None)
    tried = place.json("tenant", "retention", tenant, "--image-days", "30", "--dry-run")
    assert tried == {"due": {"pictures": 0, "requests": 0}, "dry_run": True}
    assert options(place, tenant) == before
    place.command("tenant", "retention", tenant, "--image-days", "30", "--result-days", "0")
    assert options(place, tenant) == {**before, "image_days": 30, "result_days": 0}
    place.command("tenant", "retention", tenant, "--result-days", "default")
    assert options(place, tenant) == {**before, "image_days": 30}
    text = place.command("tenant", "show", tenant).stdout
    assert "30 days" in text
    assert "as each dialect does" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["retention"],
        ["retention", "--image-days", "-1"],
        ["retention", "--image-days", "36501"],
        ["retention", "--result-days", "soon"],
        ["credits"],
        ["credits", "--set", "-1"],
        ["credits", "--set", "5", "--unlimited"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(shared_place: Place, arguments: list[str]) -> None:
    command, *rest = arguments
    assert shared_place.command("tenant", command, "x", *rest, check=False).returncode == 2


def test_an_unknown_tenant_is_exit_3(shared_place: Place, shared_server: Server) -> None:
    done = shared_place.command("tenant", "show", "nobody", check=False)
    assert (done.returncode, done.stdout) == (3, "")


def test_credits_are_set_and_shown(shared_place: Place, tenant: str) -> None:
    place = shared_place
    assert place.json("tenant", "show", tenant)["credits"] is None
    assert place.json("tenant", "credits", tenant, "--set", "7")["credits"] == 7
    assert "7" in place.command("tenant", "show", tenant).stdout
    assert place.json("tenant", "credits", tenant, "--unlimited")["credits"] is None
