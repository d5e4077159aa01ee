"""Plays `scripts/demo`; writes a page of photos, by default under the system's temporary folder."""

from __future__ import annotations

import argparse
import base64
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import httpx
import numpy as np
from _demo_page import (
    Cast,
    Kind,
    Person,
    Photo,
    Sight,
    Step,
    cast_of_folder,
    cast_of_packages,
    judge,
    make_page,
    print_table,
    varied,
)

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.calibration import load_calibration
from oneton.biometrics.packs import DEFAULT_PACK, assemble_buffalo_sc, file_sha256, open_pack
from oneton.domain.errors import OnetonError

TOKEN = "/api/oauth/token"
SEARCH = "/api/v1/face/one-to-n/search"
INSERT = "/api/v1/face/one-to-n/insert"
MATCH = "/api/v1/face/match"
LEVELS = {True: (3, 4, 5), False: (0, 1, 2)}

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 40.0
_LOG_TAIL_LINES = 25


@dataclass(frozen=True)
class Answer:
    """A reply; status 0 is that none came."""

    status: int
    body: Mapping[str, Any]
    took_ms: float

    @property
    def face_id(self) -> str | None:
        """The face record that it names."""
        return self.body.get("oneToNVerificationId")

    @property
    def found(self) -> bool:
        """It names a face record that was there before."""
        return self.status == 200 and self.body.get("oneToNVerificationMatch") is True

    @property
    def added(self) -> bool:
        """It names a new face record."""
        return self.status == 200 and not self.found and self.face_id is not None


