"""Two servers and two workers over one Postgres and one S3 store, started by `scripts/cluster`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.servers import _bare_environ

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, list[str]]]:
    """What the script prints, by the first word of a line; at the end it leaves nothing."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "_cluster.py")],
        cwd=ROOT,
        env=_bare_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: dict[str, list[str]] = {}
    try:
        assert process.stdout is not None
        for line in process.stdout:
            name, *rest = line.split()
            said.setdefault(name, []).append(" ".join(rest))
            if name == "client_secret":
                break
        assert "client_secret" in said, process.communicate()[1][-4000:]
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    folder = Path(re.findall(r", (\S+)/serve", said["server"][0])[0])
    assert not folder.exists()
    for words in said["server"] + said["worker"]:
        pid = int(re.findall(r"process (\d+)", words)[0])
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_demo_plays_on_a_server_of_a_cluster(
    started: dict[str, list[str]], tmp_path: Path
) -> None:
    """Both APIs, 1:N and match; on the second server, for the first one made the bucket."""
    url = started["server"][1].split()[0]
    (client_id,), (secret,) = started["client_id"], started["client_secret"]
    demo = [sys.executable, str(ROOT / "scripts" / "_demo.py"), "--url", url]
    demo += ["--client-id", client_id, "--client-secret", secret]
    demo += ["--page", str(tmp_path / "page.html")]
    done = subprocess.run(demo, env=_bare_environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "38 answers, 38 right" in done.stdout
