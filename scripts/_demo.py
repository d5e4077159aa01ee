"""Plays `scripts/demo`; writes a page of photos, by default under the system's temporary folder."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
from _demo_page import (
    Cast,
    Sight,
    cast_of_folder,
    cast_of_packages,
    judge,
    make_page,
    print_table,
)
from _demo_story import MATCH, SEARCH, TOKEN, Caller, Story, as_base64

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.calibration import load_calibration
from oneton.biometrics.packs import DEFAULT_PACK, assemble_buffalo_sc, file_sha256, open_pack
from oneton.domain.errors import OnetonError

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 40.0
_LOG_TAIL_LINES = 25


class Server:
    """`oneton serve` of our own, in a folder of its own; stopped on leaving unless kept."""

    def __init__(self, folder: Path) -> None:
        host = os.environ.get("ONETON_HOST", "") or "127.0.0.1"
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        folder.mkdir()
        self.folder, self.log = folder, folder / "serve.log"
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
        self._environ = {
            **os.environ,
            "ONETON_PORT": str(port),
            "ONETON_DATA_DIR": str(folder / ".oneton"),
            "ONETON_INDEX_DIR": str(folder / "index_snapshots"),
            "ONETON_MODEL_PACK": model_pack(),
        }
        self._command = [sys.executable, "-m", "oneton"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*self._command, "serve"],
                cwd=folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def credentials(self) -> dict[str, str]:
        """Of the demo tenant once the server is ready; on a given database, of a new one.

        Raises:
            ValueError: it did not start.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ValueError("the server did not start")
            time.sleep(0.1)
        kept = self.folder / ".oneton" / "demo-credentials.json"
        if not kept.is_file():
            name = f"demo-{secrets.token_hex(4)}"
            self._run("tenant", "create", name)
            kept.write_text(self._run("key", "create", "--tenant", name, "--json"))
            kept.chmod(0o600)
        read = json.loads(kept.read_text())
        return {field: read[field] for field in ("client_id", "client_secret")}

    def _is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        return False

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ValueError(f"oneton {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """End it as an operator would.

        Raises:
            ValueError: it did not end with 0.
        """
        self.process.terminate()
        try:
            code = self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise ValueError(f"the server did not stop in {_STOP_TIMEOUT_S:.0f} s") from None
        if code != 0:
            raise ValueError(f"the server stopped with exit code {code}")

    def tail(self) -> str:
        """The last lines of its log, without the secret that it greets with."""
        lines = self.log.read_text(errors="replace").splitlines()
        shown = [line for line in lines if not line.startswith("client_secret")]
        return "\n".join([f"the end of {self.log.name}:", *shown[-_LOG_TAIL_LINES:]])


def model_pack() -> str:
    """The setting, for any working folder: a pack's name is one in the caller's data folder."""
    name = os.environ.get("ONETON_MODEL_PACK", "") or DEFAULT_PACK
    if name == DEFAULT_PACK:
        return name
    data_dir = Path(os.environ.get("ONETON_DATA_DIR", "") or ".oneton")
    path = Path(name) if os.sep in name else data_dir / "models" / name
    return str(path.expanduser().resolve())


def make_sight(root: Path) -> Sight:
    """The model pack at work here too, its files under `root`."""
    name = model_pack()
    if name == DEFAULT_PACK:
        assemble_buffalo_sc(root)
    files = open_pack(name, root)
    return Sight(Analyser(files), load_calibration(file_sha256(files.recogniser)))


def play(caller: Caller, cast: Cast, server: str, page: Path, root: Path) -> bool:
    """Play, print the table, write the page; whether all is good."""
    story = Story(caller, cast)
    try:
        story.play()
    finally:
        print_table(story.steps)
    outcome = judge(story.steps, cast.accepted_rate)
    print(outcome)
    page.parent.mkdir(parents=True, exist_ok=True)
    text = make_page(story.steps, story.enrolled, make_sight(root), outcome, server)
    page.write_text(text, encoding="utf-8")
    print(f"page     {page}", flush=True)
    return outcome.good


def print_curl_lines(server: Server, credentials: Mapping[str, str], cast: Cast) -> None:
    """How to go on with a server that was left running."""
    person = cast.people[0]
    body, one, other = (server.folder / name for name in ("body.json", "one.jpg", "other.jpg"))
    body.write_text(json.dumps({"idPhoto": as_base64(person.others[0].data)}))
    one.write_bytes(person.photo.data)
    other.write_bytes(person.others[0].data)
    fields = {"grant_type": "client_credentials", **credentials}
    form = " ".join(f"-d {name}={shlex.quote(value)}" for name, value in fields.items())
    photo = shlex.quote(f"@{body}")
    photos = f"-F sourceImage={shlex.quote(f'@{one}')} -F targetImage={shlex.quote(f'@{other}')}"
    token = r"""sed 's/.*"access_token":"\([^"]*\)".*/\1/'"""
    header = '-H "Authorization: Bearer $TOKEN"'
    print(
        f"server   {server.url}  (API page: {server.url}/schema)\n"
        f"process  {server.process.pid}; stop it with: kill {server.process.pid}\n"
        f"folder   {server.folder}  (photos, credentials, serve.log; delete it afterwards)\n"
        f"\nTOKEN=$(curl -sS {form} {server.url}{TOKEN} | {token})"
        f"\ncurl -sS {header} -H 'Content-Type: application/json' -d {photo} {server.url}{SEARCH}"
        f"\ncurl -sS {header} {photos} {server.url}{MATCH}",
        flush=True,
    )


def play_on_own_server(asked: argparse.Namespace, cast: Cast, work: Path, page: Path) -> bool:
    """Start a server, play, and stop it unless it is to be kept."""
    server = Server(work / "server")
    kept = good = False
    try:
        print(f"starting a server at {server.url}", file=sys.stderr)
        credentials = server.credentials()
        caller = Caller(server.url, credentials, proxies=False)
        good = play(caller, cast, server.url, page, work / "models")
        if asked.keep:
            print_curl_lines(server, credentials, cast)
            kept = True
    finally:
        try:
            if not kept:
                server.stop()
        except ValueError:
            good = False
            raise
        finally:
            if not good:
                print(server.tail(), file=sys.stderr)
            if not kept:
                shutil.rmtree(server.folder, ignore_errors=True)
    return good


def read_arguments(arguments: Sequence[str]) -> tuple[argparse.Namespace, Cast]:
    """What is asked for; wrong usage ends with 2."""
    parser = argparse.ArgumentParser("scripts/demo", add_help=False, allow_abbrev=False)
    parser.add_argument("--photos", type=Path, metavar="DIR")
    parser.add_argument("--limit", type=int, default=40, metavar="N")
    parser.add_argument("--page", type=Path, metavar="FILE")
    parser.add_argument("--keep", action="store_true")
    for name in ("--url", "--client-id", "--client-secret"):
        parser.add_argument(name)
    asked = parser.parse_args(arguments)
    given = [asked.url, asked.client_id, asked.client_secret]
    if any(given) and not all(given):
        parser.error("--url, --client-id and --client-secret go together")
    if asked.url and asked.keep:
        parser.error("--keep is for a server that is started here, not for --url")
    if asked.page and asked.page.is_dir():
        parser.error(f"--page {asked.page} is a folder")
    if asked.limit < 3:
        parser.error("--limit is 3 or more: two people and a stranger")
    if asked.photos is None:
        return asked, cast_of_packages()
    try:
        return asked, cast_of_folder(asked.photos, asked.limit)
    except (OSError, ValueError) as error:
        parser.error(f"--photos: {error}")


def main(arguments: Sequence[str]) -> int:
    """Play; the exit code."""
    asked, cast = read_arguments(arguments)
    # A default SIGTERM would leave the server behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    work = Path(tempfile.mkdtemp(prefix="oneton-demo-"))
    page = asked.page.resolve() if asked.page else work / "demo.html"
    try:
        if not asked.url:
            return 0 if play_on_own_server(asked, cast, work, page) else 1
        credentials = {"client_id": asked.client_id, "client_secret": asked.client_secret}
        caller = Caller(asked.url, credentials)
        return 0 if play(caller, cast, asked.url, page, work / "models") else 1
    except (httpx.HTTPError, OnetonError, OSError, ValueError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        shutil.rmtree(work / "models", ignore_errors=True)
        with suppress(OSError):  # it holds the page, or a server that was kept
            work.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
