"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from tests.fixtures.servers import Server

pytestmark = pytest.mark.model

REVIEWED = Path(__file__).with_name("openapi.json")


def test_the_document_is_the_reviewed_one(shared_server: Server) -> None:
    """After a change on purpose, review and store what the server answers."""
    served = httpx.get(f"{shared_server.url}/schema/openapi.json").json()
    assert served == json.loads(REVIEWED.read_text())


def test_the_page_loads_nothing_from_other_hosts(shared_server: Server) -> None:
    page = httpx.get(f"{shared_server.url}/schema").text
    links = re.findall(r'(?:src|href)=["\']([^"\']+)', page)
    assert len(links) >= 3
    for link in links:
        assert link.startswith(("/schema/", "data:")), link
        if link.startswith("/"):
            reply = httpx.get(shared_server.url + link)
            assert reply.status_code == 200
            assert len(reply.content) > 1000
    for style in re.findall(r"url\(([^)]+)\)", httpx.get(shared_server.url + links[1]).text):
        assert not style.strip("\"'").startswith(("http", "//"))