class Caller:
    """A tenant's client."""

    def __init__(self, url: str, credentials: Mapping[str, str], *, proxies: bool = True) -> None:
        """Get a token, by the environment's proxies or past them."""
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=proxies)
        form = {"grant_type": "client_credentials", **credentials}
        reply = self._http.post(TOKEN, data=form).raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {reply.json()['access_token']}"

    def ask(self, method: str, path: str, body: object = None, token: str = "") -> Answer:
        """Send JSON, timed; `token` is instead of the right one."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        start = time.perf_counter()
        try:
            reply = self._http.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            return Answer(0, {"message": repr(error)}, (time.perf_counter() - start) * 1000)
        took_ms = (time.perf_counter() - start) * 1000
        return Answer(reply.status_code, reply.json() if reply.content else {}, took_ms)

    def search(self, photo: Photo, *, insert: bool = False) -> Answer:
        """1:N, with `insert` adding who is missing."""
        return self.ask("POST", SEARCH, {"idPhoto": as_base64(photo.data), "insert": insert})


def as_base64(data: bytes) -> str:
    """As the dialect wants a picture."""
    return base64.b64encode(data).decode()


class Story:
    """Asks everything in turn and notes each answer as a step."""

    def __init__(self, caller: Caller, cast: Cast) -> None:
        self.steps: list[Step] = []
        self.enrolled: list[Photo] = []
        self._caller, self._cast = caller, cast
        self._places: dict[str, int] = {}

    def play(self) -> None:
        """From the empty gallery to refusals."""
        first = self._cast.people[0].photo
        self._search("an empty gallery", f"photo of {first.name}", first, None)
        known = self._find(self._enroll())
        self._insert_if_missing(self._meet_strangers())
        self._erase(*known)
        self._match(known[0])
        self._be_refused(first)

    def _said(self, answer: Answer) -> str:
        if answer.status != 200:
            message = str(answer.body.get("message") or answer.body.get("error", ""))
            return f"{answer.status} {message.partition(':')[0]}".strip()
        if "matchLevel" in answer.body:
            word = "match" if answer.body.get("match") else "no match"
            return f"{word}, level {answer.body['matchLevel']}"
        if answer.added:
            return f"added, id …{str(answer.face_id)[-8:]}"
        found = self._known(answer)
        return f"{found.name if found else answer.face_id}, match" if answer.found else "nobody"

    def _known(self, answer: Answer) -> Photo | None:
        """The photo enrolled here of the id that is answered."""
        place = self._places.get(answer.face_id or "")
        return None if place is None else self.enrolled[place]

    def _remember(self, answer: Answer, photo: Photo) -> None:
        self._places[str(answer.face_id)] = len(self.enrolled)
        self.enrolled.append(photo)

    def _note(self, part: str, asked: str, status: int, answer: Answer) -> None:
        """A step whose answer is its status."""
        right = answer.status == status
        said = self._said(answer)
        self.steps.append(Step(part, asked, str(status), said, answer.took_ms, right))

    def _search(
        self, part: str, asked: str, probe: Photo, face_id: str | None, kind: Kind = "exact"
    ) -> bool:
        """Search for one of this id, or for nobody; whether it was answered so."""
        answer, count = self._caller.search(probe), len(self.enrolled)
        right = answer.status == 200 and answer.face_id == face_id
        right = right and answer.found == (face_id is not None)
        # A photo of one's own without a face finds nobody either.
        faceless = self._said(answer) == "400 FACE_NOT_FOUND" and self._cast.accepted_rate > 0
        accepted = right or (faceless and face_id is None)
        expected = f"{probe.name}, match" if face_id else "nobody"
        said, beside = self._said(answer), self._known(answer)
        self.steps.append(
            Step(part, asked, expected, said, answer.took_ms, accepted, kind, probe, beside, count)
        )
        return right

    def _enroll(self) -> list[tuple[Person, str]]:
        """Whoever the server took, with their ids."""
        taken = []
        for person in self._cast.people:
            photo = person.photo
            answer = self._caller.ask("POST", INSERT, {"idPhoto": as_base64(photo.data)})
            right = answer.added and self._known(answer) is None
            asked, said = f"insert {photo.name}", self._said(answer)
            self.steps.append(
                Step("enroll", asked, "a new id", said, answer.took_ms, right, "enrolment", photo)
            )
            if right:
                self._remember(answer, photo)
                taken.append((person, str(answer.face_id)))
        if not taken:
            raise ValueError("the server took nobody's photo: " + self.steps[-1].answered)
        return taken

    def _find(self, people: Sequence[tuple[Person, str]]) -> tuple[Person, str]:
        """One whom all searches found; if there is none, the first."""
        known = []
        for person, face_id in people:
            found = [
                self._search("find again", f"photo {no} of {other.name}", other, face_id, "mated")
                for no, other in enumerate(person.others, 2)
            ]
            if all(found):
                known.append((person, face_id))
        return (known or people)[0]

    def _meet_strangers(self) -> Photo:
        """One whom no search found; if there is none, the first."""
        unknown = [
            stranger
            for stranger in self._cast.strangers
            if self._search("strangers", f"photo of {stranger.name}", stranger, None, "stranger")
        ]
        return (unknown or self._cast.strangers)[0]

    def _insert_if_missing(self, stranger: Photo) -> None:
        part, name, again = "insert if missing", stranger.name, varied(stranger)[0]
        first = self._caller.search(stranger, insert=True)
        right, said, beside = first.added, self._said(first), self._known(first)
        step = Step(part, f"photo of {name}", "a new id", said, first.took_ms, right)
        self.steps.append(replace(step, probe=stranger, beside=beside, enrolled=len(self.enrolled)))
        if first.added:
            self._remember(first, stranger)
        second = self._caller.search(again, insert=True)
        right = second.found and second.face_id == first.face_id
        said, beside = self._said(second), self._known(second)
        step = Step(part, f"another of {name}", f"{name}, match", said, second.took_ms, right)
        self.steps.append(replace(step, probe=again, beside=beside, enrolled=len(self.enrolled)))

    def _erase(self, person: Person, face_id: str) -> None:
        part, name = "erase", person.photo.name
        for asked in (f"delete {name}'s photo", "delete it again"):
            self._note(part, asked, 204, self._caller.ask("DELETE", f"{SEARCH}/{face_id}"))
        self._search(part, f"photo 2 of {name} again", person.others[0], face_id)
        unknown = self._caller.ask("DELETE", f"{SEARCH}/{uuid4()}")
        self._note(part, "delete an unknown id", 404, unknown)

    def _match(self, known: Person) -> None:
        photo, stranger = known.photo, self._cast.strangers[0]
        other = next((each for each in self.enrolled if each.name != photo.name), stranger)
        for beside, match in ((known.others[0], True), (other, False)):
            pictures = {"sourceImage": photo.data, "targetImage": beside.data}
            body = {name: as_base64(data) for name, data in pictures.items()}
            answer = self._caller.ask("POST", MATCH, body)
            level, said = answer.body.get("matchLevel", -1), self._said(answer)
            right = answer.body.get("match") is match and level in LEVELS[match]
            asked = f"{photo.name} and {'another photo' if match else beside.name}"
            expected = "match, level 3 to 5" if match else "no match, level 0 to 2"
            step = Step("1:1 match", asked, expected, said, answer.took_ms, right)
            self.steps.append(replace(step, probe=photo, beside=beside))

    def _be_refused(self, photo: Photo) -> None:
        picture = as_base64(photo.data)
        for asked, status, body, token in (
            ("a wrong token", 401, picture, "wrong"),
            ("a text, not a picture", 415, as_base64(b"no picture at all"), ""),
            ("a picture of 6 MB", 413, as_base64(photo.data.ljust(6_000_000, b"\0")), ""),
            ("a picture without a face", 400, as_base64(_grey()), ""),
            ("no picture", 400, "", ""),
        ):
            answer = self._caller.ask("POST", SEARCH, {"idPhoto": body}, token)
            self._note("refusals", asked, status, answer)


def _grey() -> bytes:
    return cv2.imencode(".jpg", np.full((250, 250, 3), 128, np.uint8))[1].tobytes()


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
