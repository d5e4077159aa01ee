"""What README and docs tell to type works, line by line, on a server that has just started."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from _photos import variations

from tests.fixtures.servers import Place, run_server

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if "curl " in path.read_text()
)
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
STRICT = """
set -euo pipefail
curl() { echo curl >> calls; command curl --fail-with-body --max-time 20 "$@"; }
oneton() { "$PYTHON" -m oneton "$@"; }
"""


def blocks(document: Path) -> list[str]:
    """The shell blocks that call curl, or set what those use."""
    found = BLOCK.findall(document.read_text())
    return [block for block in found if "curl " in block or "\nSECRET=" in block]


def test_readme_and_api_guide_have_lines_to_run() -> None:
    assert {path.name for path in DOCUMENTS} >= {"README.md", "api.md"}


def test_every_curl_of_a_document_is_in_a_block_that_is_run() -> None:
    for path in DOCUMENTS:
        outside = BLOCK.sub("", path.read_text())
        assert not re.search(r"^\s*curl ", outside, re.MULTILINE), path.name


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_line_of_a_document_is_answered(
    document: Path, tmp_path: Path, bare_place: Place, people: Mapping[str, bytes]
) -> None:
    place = Place(tmp_path, bare_place.environ, None)
    first, second, *_ = people.values()
    (tmp_path / "photo.jpg").write_bytes(first)
    (tmp_path / "other.jpg").write_bytes(variations(first, 1, seed=1)[0])
    (tmp_path / "stranger.jpg").write_bytes(second)
    with run_server(place) as server:
        greeting = dict(
            re.findall(r"^(client_id|client_secret)\s+(\S+)$", server.log.read_text(), re.MULTILINE)
        )
        lines = STRICT + "".join(blocks(document))
        for written, meant in (
            ("http://127.0.0.1:8080", server.url),
            ("the-client-id", greeting["client_id"]),
            ("the-client-secret", greeting["client_secret"]),
        ):
            lines = lines.replace(written, meant)
        done = subprocess.run(
            ["bash", "-c", lines],
            cwd=tmp_path,
            env={**place.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    called = (tmp_path / "calls").read_text().count("curl")
    assert called >= lines.count("curl -s")
