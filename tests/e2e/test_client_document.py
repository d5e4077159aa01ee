"""What the client library's page says works, on a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from _photos import variations

from oneton.client import AsyncClient, Client
from tests.fixtures.pictures import landscape
from tests.fixtures.servers import Place, Server, new_tenant

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.model
def test_every_line_of_python_on_the_page_runs(
    shared_place: Place, shared_server: Server, tmp_path: Path, people: dict[str, bytes]
) -> None:
    (tmp_path / "photo.jpg").write_bytes(people["ada"])
    (tmp_path / "other.jpg").write_bytes(variations(people["ada"], 1, seed=1)[0])
    (tmp_path / "landscape.jpg").write_bytes(landscape())
    program = "".join(BLOCK.findall(PAGE))
    for written, meant in (
        ("http://127.0.0.1:8080", shared_server.url),
        ("the-client-secret", new_tenant(shared_place)["client_secret"]),
    ):
        assert written in program
        program = program.replace(written, meant)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no_face" in done.stdout


def test_the_page_names_every_call_and_no_other() -> None:
    table = PAGE.split("## The calls")[1].split("##")[0].split("```")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {each for cell in cells for each in re.findall(r"`(\w+)", cell)}
    for kind, end in ((Client, "close"), (AsyncClient, "aclose")):
        calls = {name for name in dir(kind) if not name.startswith("_")} - {end}
        assert calls == named
