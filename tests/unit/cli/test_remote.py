"""What the command line's remote mode refuses before it asks any server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import oneton.client.clients
from oneton.cli import main
from oneton.client import Retries

LOCAL = "works on the machine itself"
NOWHERE = "http://127.0.0.1:1"
SECRET = "a-secret-of-a-key"


class Shell:
    """Runs commands in a folder of its own, with no setting."""

    def __init__(self) -> None:
        self._runner = CliRunner()

    def run(self, *arguments: str, **environ: str) -> Result:
        return self._runner.invoke(main, arguments, env=dict(environ))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    for name in ("ONETON_URL", "ONETON_KEY", "ONETON_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    # The same tries, only not so far apart.
    monkeypatch.setattr(oneton.client.clients, "Retries", lambda: Retries(first_wait_s=0.0))
    Path("key").write_text(f"{SECRET}\n")
    Path("a.jpg").write_bytes(b"x")
    yield Shell()
    assert not Path(".oneton").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "a.jpg", "--rotate"], "--rotate is not offered over HTTP"),
        (["search", "a.jpg", "--attributes"], "--attributes is not offered over HTTP"),
        (["search", "a.jpg", "--tenant", "acme"], "its key is one tenant's"),
        (["purge", "019a0000-0000-7000-8000-000000000000", "--tenant", "a"], "one tenant's"),
        (["gallery", "create", "a", "--pack", "b"], "--pack is not offered over HTTP"),
        (["serve"], LOCAL),
        (["worker"], LOCAL),
        (["doctor"], LOCAL),
        (["sweep"], LOCAL),
        (["snapshot", "list"], LOCAL),
        (["models", "list"], LOCAL),
        (["key", "list"], LOCAL),
        (["tenant", "list"], LOCAL),
        (["webhook", "list"], LOCAL),
        (["import", "."], LOCAL),
        (["duplicates", "default"], LOCAL),
        (["reindex", "status"], LOCAL),
        (["backup", "create", "there"], LOCAL),
        (["migrate"], LOCAL),
    ],
)
def test_what_a_server_does_not_do_is_said(shell: Shell, arguments: list[str], said: str) -> None:
    done = shell.run("--url", NOWHERE, "--key-file", "key", *arguments)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.replace("\u2502", "").split())
    if said == LOCAL:
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "environ", "said", "code"),
    [
        (["--url", NOWHERE], {}, "needs --key-file", 2),
        (["--url", NOWHERE, "--key-file", "none"], {}, "No such file", 2),
        (["--url", NOWHERE, "--key-file", "a.jpg"], {"ONETON_KEY": "b"}, "ConnectError", 4),
        (["--url", "example.com", "--key-file", "key"], {}, "must be http", 2),
        (["--url", "http://u:p@example.com", "--key-file", "key"], {}, "no credentials", 2),
        (["--key-file", "key"], {}, "needs --url", 2),
        ([], {"ONETON_URL": NOWHERE, "ONETON_KEY": SECRET}, "ConnectError", 4),
        ([], {"ONETON_URL": NOWHERE, "ONETON_KEY_FILE": "key"}, "ConnectError", 4),
        (
            [],
            {"ONETON_URL": NOWHERE, "ONETON_KEY_FILE": "key", "ONETON_KEY": SECRET},
            "both set",
            2,
        ),
        ([], {"ONETON_URL": NOWHERE, "ONETON_KEY": "two words"}, "the key is empty, or has", 2),
    ],
)
def test_a_server_that_cannot_be_used_is_said(
    shell: Shell, arguments: list[str], environ: dict[str, str], said: str, code: int
) -> None:
    done = shell.run(*arguments, "gallery", "list", **environ)
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.replace("\u2502", "").split())
    assert SECRET not in done.output
    assert "Traceback" not in done.output


def test_help_of_a_command_that_works_here_is_shown_with_a_server_named(shell: Shell) -> None:
    done = shell.run("serve", "--help", ONETON_URL=NOWHERE)
    assert done.exit_code == 0
